"""The gated feed-forward layer of the transformers."""

import jax
from flax import nnx

from hotshot_jax.models.layers import Layers


class GEGLU(nnx.Module):
    """Gated GELU (Shazeer, 2020, https://arxiv.org/abs/2002.05202); value first, gate second."""

    def __init__(self, channels: int, inner_channels: int, layers: Layers):
        self.proj = layers.linear(channels, 2 * inner_channels)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[..., channels]` to `[..., inner_channels]`."""
        value, gate = jax.numpy.split(self.proj(x), 2, axis=-1)
        return value * jax.nn.gelu(gate, approximate=False)


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
