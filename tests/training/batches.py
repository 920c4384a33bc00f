"""Random samples for a trainer, as its steps take them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def random_batch(
    unet: Any, samples: int = 1, frames: int = 2, seed: int = 0
) -> dict[str, jax.Array]:
    """Latents of 2 x 2, eight tokens of text, and what else a UNet is told.

    Args:
        unet: whose widths are taken.
        samples: number of clips.
        frames: of each clip.
        seed: of the random numbers.
    """
    generator = np.random.default_rng(seed)
    config = unet.config
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    shapes = {
        "mean": (samples, frames, 2, 2, 4),
        "hidden": (samples, 8, config.cross_attention_dim),
        "pooled": (samples, pooled),
        "empty_hidden": (1, 8, config.cross_attention_dim),
        "empty_pooled": (1, pooled),
    }
    arrays = {k: jnp.asarray(generator.standard_normal(s, np.float32)) for k, s in shapes.items()}
    arrays["deviation"] = jnp.full(shapes["mean"], 0.1)
    arrays["time_ids"] = jnp.full((samples, 6), 16.0)
    return arrays
