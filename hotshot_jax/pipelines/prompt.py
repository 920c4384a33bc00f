"""From prompts to the text embeddings that SDXL's UNet takes."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hotshot_jax.errors import UsageError
from hotshot_jax.models import CLIPTextModel
from hotshot_jax.pipelines.runtime import Runtime

logger = logging.getLogger(__name__)

Text = str | Sequence[str]


@dataclasses.dataclass(frozen=True)
class TextEmbeddings:
    """Embeddings of prompts.

    Attributes:
        hidden: `[prompts, tokens, channels]`, both encoders side by side.
        pooled: `[prompts, text_channels]`, of the second encoder.
    """

    hidden: jax.Array
    pooled: jax.Array

    @classmethod
    def zeros_like(cls, other: "TextEmbeddings") -> "TextEmbeddings":
        """What stands for no negative prompt at all."""
        return cls(jnp.zeros_like(other.hidden), jnp.zeros_like(other.pooled))


@dataclasses.dataclass(frozen=True)
class PromptEncoder:
    """Turns prompts into embeddings with both text encoders.

    Attributes:
        runtime: holds the encoders.
        clip_skip: encoder layers left out before the last but one.
    """

    runtime: Runtime
    clip_skip: int = 0

    def prompts(self, prompt: Text, prompt_2: Text | None) -> TextEmbeddings:
        """Embeds prompts; `prompt_2` goes to the second encoder, None means the same.

        Raises:
            UsageError: there are not as many of both.
        """
        first = _as_list(prompt)
        second = _as_list(prompt_2 or prompt)
        if len(first) != len(second):
            raise UsageError(
                f"{len(first)} prompts for the first text encoder, {len(second)} for the second; "
                "expected as many."
            )
        return self._encode(first, second)

    def negatives(
        self, prompt: Text | None, prompt_2: Text | None, positive: TextEmbeddings
    ) -> TextEmbeddings:
        """Embeds negative prompts, one for all or one for each of `positive`.

        Raises:
            UsageError: there are neither one nor as many as prompts.
        """
        if prompt is None and self.runtime.components.force_zeros_for_empty_prompt:
            return TextEmbeddings.zeros_like(positive)
        count = positive.pooled.shape[0]
        texts = []
        for given in (prompt or "", prompt_2 or prompt or ""):
            listed = _as_list(given)
            if len(listed) not in (1, count):
                raise UsageError(
                    f"{len(listed)} negative prompts for {count} prompts; expected one, or as many."
                )
            texts.append(listed * count if len(listed) == 1 else listed)
        return self._encode(*texts)

    def _encode(self, prompts: Sequence[str], prompts_2: Sequence[str]) -> TextEmbeddings:
        arrays, build = self.runtime.model("text_encoder")
        arrays_2, build_2 = self.runtime.model("text_encoder_2")

        def encode(arrays: Any, arrays_2: Any, ids: jax.Array, ids_2: jax.Array) -> Any:
            return encode_tokens(
                build(arrays), build_2(arrays_2), ids, ids_2, clip_skip=self.clip_skip
            )

        components = self.runtime.components
        ids = tokenize(components.tokenizer, prompts)
        ids_2 = tokenize(components.tokenizer_2, prompts_2)
        arguments = (arrays, arrays_2, ids, ids_2)
        program = self.runtime.program("text encoders", self.clip_skip, encode, arguments)
        return TextEmbeddings(*program(*arguments))


def tokenize(tokenizer: Any, prompts: Sequence[str]) -> np.ndarray:
    """Token ids `[prompts, tokens]`, padded or cut to the tokenizer's length.

    What is cut off is logged as a warning.
    """
    length = tokenizer.model_max_length
    ids = tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True)
    for prompt in prompts:
        whole = tokenizer(prompt, truncation=False, verbose=False).input_ids
        if len(whole) > length:
            logger.warning(
                "The prompt has %d tokens, %d fit; this part has no effect: %s",
                len(whole) - 2,
                length - 2,
                tokenizer.decode(whole[length - 1 : -1]),
            )
    return np.asarray(ids.input_ids)


def encode_tokens(
    text_encoder: CLIPTextModel,
    text_encoder_2: CLIPTextModel,
    input_ids: jax.Array,
    input_ids_2: jax.Array,
    *,
    clip_skip: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """Encodes token ids with both encoders, as SDXL does (section 2.1).

    Args:
        text_encoder: the first encoder.
        text_encoder_2: the second, with a projection.
        input_ids: `[prompts, tokens]` of the first tokenizer.
        input_ids_2: of the second.
        clip_skip: how many layers before the last but one to take the hidden states from.

    Returns:
        Hidden states `[prompts, tokens, channels]` and pooled text `[prompts, text_channels]`.
    """
    layer = -(clip_skip + 2)
    first = text_encoder(input_ids).hidden_states[layer]
    second = text_encoder_2(input_ids_2)
    return jnp.concatenate([first, second.hidden_states[layer]], axis=-1), second.pooled


def _as_list(text: Text) -> list[str]:
    return [text] if isinstance(text, str) else list(text)
