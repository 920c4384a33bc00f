"""A checkpoint put together from several: spatial layers, temporal layers, encoders, VAE."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hotshot_jax import clip_tokenizer
from hotshot_jax.convert.builders import model_shapes
from hotshot_jax.convert.formats.converted import ConvertedComponent, is_converted, open_converted
from hotshot_jax.convert.formats.diffusers_folder import (
    MODEL_INDEX,
    Component,
    open_component,
    open_diffusers_folder,
)
from hotshot_jax.convert.formats.model_family import TEMPORAL_LAYERS, refuse_other_kinds
from hotshot_jax.convert.formats.single_file import SingleFile, open_single_file
from hotshot_jax.convert.formats.single_file_config import scheduler_config, stated_prediction
from hotshot_jax.convert.formats.temporal_layers import temporal_source, with_temporal_layers
from hotshot_jax.convert.formats.temporal_shape import read_shape, stated_shape, unet_words
from hotshot_jax.convert.hub import cached, checkpoint_files, resolve
from hotshot_jax.convert.prepare import component_source
from hotshot_jax.convert.tensors.file_content import PICKLES, read_json_object, refuse_pickle
from hotshot_jax.convert.tensors.tensor_source import TensorSource, open_file
from hotshot_jax.convert.tensors.weight_files import choose_weight_files, find_weight_files
from hotshot_jax.errors import HotshotError
from hotshot_jax.models.unet.encoder_config import TemporalShape

_TEXT = ("text_encoder", "text_encoder_2")
# What a model predicts goes with its UNet's spatial layers, not with the scheduler's name.
_PREDICTION = ("prediction_type", "rescale_betas_zero_snr")
_CONFIG = "config.json"
_SINGLE_FILE = ".safetensors"
_TEMPORAL_FILES = ("hsxl_temporal_layers", "diffusion_pytorch_model", "diffusion_motion_model")

AnyComponent = Component | ConvertedComponent


@dataclasses.dataclass(frozen=True)
class Parts:
    """What to take from elsewhere than the checkpoint; each a path or Hub id, or None.

    Attributes:
        spatial_unet_base: the UNet's spatial layers.
        base: the UNet's spatial layers, both text encoders with their tokenizers, and the VAE.
        temporal: the UNet's temporal layers.
        vae: the VAE.
    """

    spatial_unet_base: str | None = None
    base: str | None = None
    temporal: str | None = None
    vae: str | None = None


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint, not yet read.

    Attributes:
        components: the four models by name; the UNet of a plain SDXL lacks temporal layers.
        index: the pipeline's settings.
        scheduler_config: the scheduler's configuration, `_class_name` included.
        tokenizers: folders of both tokenizers.
        paddings: what each tokenizer fills up with, where its folder does not say it.
        notes: sentences that the user should see.
    """

    components: Mapping[str, AnyComponent]
    index: Mapping[str, Any]
    scheduler_config: Mapping[str, Any]
    tokenizers: tuple[Path, Path]
    paddings: tuple[str | None, str | None] = (None, None)
    notes: tuple[str, ...] = ()


def open_assembled(path: str, parts: Parts = Parts(), *, variant: str | None = None) -> Checkpoint:
    """Opens a checkpoint with parts of it replaced.

    Args:
        path: a folder in the diffusers layout or converted, a single `.safetensors` file in the
            original SDXL layout, or a Hub id.
        parts: what comes from elsewhere.
        variant: which weight files to prefer where there are several.

    Raises:
        UsageError: something named does not exist.
        HotshotError: something is incomplete, damaged or of another model; there are no temporal
            layers.
    """
    given = _open(path, variant, require_temporal=parts.temporal is None)
    components = dict(given.components)
    scheduler, notes = dict(given.scheduler_config), list(given.notes)
    spatial: AnyComponent | None = None
    if parts.base is not None:
        base = _open(parts.base, variant, require_temporal=False)
        components |= {name: base.components[name] for name in (*_TEXT, "vae")}
        spatial = base.components["unet"]
        given = dataclasses.replace(given, tokenizers=base.tokenizers, paddings=base.paddings)
        notes += base.notes + switch_prediction(scheduler, base.scheduler_config, parts.base)
    if parts.spatial_unet_base is not None:
        spatial, predicts, more = _open_unet(parts.spatial_unet_base, variant)
        notes += more + switch_prediction(scheduler, predicts, parts.spatial_unet_base)
    if parts.vae is not None:
        components["vae"] = _open_vae(parts.vae, variant)
    _check_complete(components, path)
    if spatial is not None or parts.temporal is not None:
        components["unet"] = _joined(components["unet"], spatial, parts.temporal, variant)
    return dataclasses.replace(
        given, components=components, scheduler_config=scheduler, notes=tuple(notes)
    )


def open_temporal(path: str, variant: str | None = None) -> tuple[TensorSource, TemporalShape]:
    """Opens temporal layers: a file of them, a folder or repository with one, or a Hotshot-XL UNet.

    Returns:
        The tensors, and the shape that is stated with them.

    Raises:
        UsageError: there is nothing.
        HotshotError: the folder holds none, or states an impossible shape.
    """
    found = resolve(path, variant=variant, select=partial(_temporal_files, variant=variant))
    if (found / "unet" / _CONFIG).is_file():
        return open_component(found, "unet", variant).tensors, stated_shape(found)
    file = found
    if found.is_dir():
        names = [entry.name for entry in found.iterdir() if entry.is_file()]
        file = found / _temporal_files(names, variant)[0]
    source = open_file(file)
    refuse_other_kinds(source, TEMPORAL_LAYERS)
    return source, stated_shape(found, source.metadata)


def known_positions(path: str | None) -> int:
    """Frames that the temporal layers of a model take, as far as it is known before loading.

    Args:
        path: a path or Hub id. Where there is nothing that can be read, or for None, it is the
            published number.
    """
    try:
        found = None if path is None else cached(path)
        if found is None:
            return TemporalShape.positions
        whole = (found / "unet" / _CONFIG).is_file()
        return (stated_shape(found) if whole else open_temporal(str(found))[1]).positions
    except HotshotError:
        # Loading says what is wrong.
        return TemporalShape.positions


def _open(path: str, variant: str | None, *, require_temporal: bool) -> Checkpoint:
    found = resolve(path, variant=variant)
    if found.is_file() and found.suffix in (_SINGLE_FILE, *PICKLES):
        return _from_single_file(found, require_temporal)
    if is_converted(found):
        folder: Any = open_converted(found)
    else:
        folder = open_diffusers_folder(found, variant=variant, require_temporal=require_temporal)
    return Checkpoint(
        {name: getattr(folder, name) for name in ("unet", "vae", *_TEXT)},
        folder.index,
        folder.scheduler_config,
        (folder.tokenizer, folder.tokenizer_2),
        notes=tuple(folder.notes),
    )


def _from_single_file(file: Path, require_temporal: bool) -> Checkpoint:
    single = _open_single(file)
    if require_temporal:
        raise HotshotError(
            f"{file} is a plain SDXL model: it has no temporal layers and cannot make clips alone. "
            "Add them with `temporal`, such as hsxl_temporal_layers.safetensors."
        )
    return Checkpoint(
        single.components,
        {"force_zeros_for_empty_prompt": True},
        single.scheduler,
        (clip_tokenizer.FOLDER, clip_tokenizer.FOLDER),
        (None, clip_tokenizer.SECOND_PADDING),
        single.notes,
    )


def _open_single(file: Path) -> SingleFile:
    refuse_pickle(file)
    single = open_single_file(open_file(file))
    if single.scheduler["_class_name"] == "EDMEulerScheduler":
        raise HotshotError(f"{file} is an EDM model, whose noise levels no scheduler here has.")
    return single


def _open_unet(
    path: str, variant: str | None
) -> tuple[Component, Mapping[str, Any], tuple[str, ...]]:
    """A UNet, what is known of its scheduler, and notes."""
    found = resolve(
        path, variant=variant, select=partial(_select, component="unet", variant=variant)
    )
    if found.is_file():
        single = _open_single(found)
        return single.component("unet"), single.scheduler, single.notes
    component = open_component(found, "unet", variant)
    return component, scheduler_of(component), component.notes


def scheduler_of(unet: Component) -> Mapping[str, Any]:
    """The scheduler's configuration that lies beside a UNet, or what its files say; may be empty.

    Raises:
        HotshotError: the configuration is damaged.
    """
    beside = unet.path.parent / "scheduler" / "scheduler_config.json"
    if beside.is_file():
        return read_json_object(beside)
    stated = stated_prediction(unet.tensors)
    return {} if stated.prediction_type is None else scheduler_config(unet.tensors)[0]


def _open_vae(path: str, variant: str | None) -> Component:
    found = resolve(
        path, variant=variant, select=partial(_select, component="vae", variant=variant)
    )
    if found.is_file():
        return _open_single(found).component("vae")
    return open_component(found, "vae", variant)


def switch_prediction(
    config: dict[str, Any], other: Mapping[str, Any], path: str
) -> tuple[str, ...]:
    """Gives a scheduler what goes with another UNet; tells of it if that is a change.

    Args:
        config: the scheduler's configuration, which is changed.
        other: what is known of the other UNet's; may be empty.
        path: where the other UNet is, for the sentences that are returned.
    """
    if not other:
        return ()
    defaults = {"prediction_type": "epsilon", "rescale_betas_zero_snr": False}
    changes = {
        key: other.get(key, defaults[key])
        for key in _PREDICTION
        if other.get(key, defaults[key]) != config.get(key, defaults[key])
    }
    if changes.get("rescale_betas_zero_snr") and "timestep_spacing" in other:
        # Pure noise is at the last timestep alone, which not every spacing visits.
        changes["timestep_spacing"] = other["timestep_spacing"]
    config |= changes
    if not changes:
        return ()
    listed = ", ".join(f"{key} = {value}" for key, value in changes.items())
    return (f"The scheduler is switched to what {path} needs: {listed}.",)


def _joined(
    unet: AnyComponent, spatial: AnyComponent | None, temporal: str | None, variant: str | None
) -> Component:
    """A UNet of spatial and temporal layers, either of which may be its own."""
    below = unet if spatial is None else spatial
    tensors = component_source(unet) if spatial is None or temporal is None else None
    lower = component_source(below) if spatial is not None else tensors
    upper, shape = tensors, read_shape(unet.config, unet.config_path)
    if temporal is not None:
        upper, shape = open_temporal(temporal, variant)
    assert lower is not None and upper is not None
    config = {**below.config, **unet_words(shape)}
    shapes = model_shapes("unet", config, where=str(below.config_path))
    joined = with_temporal_layers(lower, temporal_source(upper, shapes, shape))
    return Component("unet", below.path, below.config_path, config, joined, variant)


def _check_complete(components: Mapping[str, AnyComponent], path: str) -> None:
    lacking = [name for name in ("unet", *_TEXT, "vae") if name not in components]
    if lacking:
        raise HotshotError(
            f"{path} holds no {', '.join(lacking)}; give a full model, or one with `base`"
            + (" or `vae`." if lacking == ["vae"] else ".")
        )


def _select(names: Sequence[str], component: str, variant: str | None) -> list[str]:
    """Which files of a Hub repository to download for one component."""
    prefix = f"{component}/" if MODEL_INDEX in names else ""
    if prefix:
        wanted = (prefix, "scheduler/")
        return [name for name in checkpoint_files(names, variant) if name.startswith(wanted)]
    top = [name for name in names if "/" not in name]
    weights = choose_weight_files(find_weight_files(top), variant)
    if _CONFIG not in top or weights is None:
        raise HotshotError(
            f"The repository holds no {component} in the diffusers layout; download its file and "
            "give the path."
        )
    return [_CONFIG, *weights.names]


def _temporal_files(names: Sequence[str], variant: str | None) -> list[str]:
    """The file of temporal layers among those of a folder, and its configuration if it has one."""
    files = [
        name
        for name in sorted(names)
        if "/" not in name and name.endswith(".safetensors") and name.startswith(_TEMPORAL_FILES)
    ]
    if not files:
        raise HotshotError(
            "No temporal layers there: expected hsxl_temporal_layers*.safetensors or a diffusers "
            "MotionAdapter; give the file's path."
        )
    preferred = [name for name in files if variant is not None and variant in name]
    return [*(preferred or sorted(files, key=len))[:1], *({_CONFIG} & set(names))]
