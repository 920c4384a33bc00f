"""The gated feed-forward layer of the transformers."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from hotshot_jax.models.layers.kept_for_gradients import keep_inputs_only
from hotshot_jax.models.layers.layers import Layers
from hotshot_jax.models.layers.sharding_points import TENSOR_AXES, columns_in_parts, split_over


def gelu(x: jax.Array) -> jax.Array:
    """The exact Gaussian error linear unit (https://arxiv.org/abs/1606.08415), in float32 inside.

    `jax.nn.gelu` uses `erfc`, which no device has; its expansion takes a TPU compiler seconds.
    """
    exact = x.astype(jnp.float32)
    return (0.5 * exact * (1 + jax.lax.erf(exact * math.sqrt(0.5)))).astype(x.dtype)


def _gated(value: jax.Array, gate: jax.Array) -> jax.Array:
    return value * gelu(gate)


class GEGLU(nnx.Module):
    """Gated GELU (Shazeer, 2020, https://arxiv.org/abs/2002.05202); value first, gate second."""

    def __init__(self, channels: int, inner_channels: int, layers: Layers):
        self.proj = layers.linear(channels, 2 * inner_channels)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[..., channels]` to `[..., inner_channels]`."""
        if split_over(self.proj.out_features // 2, TENSOR_AXES):
            value, gate = self._project_in_halves(x)
        else:
            value, gate = jnp.split(self.proj(x), 2, axis=-1)
        return keep_inputs_only(_gated, value, gate)

    def _project_in_halves(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        assert self.proj.bias is not None
        kernel = columns_in_parts(self.proj.kernel[...], 2).astype(x.dtype)
        bias = columns_in_parts(self.proj.bias[...], 2).astype(x.dtype)
        halves = jnp.einsum("...c,chk->...hk", x, kernel) + bias
        return halves[..., 0, :], halves[..., 1, :]


class FeedForward(nnx.Module):
    """GEGLU to four times the width, and back."""

    def __init__(self, channels: int, layers: Layers):
        # Entry 1 of the PyTorch list is a dropout without parameters.
        self.net = nnx.Dict(
            {
                "0": GEGLU(channels, 4 * channels, layers),
                "2": layers.linear(4 * channels, channels),
            }
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[..., channels]` to the same shape."""
        return self.net["2"](self.net["0"](x))
