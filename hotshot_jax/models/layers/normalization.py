"""Group norm and layer norm with float32 statistics, whatever the activations are."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from hotshot_jax.models.layers.kept_for_gradients import keep_inputs_only


class GroupNorm(nnx.Module):
    """Group norm (Wu and He, 2018, https://arxiv.org/abs/1803.08494) of videos.

    `nnx.GroupNorm` knows one leading axis only; here frames are an axis of their own, over which
    the statistics are pooled (`pool_frames`) or not.

    Sums are taken over pixels first and over the channels of a group last, so that channels stay
    the minor axis of everything that is as large as the activations.
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        *,
        epsilon: float,
        pool_frames: bool = False,
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
    ):
        if channels % groups:
            raise ValueError(f"{channels} channels do not divide into {groups} groups")
        self.groups = groups
        self.epsilon = epsilon
        self.pool_frames = pool_frames
        self.dtype = dtype
        self.scale = nnx.Param(jnp.ones((channels,), param_dtype))
        self.bias = nnx.Param(jnp.zeros((channels,), param_dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises `[..., frames, height, width, channels]`; same shape, in `dtype`."""
        pixels = (-4, -3, -2) if self.pool_frames else (-3, -2)
        x = x.astype(jnp.float32)
        centred = x - self._over_groups(x.mean(pixels, keepdims=True))
        variance = self._over_groups(jnp.square(centred).mean(pixels, keepdims=True))
        scale = jax.lax.rsqrt(variance + self.epsilon) * self.scale[...].astype(jnp.float32)
        return (centred * scale + self.bias[...].astype(jnp.float32)).astype(self.dtype)

    def _over_groups(self, x: jax.Array) -> jax.Array:
        grouped = x.reshape(*x.shape[:-1], self.groups, -1)
        mean = grouped.mean(-1, keepdims=True)
        return jnp.broadcast_to(mean, grouped.shape).reshape(x.shape)


class LayerNorm(nnx.Module):
    """Layer norm (Ba et al., 2016, https://arxiv.org/abs/1607.06450) of the last axis."""

    def __init__(
        self,
        channels: int,
        *,
        epsilon: float,
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
    ):
        self.epsilon = epsilon
        self.dtype = dtype
        self.scale = nnx.Param(jnp.ones((channels,), param_dtype))
        self.bias = nnx.Param(jnp.zeros((channels,), param_dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last axis; same shape, in `dtype`."""
        return keep_inputs_only(self._normalise, x, self.scale[...], self.bias[...])

    def _normalise(self, x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        x = x.astype(jnp.float32)
        centred = x - x.mean(-1, keepdims=True)
        factor = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + self.epsilon)
        factor = factor * scale.astype(jnp.float32)
        return (centred * factor + bias.astype(jnp.float32)).astype(self.dtype)
