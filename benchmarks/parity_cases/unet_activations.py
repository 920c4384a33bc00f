"""What single modules of the UNet give.

Where a case also holds the module's input, the module runs alone on that and meets the bound of a
single module; else its output is taken from a run of the whole UNet, with that bound.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.parity_cases.case import SINGLE_MODULE, WHOLE_MODEL, Case, Result, compare
from benchmarks.parity_cases.compilation import jit_for_few_calls
from benchmarks.parity_cases.layout import channels_first, channels_last
from benchmarks.parity_cases.pipelines.recording import recorded, submodule
from hotshot_jax.models import UNet3DConditionModel
from hotshot_jax.models.layers.embeddings import sinusoidal_embedding

Inputs = tuple[Any, ...]
"""Sample, timestep, text, pooled text, sizes, and added residuals or None."""


def run(
    case: Case, prefix: str, unet: UNet3DConditionModel, inputs: Inputs, temporal: bool
) -> Iterator[Result]:
    """Compares the output and every stored activation of one forward pass."""
    marker = f"{prefix}act."
    paths = [name.removeprefix(marker) for name in case.names if name.startswith(marker)]
    stored = {path: _to_ours(case[marker + path]) for path in paths}
    output, in_place = _run_whole(unet, inputs, tuple(paths), temporal)
    name = f"{prefix}out"
    yield compare(name, channels_first(output), case[name], WHOLE_MODEL)
    for path in paths:
        alone = _alone(unet, path, stored, inputs)
        expected = case[marker + path]
        if alone is not None:
            yield compare(marker + path, _to_theirs(alone), expected, SINGLE_MODULE, note="alone")
        else:
            got = _to_theirs(in_place[path])
            yield compare(marker + path, got, expected, WHOLE_MODEL, note="in the whole UNet")


@jit_for_few_calls(static_argnames=("paths", "temporal"))
def _run_whole(
    unet: UNet3DConditionModel, inputs: Inputs, paths: tuple[str, ...], temporal: bool
) -> tuple[jax.Array, dict[str, jax.Array]]:
    *arguments, residuals = inputs
    with recorded(unet, paths) as outputs:
        output = unet(*arguments, enable_temporal_attentions=temporal, residuals=residuals)
    # Blocks on the way down return their skips as well.
    hidden = {path: out[0] if isinstance(out, tuple) else out for path, out in outputs.items()}
    return output, hidden


def _alone(
    unet: UNet3DConditionModel, path: str, stored: dict[str, jax.Array], inputs: Inputs
) -> jax.Array | None:
    """The module's output from its stored input, None where that input is not stored."""
    arguments = _stored_arguments(unet, path, stored, inputs)
    return None if arguments is None else _call(submodule(unet, path), *arguments)


def _stored_arguments(
    unet: UNet3DConditionModel, path: str, stored: dict[str, jax.Array], inputs: Inputs
) -> tuple[Any, ...] | None:
    sample, timestep, text, pooled_text, time_ids, _ = inputs
    if path == "conv_in":
        return (sample,)
    if path == "time_embedding":
        timestep = jnp.broadcast_to(timestep, (len(sample),))
        return (sinusoidal_embedding(timestep, unet.config.block_out_channels[0]),)
    if path == "add_embedding":
        sizes = sinusoidal_embedding(jnp.asarray(time_ids), unet.config.addition_time_embed_dim)
        return (jnp.concatenate([pooled_text, sizes.reshape(len(time_ids), -1)], axis=-1),)
    if path == "conv_norm_out":
        return _first(stored, f"up_blocks.{len(unet.up_blocks) - 1}")
    layer = re.fullmatch(r"(.+)\.(resnets|attentions|temporal_attentions)\.(\d+)", path)
    if layer is None:
        return None
    block, kind, index = layer[1], layer[2], int(layer[3])
    if kind == "temporal_attentions":
        has_attention = bool(submodule(unet, block).attentions)  # type: ignore[attr-defined]
        before = "attentions" if has_attention else "resnets"
        return _first(stored, f"{block}.{before}.{index}")
    if kind == "attentions":
        arguments = _first(stored, f"{block}.resnets.{index}")
        projected = _project_text(submodule(unet, path), text[:, None])
        return None if arguments is None else (*arguments, projected)
    arguments = None if index else _first(stored, _before_block(unet, block))
    if arguments is None or not {"time_embedding", "add_embedding"} <= set(stored):
        return None
    return (*arguments, (stored["time_embedding"] + stored["add_embedding"])[:, None])


def _before_block(unet: UNet3DConditionModel, block: str) -> str:
    """The module whose output alone enters a block; nothing on the way up, where skips join."""
    if block == "mid_block":
        return f"down_blocks.{len(unet.down_blocks) - 1}"
    way, _, level = block.partition(".")
    if way != "down_blocks":
        return ""
    return f"down_blocks.{int(level) - 1}" if int(level) else "conv_in"


def _first(stored: dict[str, jax.Array], path: str) -> tuple[jax.Array] | None:
    return (stored[path],) if path in stored else None


@jax.jit
def _call(module: Callable[..., jax.Array], *arguments: Any) -> jax.Array:
    return module(*arguments)


@jax.jit
def _project_text(module: Any, text: jax.Array) -> Any:
    return module.project_text(text)


def _to_ours(x: np.ndarray) -> jax.Array:
    return channels_last(x) if x.ndim > 2 else jnp.asarray(x)


def _to_theirs(x: jax.Array) -> np.ndarray:
    return channels_first(x) if x.ndim > 2 else np.asarray(x)
