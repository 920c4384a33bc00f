"""2-D convolution of videos."""

import jax
from flax import nnx


class Conv2d(nnx.Conv):
    """2-D convolution of every frame on its own.

    Takes `[..., height, width, channels]` with any leading axes (batch, frames).
    """

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        """Convolves the last three axes."""
        leading = x.shape[:-3]
        output = super().__call__(x.reshape(-1, *x.shape[-3:]))
        return output.reshape(*leading, *output.shape[1:])
