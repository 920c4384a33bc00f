"""How much device memory sampling takes, by component."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax

from hotshot_jax.convert.tensors.rules import flat_parameters
from hotshot_jax.models.activation_memory import (
    decoding_bytes,
    denoising_bytes,
    features_bytes,
    residual_bytes,
)
from hotshot_jax.models.layers.attention_choice import Accelerator
from hotshot_jax.pipelines.components import MODELS

_TEXT_ENCODERS = ("text_encoder", "text_encoder_2")


@dataclasses.dataclass(frozen=True)
class MemoryEstimate:
    """What sampling needs of one device, in bytes.

    Attributes:
        weights: of each model.
        denoising: activations of the UNet and of ControlNets.
        decoding: activations of the VAE.
        one_at_a_time: only the models at work lie on the device (`low_vram_mode`).
    """

    weights: Mapping[str, int]
    denoising: int
    decoding: int
    one_at_a_time: bool = False

    @property
    def peak(self) -> int:
        """All that is needed at the worst moment."""
        if not self.one_at_a_time:
            return sum(self.weights.values()) + max(self.denoising, self.decoding)
        encoding = sum(self.weights[name] for name in _TEXT_ENCODERS)
        vae = self.weights["vae"]
        denoising = sum(self.weights.values()) - encoding - vae
        return max(encoding, denoising + self.denoising, vae + self.decoding)

    def __str__(self) -> str:
        listed = ", ".join(f"{name} {describe_size(size)}" for name, size in self.weights.items())
        return (
            f"weights {describe_size(sum(self.weights.values()))} ({listed}), activations about "
            f"{describe_size(self.denoising)} denoising and {describe_size(self.decoding)} "
            f"decoding, about {describe_size(self.peak)} at once"
        )


def weight_bytes(pipeline: Any) -> dict[str, int]:
    """Bytes of each model's parameters on one device, by its name; ControlNets together."""
    components = pipeline.components
    parts = {name: _held_bytes(getattr(components, name)) for name in MODELS}
    if components.controlnets:
        parts["controlnets"] = sum(map(_held_bytes, components.controlnets))
    return parts


def estimate_memory(
    pipeline: Any,
    *,
    height: int,
    width: int,
    frames: int,
    videos: int = 1,
    guided: bool = True,
    kept_frames: int = 0,
) -> MemoryEstimate:
    """What a call of a pipeline will need of each device.

    Args:
        pipeline: the loaded pipeline.
        height: in pixels.
        width: in pixels.
        frames: of a video.
        videos: made at once.
        guided: whether each of them is a batch of two.
        kept_frames: frames of which features are kept between steps, over all videos and windows.
    """
    components, mesh = pipeline.components, pipeline.runtime.mesh
    devices = 1 if mesh is None else mesh.shape["data"] * mesh.shape["frames"]
    factor = components.vae.config.scale_factor
    # Images on a device, as if they were so many videos of one frame: the sizes are the same.
    images = math.ceil(videos * (1 + guided) * frames / devices)
    shape = (images, 1, height // factor, width // factor, components.unet.config.in_channels)
    dtype, accelerator = pipeline.precision.compute, Accelerator.current()
    denoising = denoising_bytes(components.unet.config, shape, dtype, accelerator)
    denoising += sum(residual_bytes(net.config, shape, dtype) for net in components.controlnets)
    kept = (math.ceil(kept_frames * (1 + guided) / devices), *shape[1:])
    denoising += features_bytes(components.unet.config, kept, dtype)
    decoded = math.ceil(pipeline.decode_frames / devices)
    return MemoryEstimate(
        weight_bytes(pipeline),
        denoising,
        decoding_bytes(components.vae.config, decoded, height, width),
        pipeline.runtime.low_vram_mode,
    )


def describe_size(size: int) -> str:
    """A number of bytes, in words."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _held_bytes(module: Any) -> int:
    return sum(held_bytes(leaf) for leaf in flat_parameters(module).values())


def held_bytes(leaf: Any) -> int:
    """Bytes of an array that one device holds."""
    sharding: jax.sharding.Sharding | None = getattr(leaf, "sharding", None)
    shape = leaf.shape if sharding is None else sharding.shard_shape(leaf.shape)
    return math.prod(shape) * leaf.dtype.itemsize
