"""ControlNets on their own: what they add to the UNet."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.parity_cases.case import WHOLE_MODEL, Case, Result, compare
from benchmarks.parity_cases.compilation import jit_for_few_calls
from benchmarks.parity_cases.layout import channels_first, channels_last
from benchmarks.parity_cases.models import load_controlnet
from hotshot_jax.models.controlnet.controlnet import ControlNetModel
from hotshot_jax.models.unet.unet import Residuals


def matches(case: Case) -> bool:
    """Whether the case runs a ControlNet by itself."""
    return case.call.startswith("ControlNetModel.forward(")


def run(case: Case) -> Iterator[Result]:
    """Compares the residuals for each scale and mode."""
    controlnet = load_controlnet(case.model("ControlNetModel"))
    # Each row of the image model is a video of one frame.
    sample, frames = (channels_last(case[name])[:, None] for name in ("sample", "controlnet_cond"))
    timestep = jnp.asarray(case["timestep"], jnp.float32)
    text, pooled, sizes = (
        jnp.asarray(case[name]) for name in ("encoder_hidden_states", "text_embeds", "time_ids")
    )
    for prefix, options in case.arguments.items():
        residuals = _forward(
            controlnet,
            sample,
            timestep,
            text,
            pooled,
            sizes,
            frames,
            jnp.float32(options["conditioning_scale"]),
            guess_mode=options["guess_mode"],
        )
        rows = jax.tree.map(lambda x: x[:, 0], residuals)
        yield from compare_residuals(case, rows, f"{prefix}down", f"{prefix}mid")


def compare_residuals(
    case: Case, residuals: Residuals, down_blocks: str, mid_block: str
) -> Iterator[Result]:
    """Compares those of the residuals that the case stores.

    Args:
        case: holds `down_blocks.0`, `down_blocks.1`, ... and `mid_block`.
        residuals: channels last.
        down_blocks: name of the skips' residuals.
        mid_block: name of the mid block's residual.
    """
    named: dict[str, Any] = {
        f"{down_blocks}.{index}": value for index, value in enumerate(residuals.down_blocks)
    }
    for name, got in (named | {mid_block: residuals.mid_block}).items():
        if name in case:
            yield compare(name, channels_first(got), case[name], WHOLE_MODEL)


@jit_for_few_calls(static_argnames=("guess_mode",))
def _forward(
    controlnet: ControlNetModel,
    sample: jax.Array,
    timestep: jax.Array,
    text: jax.Array,
    pooled_text: jax.Array,
    time_ids: jax.Array,
    frames: jax.Array,
    scale: jax.Array,
    *,
    guess_mode: bool,
) -> Residuals:
    return controlnet(
        sample,
        timestep,
        text,
        pooled_text,
        time_ids,
        frames,
        conditioning_scale=scale,
        guess_mode=guess_mode,
    )
