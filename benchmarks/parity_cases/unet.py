"""Forward passes of the UNet, with and without temporal layers and added residuals."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from benchmarks.parity_cases import unet_activations
from benchmarks.parity_cases.case import WHOLE_MODEL, Case, Result, compare
from benchmarks.parity_cases.compilation import jit_for_few_calls
from benchmarks.parity_cases.layout import channels_first, channels_last
from benchmarks.parity_cases.models import load_unet
from hotshot_jax.models import Residuals, UNet3DConditionModel


def matches(case: Case) -> bool:
    """Whether the case runs a UNet."""
    # Those with a LoRA are `lora`'s, which loads it first.
    return "UNet3DConditionModel.forward(" in case.call and "load_lora" not in case.call


def run(case: Case) -> Iterator[Result]:
    """Compares the outputs and the stored activations."""
    unet = load_unet(case.model("UNet3DConditionModel"))
    switched_off = "enable_temporal_attentions=False" in case.call
    temporal = case.arguments.get("enable_temporal_attentions", not switched_off)
    for prefix in case.prefixes("sample"):
        inputs = read_inputs(case, prefix)
        if any(name.startswith(f"{prefix}act.") for name in case.names):
            yield from unet_activations.run(case, prefix, unet, inputs, temporal)
        elif f"{prefix}out" in case:
            output = forward(unet, *inputs, temporal=temporal)
            name = f"{prefix}out"
            yield compare(name, channels_first(output), case[name], WHOLE_MODEL)
        if f"{prefix}out_temporal_on" in case:
            output = forward(unet, *inputs, temporal=True)
            name = f"{prefix}out_temporal_on"
            yield compare(name, channels_first(output), case[name], WHOLE_MODEL)


def read_inputs(case: Case, prefix: str) -> unet_activations.Inputs:
    """What a forward pass takes, channels last."""
    sample = channels_last(case[f"{prefix}sample"])
    timestep = jnp.asarray(case[f"{prefix}timestep"], jnp.float32)
    text, pooled, sizes = (
        jnp.asarray(case[prefix + name])
        for name in ("encoder_hidden_states", "text_embeds", "time_ids")
    )
    down_blocks = case.numbered(f"{prefix}down_block_additional_residuals")
    residuals = None
    if down_blocks:
        mid_block = case[f"{prefix}mid_block_additional_residual"]
        residuals = Residuals([channels_last(x) for x in down_blocks], channels_last(mid_block))
    return sample, timestep, text, pooled, sizes, residuals


@jit_for_few_calls(static_argnames=("temporal",))
def forward(
    unet: UNet3DConditionModel,
    sample: jax.Array,
    timestep: jax.Array,
    text: jax.Array,
    pooled_text: jax.Array,
    time_ids: jax.Array,
    residuals: Residuals | None = None,
    *,
    temporal: bool,
) -> jax.Array:
    """One compiled forward pass; arguments as of the model, channels last."""
    return unet(
        sample,
        timestep,
        text,
        pooled_text,
        time_ids,
        enable_temporal_attentions=temporal,
        residuals=residuals,
    )
