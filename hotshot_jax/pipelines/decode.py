"""From latents to pixels."""

import jax
import jax.numpy as jnp
import numpy as np

from hotshot_jax.models import AutoencoderKL
from hotshot_jax.pipelines.runtime import Runtime


def decode_latents(runtime: Runtime, latents: jax.Array, *, most_frames: int) -> np.ndarray:
    """Decodes videos, a few frames at a time, in float32.

    Args:
        runtime: holds the VAE.
        latents: `[videos, frames, height / 8, width / 8, 4]`, as the UNet sees them.
        most_frames: frames decoded at once, at most.

    Returns:
        `[videos, frames, height, width, 3]`, float32 in [0, 1].
    """
    arrays, build = runtime.model("vae")
    scaling = runtime.components.vae.config.scaling_factor

    def decode(arrays: list[jax.Array], latents: jax.Array) -> jax.Array:
        vae: AutoencoderKL = build(arrays)
        return jnp.clip(vae.decode(latents / scaling) / 2 + 0.5, 0.0, 1.0)

    videos, frames = latents.shape[:2]
    at_once = max(count for count in range(1, most_frames + 1) if frames % count == 0)
    program = runtime.program(
        "VAE decoder", None, decode, (arrays, latents[:1, :at_once]), matmul="float32"
    )
    pixels = []
    with runtime.progress.stage("decoding", videos * frames, "frame") as advance:
        for video in range(videos):
            for first in range(0, frames, at_once):
                chunk = latents[video : video + 1, first : first + at_once]
                pixels.append(np.asarray(program(arrays, chunk)))
                advance(at_once)
    chunks = np.concatenate(pixels, axis=1)[0]
    return chunks.reshape(videos, frames, *chunks.shape[1:])
