"""From frames and prompts to what the UNet is trained on: latents' moments and text embeddings."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hotshot_jax.conditioning.text.prompt import encode_tokens, tokenize
from hotshot_jax.conditioning.text.prompt_weighting import Vocabulary, chunk_prompt
from hotshot_jax.parallel.placement import place, whole
from hotshot_jax.pipelines.components import Components
from hotshot_jax.pipelines.latents import latent_moments

logger = logging.getLogger(__name__)


class Encoders:
    """VAE and text encoders on the devices.

    Args:
        components: the models, in host memory.
        mesh: where their copies go.
        max_vae_encode: frames that the VAE encodes at once; None for all of a batch.
    """

    def __init__(self, components: Components, mesh: Mesh, max_vae_encode: int | None = None):
        self.components = components
        self.mesh = mesh
        self.max_vae_encode = max_vae_encode
        self._models: dict[str, Any] = {}
        self._told = False

    def moments(self, frames: jax.Array | np.ndarray) -> tuple[jax.Array, jax.Array]:
        """Mean and standard deviation of the latents.

        Args:
            frames: uint8 `[batch, frames, height, width, 3]`.

        Returns:
            Two of float32 `[batch, frames, height / 8, width / 8, channels]`, not yet scaled.
        """
        vae = self._model("vae")
        count = frames.shape[1]
        at_once = min(max(1, (self.max_vae_encode or 2**30) // frames.shape[0]), count)
        with jax.set_mesh(self.mesh):
            parts = [
                _encode_frames(vae, frames[:, first : first + at_once])
                for first in range(0, count, at_once)
            ]
        if len(parts) == 1:
            return parts[0]
        means, deviations = zip(*parts, strict=True)
        return jnp.concatenate(means, axis=1), jnp.concatenate(deviations, axis=1)

    def text(
        self, prompts: Sequence[str], place: Callable[[np.ndarray], Any] = lambda ids: ids
    ) -> tuple[jax.Array, jax.Array]:
        """Embeddings `[prompts, tokens, channels]` and pooled `[prompts, text_channels]`.

        Args:
            prompts: those of this host.
            place: puts token ids on the mesh.
        """
        first, second = self._model("text_encoder"), self._model("text_encoder_2")
        self._tell_of_long(prompts)
        ids = place(tokenize(self.components.tokenizer, prompts, warn=False))
        ids_2 = place(tokenize(self.components.tokenizer_2, prompts, warn=False))
        with jax.set_mesh(self.mesh):
            return _encode_text(first, second, ids, ids_2)

    def no_text(self) -> tuple[jax.Array, jax.Array]:
        """What stands for no prompt, as the checkpoint's pipeline has it; a batch of one."""
        hidden, pooled = self.text([""])
        if self.components.force_zeros_for_empty_prompt:
            return jnp.zeros_like(hidden), jnp.zeros_like(pooled)
        return hidden, pooled

    def release(self) -> None:
        """Frees the copies on the devices; they come back when they are needed."""
        self._models.clear()

    def _tell_of_long(self, prompts: Sequence[str]) -> None:
        """Warns of the first prompt that is cut off; one for each would come in every step."""
        if self._told:
            return
        vocabulary = Vocabulary.of(self.components.tokenizer)
        for prompt in prompts:
            if len(chunk_prompt(prompt, vocabulary)) > 1:
                self._told = True
                logger.warning(
                    "The text encoders read %d tokens; the end of longer prompts has no effect, "
                    "first of all of this one: %s",
                    vocabulary.length - 2,
                    prompt,
                )
                return

    def _model(self, name: str) -> Any:
        if name not in self._models:
            sharding = whole(self.mesh)
            self._models[name] = jax.tree.map(
                lambda leaf: place(leaf, sharding), getattr(self.components, name)
            )
        return self._models[name]


_encode_frames = jax.jit(latent_moments)


@jax.jit
def _encode_text(first: Any, second: Any, ids: jax.Array, ids_2: jax.Array) -> Any:
    return encode_tokens(first, second, ids, ids_2)
