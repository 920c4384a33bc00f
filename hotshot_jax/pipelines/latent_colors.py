"""What latents will look like, told in no time: a linear map from their channels to colours."""

import dataclasses
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from hotshot_jax.pipelines.latents import decode_latents

if TYPE_CHECKING:
    from hotshot_jax.pipelines.hotshot_xl import HotshotXLPipeline

# Fields of one colour, of which a picture has so many in each direction: of those that were tried,
# from 2 to 16, the map that they give predicts best what clips decode to.
_FIELDS = 4
# Latents of clips without noise lie below it.
_MOST_DEVIATION = 1.4


@dataclasses.dataclass(frozen=True)
class LatentColors:
    """A linear map from latents to colours, fitted to one VAE.

    Attributes:
        weights: float `[channels, 3]`.
        offset: float `[3]`.
    """

    weights: np.ndarray
    offset: np.ndarray

    @classmethod
    def fitted(cls, latents: np.ndarray, pixels: np.ndarray) -> "LatentColors":
        """The map of the least squared error.

        Args:
            latents: `[frames, height, width, channels]`.
            pixels: what they decode to, `[frames, height * N, width * N, 3]` in [0, 1].
        """
        frames, height, width, channels = latents.shape
        side = pixels.shape[1] // height
        means = pixels.reshape(frames, height, side, width, side, 3).mean((2, 4))
        known = np.concatenate([latents, np.ones_like(latents[..., :1])], -1)
        solved = np.linalg.lstsq(known.reshape(-1, channels + 1), means.reshape(-1, 3))[0]
        return cls(solved[:-1], solved[-1])

    @classmethod
    def of_vae(cls, pipeline: "HotshotXLPipeline", seed: int = 0) -> "LatentColors":
        """The map for the VAE of a pipeline, which decodes a few random pictures for it.

        That runs the program which decodes clips of the native size.

        Args:
            pipeline: the pipeline.
            seed: of the pictures.
        """
        vae = pipeline.components.vae.config
        side, frames = pipeline.native_size // vae.scale_factor, pipeline.decode_frames
        fields = np.random.default_rng(seed).normal(
            size=(frames, _FIELDS, _FIELDS, vae.latent_channels)
        )
        # Latents have a standard deviation of about 1.
        each = np.arange(side) * _FIELDS // side
        latents = fields[:, each][:, :, each].astype(np.float32)
        decoded = decode_latents(pipeline.runtime, jnp.asarray(latents)[None], most_frames=frames)
        return cls.fitted(latents, np.concatenate(list(decoded)))

    def __call__(self, latents: np.ndarray) -> np.ndarray:
        """Colours, uint8 `[..., height, width, 3]`.

        While there is more noise than latents ever have, it is taken down to what they have.

        Args:
            latents: `[..., height, width, channels]`.
        """
        with np.errstate(all="ignore"):
            colors = (
                latents / max(1.0, float(latents.std()) / _MOST_DEVIATION) @ self.weights
                + self.offset
            )
        return (255 * np.nan_to_num(np.clip(colors, 0, 1)) + 0.5).astype(np.uint8)
