"""Which program computes an attention, by device and shapes."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from hotshot_jax.models.layers.sharding_points import devices_of, image_and_head_axes

XLA, CUDNN, SPLASH, HEAD_SUMS = "xla", "cudnn", "splash", "head_sums"
LATE_DIVISION = "late_division"

# Kernels have costs of their own, which shorter sequences do not win back.
_LONG = 512
_CUDNN_CHANNELS = 128
_CUDNN_CAPABILITY = 8.0
_NARROW = (jnp.bfloat16, jnp.float16)
_SPLASH_CHANNELS = (64, 128)
# Where keeping all heads' channels side by side wins on TPUs, gradients included; with heads of 80
# channels it gains little there and loses on the way back.
_FEW = 8
_NARROW_HEADS = 40
# Of GPUs that are compiled for and not there.
_CAPABILITIES = {
    "NVIDIA A100": 8.0,
    "NVIDIA H100": 9.0,
    "NVIDIA H200": 9.0,
    "NVIDIA B200": 10.0,
    "NVIDIA L4": 8.9,
    "NVIDIA GeForce RTX 4090": 8.9,
}
# Larger logits leave the 128 MiB of fast memory that TPUs have beside their main one: alone 80 MiB
# would fit, among the other arrays of a step they do not.
_FAST_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """What a program is compiled for.

    Attributes:
        platform: "cpu", "tpu", "cuda", or another that JAX knows.
        capability: CUDA's compute capability, 0 elsewhere.
    """

    platform: str
    capability: float = 0.0

    @classmethod
    def current(cls) -> "Accelerator":
        """That of the mesh in force, which need not be of this machine, or else the default one.

        Of a GPU that is not there, the compute capability is known by its name, or 0.
        """
        mesh = jax.sharding.get_abstract_mesh()
        meant = None if mesh.empty else mesh.abstract_device
        platform = jax.default_backend() if meant is None else meant.platform
        if platform != "gpu":
            return cls(platform)
        if meant is not None and jax.default_backend() != "gpu":
            known = (name for name in _CAPABILITIES if meant.device_kind.startswith(name))
            return cls("cuda", _CAPABILITIES.get(max(known, key=len, default=""), 0.0))
        device = jax.devices("gpu")[0]
        if "cuda" not in device.client.platform_version.lower():
            return cls("rocm")
        return cls("cuda", float(getattr(device, "compute_capability", 0)))


def choose_attention(
    accelerator: Accelerator,
    query: tuple[int, ...],
    key: tuple[int, ...],
    dtype: Any,
    *,
    causal: bool = False,
) -> str:
    """The program for an attention.

    Long attention of images to themselves may go to a kernel that never writes the logits: cuDNN's
    on NVIDIA GPUs, JAX's own on TPUs, there only if the logits that a device of the mesh in force
    would compute at once are too many for its fast memory. On TPUs, attention over at most 8 frames
    in bfloat16 keeps the channels of narrow heads side by side, and all other attention in bfloat16
    divides by the sum of its weights at the end. Everything else is left to XLA: attention to the
    77 tokens of a text, over the frames of a video elsewhere, in text encoders, in the VAE (whose
    channels are too many and which is float32), and all of it on CPUs.

    Args:
        accelerator: what the program is compiled for.
        query: `(batch, frames, tokens, heads, channels)`; other ranks have no kernel.
        key: likewise.
        dtype: of query, key and value.
        causal: whether a query sees only the keys up to its own position.

    Returns:
        "xla", "cudnn", "splash", "head_sums" or "late_division".
    """
    if len(query) != 5 or causal:
        return XLA
    channels = query[-1]
    long = min(query[-3], key[-3]) >= _LONG
    if accelerator.platform == "tpu" and dtype == jnp.bfloat16:
        few = max(query[-3], key[-3]) <= _FEW
        if few and channels <= _NARROW_HEADS:
            return HEAD_SUMS
        suits = long and channels in _SPLASH_CHANNELS and _logit_bytes(query, key) > _FAST_BYTES
        return SPLASH if suits else LATE_DIVISION
    if accelerator.platform == "cuda" and long:
        suits = (
            accelerator.capability >= _CUDNN_CAPABILITY
            and dtype in _NARROW
            and channels <= _CUDNN_CHANNELS
            and channels % 8 == 0
        )
        return CUDNN if suits else XLA
    return XLA


def frames_stay_apart(accelerator: Accelerator, dtype: Any) -> bool:
    """Whether frames that share a text each read keys of their own, copies of the shared ones.

    Pixels of all frames may be queries on one set of keys, one axis. On TPUs they are laid out
    otherwise than on an axis of their own then, and what comes before and after the attention, norm
    and residual, cannot be computed together with its projections.
    """
    return accelerator.platform == "tpu" and dtype == jnp.bfloat16


def _logit_bytes(query: tuple[int, ...], key: tuple[int, ...]) -> int:
    whole = 4 * math.prod(query[:-1]) * key[-3]
    return whole // devices_of(axis for axes in image_and_head_axes(query) for axis in axes)
