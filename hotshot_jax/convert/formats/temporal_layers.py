"""Hotshot-XL's temporal layers by themselves, in the spellings in which they are passed around.

- hotshot: the published `hsxl_temporal_layers*.safetensors`, or the same names in a whole UNet.
- comfyui: `motion_modules.N.temporal_transformer`, `pos_encoder.pe` (AnimateDiff-Evolved).
- diffusers: `MotionAdapter`, where the attentions and norms of a block are numbered from 1.

Positional tables are constants here. A file's tables are compared with the model's, then dropped;
writing adds those that each spelling has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hotshot_jax.choices import TEMPORAL_SPELLINGS
from hotshot_jax.convert.formats.temporal_shape import adapter_words, temporal_metadata
from hotshot_jax.convert.load import check_positional_table
from hotshot_jax.convert.tensors.rules import POSITIONAL_TABLE, TEMPORAL, is_temporal
from hotshot_jax.convert.tensors.safetensors_file import write_safetensors
from hotshot_jax.convert.tensors.tensor_source import LazyTensor, TensorSource, first_names
from hotshot_jax.convert.tensors.weight_types import check_weight_types
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.models.layers.embeddings import positional_encoding
from hotshot_jax.models.unet.encoder_config import PUBLISHED, TemporalShape
from hotshot_jax.writing.staging import check_destination, staged_file, staged_folder

HOTSHOT, COMFYUI, DIFFUSERS = TEMPORAL_SPELLINGS

_MODULE = re.compile(rf"(?P<module>(?:.*\.)?{TEMPORAL}\.\d+)\.(?P<rest>.*)")
_WIDTH = "norm.weight"
_BLOCK = "transformer_blocks.0"
_DIFFUSERS_PARTS = (
    (f"{_BLOCK}.attention_blocks.0.", f"{_BLOCK}.attn1."),
    (f"{_BLOCK}.attention_blocks.1.", f"{_BLOCK}.attn2."),
    (f"{_BLOCK}.norms.0.", f"{_BLOCK}.norm1."),
    (f"{_BLOCK}.norms.1.", f"{_BLOCK}.norm2."),
    (f"{_BLOCK}.ff_norm.", f"{_BLOCK}.norm3."),
)
_DIFFUSERS_TABLE = f"{_BLOCK}.pos_embed.pe"
_WRAPPERS = ("unet.", "model.diffusion_model.", "module.")
_LISTED = 4


def temporal_source(
    source: TensorSource,
    shapes: Mapping[str, tuple[int, ...]],
    shape: TemporalShape = PUBLISHED,
) -> TensorSource:
    """The temporal layers of a file, under the model's names, without positional tables.

    Args:
        source: a file in any of the spellings, or a whole Hotshot-XL UNet (its other tensors are
            left out).
        shapes: PyTorch's shape of each of the model's tensors, by PyTorch's name.
        shape: of the temporal transformers.

    Raises:
        HotshotError: there are no temporal layers in it; they are another model's (other widths,
            other places, a positional table of other length or values), incomplete or quantised.
    """
    spelled = _to_hotshot(source)
    if not len(spelled):
        raise HotshotError(
            f"{source.path} holds no temporal layers; expected the names of Hotshot-XL "
            f"({TEMPORAL}), of ComfyUI or of a diffusers MotionAdapter (motion_modules)."
        )
    expected = {name: shape for name, shape in shapes.items() if is_temporal(name)}
    _check_widths(spelled, expected)
    for name, tensor in spelled.items():
        if name.endswith(POSITIONAL_TABLE):
            check_positional_table(tensor, shape.positions)
    weights = _without_tables(spelled)
    _check_places(weights, expected)
    check_weight_types(weights)
    return weights


def named_as_hotshot(source: TensorSource) -> TensorSource:
    """The temporal layers of a file in any of the spellings, under the model's names.

    Nothing is checked; positional tables are left out.
    """
    return _without_tables(_to_hotshot(source))


def _without_tables(source: TensorSource) -> TensorSource:
    return source.renamed(lambda name: None if name.endswith(POSITIONAL_TABLE) else name)


def with_temporal_layers(unet: TensorSource, temporal: TensorSource) -> TensorSource:
    """A UNet's spatial layers with temporal layers from elsewhere.

    Args:
        unet: the UNet, under the model's names; temporal layers of its own are left out.
        temporal: the result of `temporal_source`.
    """
    spatial = (tensor for name, tensor in unet.items() if not is_temporal(name))
    return TensorSource([*spatial, *temporal.values()], unet.path, unet.metadata)


def spelling_of(names: Iterable[str]) -> str | None:
    """Which spelling a file's temporal layers have; None where it holds none."""
    for name in names:
        if f".{TEMPORAL}." in name:
            return HOTSHOT
        if ".motion_modules." in name:
            return COMFYUI if ".temporal_transformer." in name else DIFFUSERS
    return None


def write_names(
    source: TensorSource, spelling: str, shape: TemporalShape = PUBLISHED
) -> TensorSource:
    """The temporal layers of a UNet in one of the spellings, with their positional tables.

    Args:
        source: tensors under the model's names; those outside temporal layers are left out.
        spelling: "hotshot", "comfyui" or "diffusers".
        shape: of the temporal transformers.

    Raises:
        HotshotError: `source` holds no temporal layers.
    """
    rename = {HOTSHOT: lambda name: name, COMFYUI: _to_comfyui, DIFFUSERS: _to_diffusers}[spelling]
    tensors: list[LazyTensor] = []
    tables: list[LazyTensor] = []
    for name, tensor in source.items():
        if not is_temporal(name) or name.endswith(POSITIONAL_TABLE):
            continue
        tensors.append(tensor.renamed(rename(name)))
        match = _MODULE.fullmatch(name)
        if match and match["rest"] == _WIDTH:
            for table in _tables(match["module"], spelling):
                tables.append(_positional(tensor, rename(table), shape.positions))
    if not tensors:
        raise HotshotError(f"{source.path} holds no temporal layers to write.")
    return TensorSource([*tensors, *tables], source.path)


def motion_adapter_config(
    shapes: Mapping[str, tuple[int, ...]], shape: TemporalShape = PUBLISHED
) -> dict[str, Any]:
    """The `config.json` of a diffusers MotionAdapter that holds these temporal layers.

    Args:
        shapes: PyTorch's shape of each of the model's tensors, by PyTorch's name.
        shape: of the temporal transformers.
    """
    widths = {
        int(name.split(".")[1]): sizes[0]
        for name, sizes in shapes.items()
        if name.startswith("down_blocks.") and name.endswith(f"{TEMPORAL}.0.{_WIDTH}")
    }
    layers = sum(
        name.startswith(f"down_blocks.0.{TEMPORAL}.") and name.count(".") == 5 and _WIDTH in name
        for name in shapes
    )
    return {
        "_class_name": "MotionAdapter",
        "block_out_channels": [widths[level] for level in sorted(widths)],
        "motion_layers_per_block": layers,
        **adapter_words(shape),
        "use_motion_mid_block": False,
    }


def _tables(module: str, spelling: str) -> list[str]:
    if spelling == DIFFUSERS:
        # One table for the whole block; both attentions add the same.
        return [f"{module}.{_DIFFUSERS_TABLE}"]
    return [f"{module}.{_BLOCK}.attention_blocks.{index}.{POSITIONAL_TABLE}" for index in range(2)]


def _positional(norm: LazyTensor, name: str, positions: int) -> LazyTensor:
    channels = norm.shape[0]

    def table(_: np.ndarray) -> np.ndarray:
        return positional_encoding(positions, channels)[None].astype(norm.dtype)

    return norm.mapped(name, (1, positions, channels), table)


def _to_hotshot(source: TensorSource) -> TensorSource:
    rename: Callable[[str], str | None]
    spelling = spelling_of(source.names)
    if spelling == HOTSHOT:
        rename = lambda name: name if is_temporal(name) else None  # noqa: E731
    else:
        rename = _from_comfyui if spelling == COMFYUI else _from_diffusers
    return source.renamed(lambda name: rename(_unwrapped(name)))


def _unwrapped(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.removeprefix(wrapper)
    return name


def _to_comfyui(name: str) -> str:
    name = re.sub(rf"\.{TEMPORAL}\.(\d+)\.", r".motion_modules.\1.temporal_transformer.", name)
    return name.replace(POSITIONAL_TABLE, "pos_encoder.pe")


def _from_comfyui(name: str) -> str | None:
    if ".motion_modules." not in name:
        return None
    name = re.sub(r"\.motion_modules\.(\d+)\.temporal_transformer\.", rf".{TEMPORAL}.\1.", name)
    return name.replace("pos_encoder.pe", POSITIONAL_TABLE)


def _to_diffusers(name: str) -> str:
    name = name.replace(f".{TEMPORAL}.", ".motion_modules.")
    for ours, theirs in _DIFFUSERS_PARTS:
        name = name.replace(ours, theirs)
    return name


def _from_diffusers(name: str) -> str | None:
    if ".motion_modules." not in name:
        return None
    name = name.replace(".motion_modules.", f".{TEMPORAL}.")
    # The block's one table stands for that of its first attention.
    name = name.replace(_DIFFUSERS_TABLE, f"{_BLOCK}.attention_blocks.0.{POSITIONAL_TABLE}")
    for ours, theirs in _DIFFUSERS_PARTS:
        name = name.replace(theirs, ours)
    return name


def _modules(shapes: Mapping[str, Any]) -> set[str]:
    return {match["module"] for name in shapes if (match := _MODULE.fullmatch(name))}


def _check_widths(source: TensorSource, expected: Mapping[str, tuple[int, ...]]) -> None:
    def widths(shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
        return sorted({shape[0] for name, shape in shapes.items() if _is_width(name)})

    found, wanted = widths({name: each.shape for name, each in source.items()}), widths(expected)
    if found and found != wanted:
        raise HotshotError(
            f"{source.path}: the temporal layers are {_list(found)} channels wide, the UNet's "
            f"{_list(wanted)}. They belong to another model."
        )


def _is_width(name: str) -> bool:
    match = _MODULE.fullmatch(name)
    return match is not None and match["rest"] == _WIDTH


def _check_places(source: TensorSource, expected: Mapping[str, tuple[int, ...]]) -> None:
    strange = sorted(_modules(source) - _modules(expected))
    if strange:
        raise HotshotError(
            f"{source.path}: Hotshot-XL has no temporal layer at "
            f"{first_names(strange, _LISTED)} (AnimateDiff for another model?)."
        )
    absent = sorted(_modules(expected) - _modules(source))
    if absent:
        raise HotshotError(
            f"{source.path}: {len(absent)} of {len(_modules(expected))} temporal layers are "
            f"missing: {first_names(absent, _LISTED)}."
        )
    unknown = [name for name in source if name not in expected]
    missing = [name for name in expected if name not in source]
    if unknown or missing:
        what = (
            f"unknown: {first_names(unknown, _LISTED)}"
            if unknown
            else f"missing: {first_names(missing, _LISTED)}"
        )
        raise HotshotError(
            f"{source.path}: the temporal layers are not built as Hotshot-XL's; {what}."
        )
    for name, tensor in source.items():
        if tensor.shape != expected[name]:
            raise HotshotError(
                f"{source.path}: {name} has shape {list(tensor.shape)}, expected "
                f"{list(expected[name])}. The layers belong to another model."
            )


def _list(widths: list[int]) -> str:
    return ", ".join(str(width) for width in widths) or "0"


_FILE = "diffusion_pytorch_model.safetensors"
_ENDING = ".safetensors"


def write_temporal_layers(
    source: TensorSource, shape: TemporalShape, spelling: str, dest: Path
) -> None:
    """Writes the temporal layers of a UNet or of a file of them.

    Args:
        source: tensors in any of the spellings.
        shape: of the temporal transformers.
        spelling: "hotshot" or "comfyui" for one file, "diffusers" for a folder that
            `MotionAdapter.from_pretrained` takes.
        dest: the `.safetensors` file, or the folder.

    Raises:
        UsageError: `dest` exists, or has the wrong ending.
        HotshotError: `source` holds no temporal layers, or those of another model; the disk is
            full.
    """
    as_folder = spelling == DIFFUSERS
    if as_folder == (dest.suffix == _ENDING):
        expected = "a folder" if as_folder else f"a file that ends in {_ENDING}"
        raise UsageError(f"{dest}: expected {expected} for `temporal` {spelling}.")
    shapes = {name: tensor.shape for name, tensor in named_as_hotshot(source).items()}
    written = write_names(temporal_source(source, shapes, shape), spelling, shape)
    layout = {name: (tensor.shape, tensor.dtype) for name, tensor in written.items()}
    tensors = ((name, tensor.read()) for name, tensor in written.items())
    if as_folder:
        check_destination(dest, source=source.path)
        with staged_folder(dest, required_bytes=written.nbytes) as folder:
            config = json.dumps(motion_adapter_config(shapes, shape), indent=2) + "\n"
            (folder / "config.json").write_text(config)
            write_safetensors(folder / _FILE, layout, tensors, temporal_metadata(shape))
        return
    with staged_file(dest) as staged:
        write_safetensors(staged, layout, tensors, temporal_metadata(shape))
