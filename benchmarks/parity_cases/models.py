"""Models with formula weights, each built once."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax.numpy as jnp
from flax import nnx

from benchmarks.models.formula_weights import formula_source, read_shapes
from benchmarks.models.loading import load_module
from benchmarks.parity_cases.case import ModelReference
from hotshot_jax.errors import HotshotError
from hotshot_jax.models import (
    AutoencoderKL,
    AutoencoderKLConfig,
    CLIPTextConfig,
    CLIPTextModel,
    UNet3DConditionModel,
    UNet3DConfig,
)
from hotshot_jax.models.controlnet.config import ControlNetConfig
from hotshot_jax.models.controlnet.controlnet import ControlNetModel
from hotshot_jax.models.layers.layers import Layers
from hotshot_jax.models.unet.encoder_config import TemporalShape
from hotshot_jax.models.unet.temporal_transformer import TransformerTemporal

Module = TypeVar("Module", bound=nnx.Module)


@functools.lru_cache(maxsize=16)
def load_unet(reference: ModelReference) -> UNet3DConditionModel:
    """A float32 UNet with formula weights."""
    config = UNet3DConfig.from_dict(reference.config, str(reference.config_path))
    return _load(reference, lambda rngs: UNet3DConditionModel(config, rngs=rngs))


@functools.lru_cache(maxsize=16)
def load_controlnet(reference: ModelReference) -> ControlNetModel:
    """A float32 ControlNet with formula weights."""
    config = ControlNetConfig.from_dict(reference.config, str(reference.config_path))
    return _load(reference, lambda rngs: ControlNetModel(config, rngs=rngs))


@functools.lru_cache(maxsize=16)
def load_vae(reference: ModelReference) -> AutoencoderKL:
    """A float32 VAE with formula weights."""
    config = AutoencoderKLConfig.from_dict(reference.config, str(reference.config_path))
    return _load(reference, lambda rngs: AutoencoderKL(config, rngs=rngs))


@functools.lru_cache(maxsize=16)
def load_text_encoder(reference: ModelReference) -> CLIPTextModel:
    """A float32 text encoder with formula weights."""
    config = CLIPTextConfig.from_dict(reference.config, str(reference.config_path))
    return _load(reference, lambda rngs: CLIPTextModel(config, rngs=rngs))


@functools.lru_cache(maxsize=16)
def load_temporal_transformer(reference: ModelReference) -> TransformerTemporal:
    """A float32 temporal transformer with formula weights.

    Raises:
        HotshotError: the configuration differs from the constants of the published model.
    """
    config = reference.config
    channels = config["in_channels"]
    constants = {
        "num_attention_heads": TemporalShape.heads,
        "attention_head_dim": channels // TemporalShape.heads,
        "num_layers": 1,
        "norm_num_groups": TemporalShape.groups,
        "cross_attention_dim": None,
        "attention_bias": False,
        "activation_fn": "geglu",
        "max_length": TemporalShape.positions,
    }
    for key, value in constants.items():
        if config.get(key, value) != value:
            raise HotshotError(
                f"{reference.config_path}: {key} = {config[key]!r} is not supported "
                f"(expected {value!r})."
            )

    def build(rngs: nnx.Rngs) -> TransformerTemporal:
        return TransformerTemporal(
            channels, TemporalShape(), Layers.create(rngs, jnp.float32, jnp.float32)
        )

    return _load(reference, build)


def _load(reference: ModelReference, build: Callable[[nnx.Rngs], Module]) -> Any:
    shapes = read_shapes(reference.shapes_path)
    source = formula_source(shapes, reference.seed, reference.shapes_path)
    return load_module(build, source, where=str(reference.shapes_path), dtype=jnp.float32)
