"""From a checkpoint on disk or on the Hub to the components of a pipeline."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from hotshot_jax.convert.assembly import Parts, open_assembled
from hotshot_jax.convert.builders import KINDS
from hotshot_jax.convert.diffusers_folder import open_component
from hotshot_jax.convert.hub import resolve
from hotshot_jax.convert.load import load_module
from hotshot_jax.convert.prepare import prepare_component
from hotshot_jax.convert.tensor_source import open_file
from hotshot_jax.convert.weight_files import choose_weight_files, find_weight_files
from hotshot_jax.errors import HotshotError
from hotshot_jax.models.controlnet import ControlNetModel
from hotshot_jax.models.controlnet_config import ControlNetConfig
from hotshot_jax.models.controlnet_shapes import config_from_shapes
from hotshot_jax.models.controlnet_union import controlnet_class
from hotshot_jax.pipelines.components import Components
from hotshot_jax.pipelines.loras import open_loras
from hotshot_jax.pipelines.precision import Precision
from hotshot_jax.pipelines.progress import Progress
from hotshot_jax.schedulers import make_scheduler

logger = logging.getLogger(__name__)


def load_components(
    path: str,
    precision: Precision,
    *,
    variant: str | None = None,
    scheduler: str | None = None,
    parts: Parts | None = None,
    loras: Sequence[tuple[str, float]] = (),
    lora_allow_partial: bool = False,
    on_host: bool = False,
    progress: Progress,
) -> Components:
    """Loads all components of a checkpoint.

    Args:
        path: a folder in the diffusers layout or converted, a single SDXL file (with temporal
            layers in `parts`), or `organisation/name[@revision]`.
        precision: dtypes; the VAE is float32 whatever they are.
        variant: which weight files to prefer where there are several.
        scheduler: the scheduler that will be used, checked against the checkpoint's configuration
            before its weights are read.
        parts: what comes from elsewhere: spatial or temporal layers, encoders, VAE.
        loras: paths or Hub ids of LoRAs and their strengths, merged into the weights.
        lora_allow_partial: whether keys of a LoRA that fit nowhere are left out.
        on_host: leaves the weights in host memory.
        progress: shows the loading.

    Raises:
        HotshotError: the checkpoint is missing, damaged or of another model.
        UsageError: the scheduler is unknown.
    """
    sharding = _host_sharding() if on_host else None
    checkpoint = open_assembled(path, parts or Parts(), variant=variant)
    for note in checkpoint.notes:
        logger.warning("%s", note)
    # Everything that can be wrong short of the numbers is found before gigabytes are read.
    prepared = {
        name: prepare_component(
            checkpoint.components[name],
            dtype=jnp.float32 if name == "vae" else precision.compute,
        )
        for name in KINDS
    }
    components = Components(
        **{name: each.module for name, each in prepared.items()},
        tokenizer=load_tokenizer(checkpoint.tokenizers[0], checkpoint.paddings[0]),
        tokenizer_2=load_tokenizer(checkpoint.tokenizers[1], checkpoint.paddings[1]),
        scheduler_config=checkpoint.scheduler_config,
        force_zeros_for_empty_prompt=checkpoint.index.get("force_zeros_for_empty_prompt", True),
        name=path,
    )
    components.check()
    if scheduler is not None:
        make_scheduler(scheduler, checkpoint.scheduler_config)
    opened = open_loras(loras, prepared, allow_partial=lora_allow_partial)
    with progress.stage("loading", checkpoint.nbytes, "B") as advance:
        models: dict[str, Any] = {
            name: each.load(shardings=sharding, progress=advance, change=opened.change(name))
            for name, each in prepared.items()
        }
    return dataclasses.replace(components, **models, loras=opened)


def load_controlnet(
    path: str,
    precision: Precision,
    *,
    variant: str | None = None,
    on_host: bool = False,
    progress: Progress,
) -> ControlNetModel:
    """Loads an SDXL ControlNet.

    Args:
        path: a folder in the diffusers layout, a single .safetensors file, or a Hub id.
        precision: dtypes.
        variant: which weight files to prefer where there are several.
        on_host: leaves the weights in host memory.
        progress: shows the loading.

    Raises:
        HotshotError: it is missing, damaged, or of another model family.
    """
    source = resolve(path, variant=variant, select=partial(_controlnet_files, variant=variant))
    if source.is_dir():
        component = open_component(source, "controlnet", variant)
        where, tensors = str(component.config_path), component.tensors
        config = ControlNetConfig.from_dict(component.config, where)
    else:
        where, tensors = str(source), open_file(source)
        config = config_from_shapes({name: tensor.shape for name, tensor in tensors.items()}, where)
    dtype = precision.compute
    model = controlnet_class(config)

    def build(rngs: nnx.Rngs) -> ControlNetModel:
        return model(config, rngs=rngs, dtype=dtype, param_dtype=dtype)

    sharding = _host_sharding() if on_host else None
    with progress.stage("ControlNet", tensors.nbytes, "B") as advance:
        return load_module(
            build, tensors, where=where, dtype=dtype, shardings=sharding, progress=advance
        )


def _controlnet_files(names: Sequence[str], variant: str | None) -> list[str]:
    top = [name for name in names if "/" not in name]
    weights = choose_weight_files(find_weight_files(top), variant)
    if "config.json" not in top or weights is None:
        raise HotshotError("The repository holds no ControlNet in the diffusers layout.")
    return ["config.json", *weights.names]


def load_tokenizer(folder: Path, padding: str | None = None) -> Any:
    """Loads a CLIP tokenizer from its folder.

    Args:
        folder: holds its files.
        padding: what it fills up with, if not what its files say.

    Raises:
        HotshotError: its files are missing or damaged.
    """
    from transformers import CLIPTokenizer

    with _damaged(folder):
        tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
        tokenizer("test")
        if padding is not None:
            tokenizer.pad_token = padding
        return tokenizer


@contextlib.contextmanager
def _damaged(folder: Path) -> Iterator[None]:
    # The tokenizers raise whatever their parser meets, down to bare Exceptions from Rust.
    try:
        yield
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise HotshotError(
            f"{folder}: the tokenizer files are missing or damaged ({reason}); download "
            "vocab.json, merges.txt and tokenizer_config.json again."
        ) from error


def _host_sharding() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])
