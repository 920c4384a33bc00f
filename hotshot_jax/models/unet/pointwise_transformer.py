"""A spatial transformer without blocks, as the "mid" size of SDXL's ControlNets has them."""

import jax
from flax import nnx

from hotshot_jax.models.layers.attention import Contexts
from hotshot_jax.models.layers.layers import Layers


class PointwiseTransformer2DModel(nnx.Module):
    """Group norm and two linear layers, plus the input: what is left at depth 0."""

    def __init__(self, channels: int, layers: Layers, *, groups: int):
        self.norm = layers.group_norm(channels, groups, epsilon=1e-6)
        self.proj_in = layers.linear(channels, channels)
        self.proj_out = layers.linear(channels, channels)

    def project_text(self, text: jax.Array) -> Contexts:
        """Nothing attends to the text."""
        del text
        return []

    def __call__(self, x: jax.Array, contexts: Contexts) -> jax.Array:
        """Maps `[batch, frames, height, width, channels]` to the same shape."""
        del contexts
        return x + self.proj_out(self.proj_in(self.norm(x)))
