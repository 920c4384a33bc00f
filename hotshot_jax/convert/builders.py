"""Which model each component of a checkpoint is, and how it is built from its `config.json`."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx

from hotshot_jax.models import (
    AutoencoderKL,
    AutoencoderKLConfig,
    CLIPTextConfig,
    CLIPTextModel,
    UNet3DConditionModel,
    UNet3DConfig,
)

Build = Callable[[nnx.Rngs], nnx.Module]


@dataclasses.dataclass(frozen=True)
class ComponentKind:
    """A configuration class and the model class that takes it."""

    config: Any
    model: Any


KINDS: Mapping[str, ComponentKind] = {
    "text_encoder": ComponentKind(CLIPTextConfig, CLIPTextModel),
    "text_encoder_2": ComponentKind(CLIPTextConfig, CLIPTextModel),
    "unet": ComponentKind(UNet3DConfig, UNet3DConditionModel),
    "vae": ComponentKind(AutoencoderKLConfig, AutoencoderKL),
}
"""The models of a checkpoint by the name of their folder."""


def model_builder(
    component: str,
    config: Mapping[str, Any],
    *,
    where: str,
    dtype: Any = jnp.float32,
    param_dtype: Any = jnp.float32,
) -> Build:
    """A function that builds a component from random streams.

    Args:
        component: a key of `KINDS`.
        config: the content of its `config.json`.
        where: the path of that file, for messages.
        dtype: compute dtype.
        param_dtype: dtype of the parameters.

    Raises:
        HotshotError: names the key of the configuration that is missing or not supported.
    """
    kind = KINDS[component]
    parsed = kind.config.from_dict(config, where)
    return lambda rngs: kind.model(parsed, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
