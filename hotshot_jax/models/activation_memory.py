"""How much memory activations take, by formula.

Meant to be right within a factor of two, and known before anything is compiled: compilers order,
fuse and pad as they see fit. `compiled.memory_analysis()` tells the truth afterwards.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp

from hotshot_jax.models.clip import CLIPTextConfig
from hotshot_jax.models.layers.attention_choice import XLA, Accelerator, choose_attention
from hotshot_jax.models.unet.encoder_config import EncoderConfig
from hotshot_jax.models.vae import AutoencoderKLConfig

_FLOAT32 = 4
# An operation's input and result, and one more that waits, as float32: norms compute in it.
_AT_ONCE = 3 * _FLOAT32
# Bytes kept for the backward pass for each element of a layer's input: norms keep float32, a
# transformer's block keeps all that lies between its 15 products.
_RESNET_KEPT = 24
_BLOCK_KEPT = 100
_BLOCK_PRODUCTS = 15
_RESNET_PRODUCTS = 2
# The same of a text encoder's layer, by its width; fc1 gives four times that.
_TEXT_KEPT = 110
_TEXT_PRODUCTS = 9


@dataclasses.dataclass(frozen=True)
class _Layer:
    """A resnet with the transformers after it; sizes are those of one image.

    Attributes:
        in_elements: of its input.
        out_elements: of its output.
        blocks: transformer blocks, spatial and temporal.
        logits: of a block's spatial attention, if they are written to memory.
    """

    in_elements: int
    out_elements: int
    blocks: int
    logits: int


def denoising_bytes(
    config: EncoderConfig, shape: tuple[int, ...], dtype: Any, accelerator: Accelerator
) -> int:
    """What a UNet or ControlNet needs at its worst moment, besides its weights.

    Args:
        config: of the model.
        shape: of the latents that one device works on, `(batch, frames, height, width, channels)`.
        dtype: of the activations.
        accelerator: what computes.
    """
    images = shape[0] * shape[1]
    layers = list(_layers(config, shape, dtype, accelerator))
    widest = max(max(layer.in_elements, layer.out_elements) for layer in layers)
    # Logits, and their exponentials.
    logits = 2 * _FLOAT32 * max(layer.logits for layer in layers)
    skips = residual_bytes(config, (1, 1, *shape[2:]), dtype)
    return images * (skips + max(_AT_ONCE * widest, logits))


def residual_bytes(config: EncoderConfig, shape: tuple[int, ...], dtype: Any) -> int:
    """Size of the skips of a UNet, or of what a ControlNet adds to them; see `denoising_bytes`."""
    areas = _areas(config, shape)
    first = (config.block_out_channels[0] * areas[0],)
    below = (*areas[1:], 0)
    levels = (
        channels * (config.layers_per_block * area + smaller)
        for channels, area, smaller in zip(config.block_out_channels, areas, below, strict=True)
    )
    return shape[0] * shape[1] * sum((*first, *levels)) * jnp.dtype(dtype).itemsize


def features_bytes(config: EncoderConfig, shape: tuple[int, ...], dtype: Any) -> int:
    """Size of what `UNet3DConditionModel.with_features` keeps; see `denoising_bytes`."""
    return math.prod(shape[:4]) * config.block_out_channels[0] * jnp.dtype(dtype).itemsize


def training_bytes(
    config: EncoderConfig,
    shape: tuple[int, ...],
    dtype: Any,
    accelerator: Accelerator,
    rematerialisation: str,
) -> int:
    """What the activations of a training step need at their worst moment.

    Args:
        config: of the UNet.
        shape: of the latents that one device works on, `(batch, frames, height, width, channels)`.
        dtype: of the activations.
        accelerator: what computes.
        rematerialisation: "none", "dots", "blocks" or "full".
    """
    size = jnp.dtype(dtype).itemsize
    layers = list(_layers(config, shape, dtype, accelerator))
    inputs = sum((layer.in_elements + 2 * layer.out_elements) * size for layer in layers)
    whole = [
        _RESNET_KEPT * (layer.in_elements + layer.out_elements)
        + layer.blocks * (_BLOCK_KEPT * layer.out_elements + _FLOAT32 * layer.logits)
        for layer in layers
    ]
    if rematerialisation == "none":
        kept = sum(whole)
    elif rematerialisation == "dots":
        products = sum(
            (_RESNET_PRODUCTS + layer.blocks * _BLOCK_PRODUCTS) * layer.out_elements
            for layer in layers
        )
        kept = inputs + products * size + max(whole)
    elif rematerialisation == "blocks":
        kept = inputs + max(whole)
    else:
        blocks = max(layer.blocks * layer.out_elements for layer in layers)
        one = max(full // max(layer.blocks, 1) for full, layer in zip(whole, layers, strict=True))
        kept = inputs + blocks * size + one
    return shape[0] * shape[1] * kept


def text_training_bytes(
    config: CLIPTextConfig, prompts: int, dtype: Any, rematerialisation: str
) -> int:
    """What the activations of a text encoder that trains need; see `training_bytes`.

    Args:
        config: of the encoder.
        prompts: that one device encodes.
        dtype: of the activations.
        rematerialisation: "none", "dots", "blocks" or "full".
    """
    size, depth = jnp.dtype(dtype).itemsize, config.num_hidden_layers
    # The input of each layer, which is a result too, and its gradient.
    inputs = 3 * size * depth
    kept = _TEXT_KEPT + inputs
    if rematerialisation == "none":
        kept = _TEXT_KEPT * depth
    elif rematerialisation == "dots":
        kept += _TEXT_PRODUCTS * size * depth
    return prompts * config.max_position_embeddings * config.hidden_size * kept


def decoding_bytes(config: AutoencoderKLConfig, images: int, height: int, width: int) -> int:
    """What the VAE's decoder needs besides its weights, in float32.

    Args:
        config: of the VAE.
        images: that one device decodes at once.
        height: in pixels.
        width: in pixels.
    """
    widths = config.block_out_channels
    # The top level's first resnet has the width of the level below, at full size.
    widest = widths[min(1, len(widths) - 1)] * height * width
    tokens = (height // config.scale_factor) * (width // config.scale_factor)
    return images * max(_AT_ONCE * widest, 2 * _FLOAT32 * tokens * tokens)


def _layers(
    config: EncoderConfig, shape: tuple[int, ...], dtype: Any, accelerator: Accelerator
) -> Iterator[_Layer]:
    widths = config.block_out_channels
    last = len(widths) - 1
    for index, (level, area) in enumerate(zip(config.levels(), _areas(config, shape), strict=True)):
        channels = level.channels
        blocks = level.cross_attention * level.transformer_depth
        query = (*shape[:2], area, level.heads, channels // level.heads)
        written = choose_attention(accelerator, query, query, dtype) == XLA
        logits = level.heads * area * area * (blocks > 0) * written
        # Down with what comes from above, up with what comes from below and a skip.
        above, below = widths[max(index - 1, 0)], widths[min(index + 1, last)]
        inputs = [above, *[channels] * (config.layers_per_block - 1)]
        inputs += [below + channels, *[2 * channels] * config.layers_per_block]
        inputs += [channels] * (index == last)
        for in_channels in inputs:
            yield _Layer(in_channels * area, channels * area, blocks + 1, logits)


def _areas(config: EncoderConfig, shape: tuple[int, ...]) -> list[int]:
    def halved(size: tuple[int, ...], _: int) -> tuple[int, ...]:
        return tuple(math.ceil(side / 2) for side in size)

    levels = range(len(config.block_out_channels) - 1)
    return [math.prod(size) for size in itertools.accumulate(levels, halved, initial=shape[2:4])]
