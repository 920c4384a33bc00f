"""A model folder in the layout of diffusers, checked and opened without reading weights.

Hotshot-XL and SDXL are published so: ``model_index.json`` names the components, each of which is a
folder with a configuration and its weights (``unet``, ``vae``, ``text_encoder``,
``text_encoder_2``), beside two tokenizers and the scheduler's configuration.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from hotshot_jax.convert.formats.model_family import (
    component_class,
    foreign_pipeline,
    foreign_unet,
    is_component_entry,
)
from hotshot_jax.convert.formats.tokenizer_files import check_tokenizer_folder
from hotshot_jax.convert.tensors.file_content import describe_unreadable, read_json_object
from hotshot_jax.convert.tensors.rules import is_temporal
from hotshot_jax.convert.tensors.tensor_source import (
    TensorSource,
    open_file,
    open_files,
    open_index,
    read_weight_map,
)
from hotshot_jax.convert.tensors.weight_files import (
    WeightFiles,
    choose_weight_files,
    describe_unread,
    find_weight_files,
    is_complete,
)
from hotshot_jax.convert.tensors.weight_types import check_config_not_quantised, check_weight_types
from hotshot_jax.errors import HotshotError, UsageError

MODEL_INDEX = "model_index.json"
CONVERTED_MARKER = "hotshot_jax.json"

WEIGHT_COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2")
TOKENIZERS = ("tokenizer", "tokenizer_2")
_REQUIRED = (*WEIGHT_COMPONENTS, *TOKENIZERS, "scheduler")

_EXPECTED = "expected a Hotshot-XL checkpoint in the diffusers layout, as hotshotco/Hotshot-XL has"

# Keys without which a configuration cannot be told apart or built; the models check the others.
_REQUIRED_KEYS = {
    "unet": ("block_out_channels", "cross_attention_dim", "down_block_types", "up_block_types"),
    "controlnet": ("block_out_channels", "cross_attention_dim", "down_block_types"),
    "vae": ("block_out_channels", "latent_channels"),
    "text_encoder": ("hidden_size", "num_hidden_layers", "num_attention_heads"),
    "text_encoder_2": ("hidden_size", "num_hidden_layers", "num_attention_heads"),
}


@dataclass(frozen=True)
class Component:
    """One model of a checkpoint: its configuration and its tensors, not yet read.

    Attributes:
        name: ``unet``, ``vae``, ``text_encoder``, ``text_encoder_2`` or ``controlnet``.
        path: its folder.
        config_path: its ``config.json``, for messages.
        config: the content of that file.
        tensors: its tensors under PyTorch's names.
        variant: the variant of the weights that was chosen (``fp16``), None for none.
        notes: what the user should know about the choice.
    """

    name: str
    path: Path
    config_path: Path
    config: Mapping[str, Any]
    tensors: TensorSource
    variant: str | None
    notes: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors as they are stored."""
        return self.tensors.nbytes

    @property
    def has_temporal_layers(self) -> bool:
        """Whether the tensors include temporal layers (a Hotshot-XL UNet)."""
        return any(is_temporal(name) for name in self.tensors)


AnyModel = TypeVar("AnyModel", bound=Any)


@dataclass(frozen=True)
class CheckpointFolder(Generic[AnyModel]):
    """A whole checkpoint in a folder, its models in one form or another.

    Attributes:
        path: the folder.
        index: the content of ``model_index.json``, settings of the pipeline included
            (``force_zeros_for_empty_prompt``).
        unet: the UNet.
        vae: the image decoder and encoder.
        text_encoder: the first text encoder (CLIP ViT-L).
        text_encoder_2: the second text encoder (OpenCLIP bigG).
        tokenizer: folder of the first encoder's tokenizer.
        tokenizer_2: folder of the second encoder's tokenizer.
        scheduler_config: the scheduler's configuration, ``_class_name`` included.
        notes: sentences that the user should see: variants chosen, components ignored.
    """

    path: Path
    index: Mapping[str, Any]
    unet: AnyModel
    vae: AnyModel
    text_encoder: AnyModel
    text_encoder_2: AnyModel
    tokenizer: Path
    tokenizer_2: Path
    scheduler_config: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def components(self) -> tuple[AnyModel, ...]:
        """The four models."""
        return self.unet, self.vae, self.text_encoder, self.text_encoder_2

    @property
    def nbytes(self) -> int:
        """Bytes of all weights as they are stored."""
        return sum(component.nbytes for component in self.components)


class DiffusersFolder(CheckpointFolder[Component]):
    """A whole checkpoint in the diffusers layout."""


def open_diffusers_folder(
    path: str | os.PathLike[str], *, variant: str | None = None, require_temporal: bool = True
) -> DiffusersFolder:
    """Open a checkpoint folder and check everything short of the weights' values.

    Args:
        path: the folder that holds ``model_index.json``.
        variant: prefer the weights of this variant (``fp16``); None prefers those without one.
            Where the preferred ones are missing, others are taken and ``notes`` says so.
        require_temporal: whether the UNet must have temporal layers; a plain SDXL model passes
            with False.

    Raises:
        UsageError: nothing at ``path``, a file there, or no component has the variant.
        HotshotError: an empty folder, another model (which is named), components, weights,
            tokenizer files or configurations that are missing or damaged, quantised weights.
    """
    path = _existing_folder(path)
    index_path = path / MODEL_INDEX
    if not os.path.lexists(index_path):
        raise HotshotError(_describe_folder_without_index(path))
    index = read_json_object(index_path)
    refuse_other_models(path)
    missing = [name for name in _REQUIRED if not (path / name).is_dir()]
    if missing:
        raise HotshotError(
            f"{path} lacks the {'folder' if len(missing) == 1 else 'folders'} "
            f"{', '.join(name + '/' for name in missing)}; {_EXPECTED}. Download the model again"
        )
    for name in TOKENIZERS:
        check_tokenizer_folder(path / name)
    scheduler_config = read_scheduler_config(path, index)
    opened = {name: open_component(path / name, name, variant) for name in WEIGHT_COMPONENTS}
    _check_variant(path, variant, opened)
    unet = opened["unet"]
    if require_temporal and not unet.has_temporal_layers:
        raise HotshotError(_describe_plain_sdxl(path, unet))
    notes = [note for component in opened.values() for note in component.notes]
    extra = [
        name
        for name, value in index.items()
        if is_component_entry(value) and value[1] is not None and name not in _REQUIRED
    ]
    if extra:
        notes.append(
            f"{path}: ignoring components that Hotshot-XL does not use: {', '.join(extra)}"
        )
    return DiffusersFolder(
        path=path,
        index=index,
        unet=unet,
        vae=opened["vae"],
        text_encoder=opened["text_encoder"],
        text_encoder_2=opened["text_encoder_2"],
        tokenizer=path / TOKENIZERS[0],
        tokenizer_2=path / TOKENIZERS[1],
        scheduler_config=scheduler_config,
        notes=tuple(notes),
    )


def refuse_other_models(path: Path) -> None:
    """Look at the small files of a checkpoint folder and refuse models that are not SDXL's kind.

    Args:
        path: folder with ``model_index.json``; ``unet/config.json`` is read where it is there.

    Raises:
        HotshotError: another model, which is named; or one of the two files is damaged.
    """
    _refuse(path, foreign_pipeline(read_json_object(path / MODEL_INDEX)))
    unet_config = path / "unet" / "config.json"
    if unet_config.exists():
        _refuse(path, foreign_unet(read_json_object(unet_config)))


def open_component(
    path: str | os.PathLike[str], name: str, variant: str | None = None
) -> Component:
    """Open one model: its configuration and the headers of its weight files.

    Args:
        path: the model's own folder, or a checkpoint folder that holds it as ``name/``.
        name: ``unet``, ``vae``, ``text_encoder``, ``text_encoder_2`` or ``controlnet``.
        variant: the variant preferred, as in ``open_diffusers_folder``.

    Raises:
        UsageError: nothing at ``path``, or a file.
        HotshotError: configuration or weights are missing, damaged, in a format that is not read,
            or quantised.
    """
    path = _existing_folder(path)
    if not (path / "config.json").exists() and (path / name).is_dir():
        path = path / name
    config_path = path / "config.json"
    config = read_json_object(config_path)
    kind = config.get("_class_name")
    if name == "controlnet" and isinstance(kind, str) and "ControlNet" not in kind:
        raise HotshotError(f"{path} holds {kind}, not a ControlNet, and is not supported as one.")
    lacking = [key for key in _REQUIRED_KEYS[name] if config.get(key) is None]
    if lacking:
        raise HotshotError(
            f"{config_path} lacks {', '.join(repr(key) for key in lacking)}; expected the "
            f"configuration of the model's {name}, download it again"
        )
    # A ControlNet's configuration names its family itself when it is read.
    if name == "unet":
        _refuse(path, foreign_unet(config))
    check_config_not_quantised(config, config_path)
    files = [entry.name for entry in _entries(path) if not entry.is_dir()]
    chosen = choose_weight_files(find_weight_files(files), variant)
    if chosen is None:
        unread = describe_unread(files)
        reason = (
            f"{path} holds no .safetensors weights"
            if unread is None
            else f"{path} holds {unread} but no .safetensors weights, the only ones that are read"
        )
        raise HotshotError(
            f"{reason}; download the model's .safetensors files, or save it with "
            "save_pretrained(..., safe_serialization=True)"
        )
    notes = []
    if chosen.variant is not None and chosen.variant != variant:
        wanted = "weights without a variant" if variant is None else f"weights of '{variant}'"
        notes.append(f"{path}: no {wanted}, using those of '{chosen.variant}'")
    elif variant is not None and chosen.variant is None:
        notes.append(f"{path}: no weights of '{variant}', using those without a variant")
    tensors = _open_weights(path, chosen, notes)
    check_weight_types(tensors)
    return Component(name, path, config_path, config, tensors, chosen.variant, tuple(notes))


def _open_weights(path: Path, files: WeightFiles, notes: list[str]) -> TensorSource:
    if files.single is not None:
        return open_file(path / files.single)
    if files.indexes:
        return open_index(_choose_index(path, files.indexes))
    if not is_complete(files.shards):
        raise HotshotError(
            f"{path} holds {', '.join(files.shards)} but neither all shards nor their index "
            f"({files.stem}.safetensors.index.json); download the missing files"
        )
    notes.append(f"{path}: the shards have no index; taking every tensor that they hold")
    return open_files((path / shard for shard in files.shards), path)


def _choose_index(path: Path, names: tuple[str, ...]) -> Path:
    """The index whose shards are there; the first, to complain about, where none has them."""
    for name in names:
        if all((path / shard).exists() for shard in set(read_weight_map(path / name).values())):
            return path / name
    return path / names[0]


def read_scheduler_config(path: Path, index: Mapping[str, Any]) -> dict[str, Any]:
    """Read a checkpoint's ``scheduler_config.json``.

    Args:
        path: the checkpoint's folder.
        index: the content of its ``model_index.json``, which may name the scheduler's class alone.

    Raises:
        HotshotError: the file is missing or damaged, or neither file names the class.
    """
    config_path = path / "scheduler" / "scheduler_config.json"
    config = read_json_object(config_path)
    name = config.get("_class_name", component_class(index, "scheduler"))
    if not isinstance(name, str):
        raise HotshotError(
            f"{config_path} lacks '_class_name', the scheduler's name (for example "
            "'EulerAncestralDiscreteScheduler'); download it again"
        )
    return {**config, "_class_name": name}


def _check_variant(path: Path, variant: str | None, opened: Mapping[str, Component]) -> None:
    if variant is None or any(component.variant == variant for component in opened.values()):
        return
    found = sorted({component.variant or "without variant" for component in opened.values()})
    raise UsageError(f"{path} has no weights of the variant '{variant}'; found: {', '.join(found)}")


def _refuse(path: Path, family: str | None) -> None:
    if family is not None:
        raise HotshotError(f"{path} is {family}; {_EXPECTED}")


def _existing_folder(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.is_dir():
        return path
    if not path.exists():
        raise UsageError(f"{path} does not exist; {_EXPECTED}")
    raise UsageError(f"{path} is a file; {_EXPECTED}")


def _entries(path: Path) -> list[Path]:
    try:
        return list(path.iterdir())
    except OSError as error:
        raise HotshotError(describe_unreadable(path, error)) from None


def _describe_folder_without_index(path: Path) -> str:
    names = sorted(entry.name for entry in _entries(path))
    if not names:
        return f"{path} is an empty folder; {_EXPECTED}"
    if CONVERTED_MARKER in names:
        return f"{path} is a checkpoint that was converted already; it needs no conversion"
    if {"blobs", "snapshots"} <= set(names):
        return f"{path} is a folder of the Hub cache; pass one of the folders in {path}/snapshots"
    if "adapter_config.json" in names or any("lora" in name.lower() for name in names):
        return f"{path} looks like a LoRA ({names[0]}, no {MODEL_INDEX}); {_EXPECTED}"
    if "config.json" in names:
        config = read_json_object(path / "config.json")
        kind = config.get("_class_name") or (config.get("architectures") or ["model"])[0]
        return (
            f"{path} holds a single {kind}, not a whole checkpoint; {_EXPECTED}. "
            "Pass the folder above it"
        )
    listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{path} has no {MODEL_INDEX} (it holds {listed}); {_EXPECTED}"


def _describe_plain_sdxl(path: Path, unet: Component) -> str:
    kind = unet.config.get("_class_name", "UNet")
    if kind == "UNet3DConditionModel":
        return (
            f"{unet.path}: the weights hold no temporal layers though the configuration names "
            f"{kind}; {_EXPECTED}. Download the model again"
        )
    return (
        f"{path} is a plain SDXL model ({kind}): it has no temporal layers and cannot make clips "
        "alone. Give a Hotshot-XL checkpoint as the model and this one with `spatial_unet_base`, "
        "or add temporal layers with `temporal`"
    )
