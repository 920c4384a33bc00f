"""2-D convolution of videos."""

import jax
from flax import nnx

from hotshot_jax.models.layers.sharding_points import image_by_image


class Conv2d(nnx.Conv):
    """2-D convolution of every frame on its own.

    Takes `[..., height, width, channels]` with any leading axes (batch, frames).
    """

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        """Convolves the last three axes."""
        # nnx.Conv merges the leading axes into one, each device those of its own frames.
        return image_by_image(lambda images, conv: nnx.Conv.__call__(conv, images), x, self)
