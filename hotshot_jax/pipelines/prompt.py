"""From prompts to the text embeddings that SDXL's UNet takes."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hotshot_jax.models import CLIPTextModel

logger = logging.getLogger(__name__)


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


def tokenize(tokenizer: Any, prompts: Sequence[str]) -> np.ndarray:
    """Token ids `[prompts, tokens]`, padded or cut to the tokenizer's length.

    What is cut off is logged as a warning.
    """
    length = tokenizer.model_max_length
    ids = np.asarray(
        tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True).input_ids
    )
    for prompt in prompts:
        whole = tokenizer(prompt, truncation=False, verbose=False).input_ids
        if len(whole) > length:
            cut = tokenizer.decode(whole[length - 1 : -1])
            logger.warning(
                "The prompt has %d tokens, %d fit; this part has no effect: %s",
                len(whole) - 2,
                length - 2,
                cut,
            )
    return ids


def encode(
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


Encode = Callable[[np.ndarray, np.ndarray], tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class PromptEncoder:
    """Tokenizers and the (compiled) encoders behind them.

    Attributes:
        tokenizer: of the first encoder.
        tokenizer_2: of the second.
        encode: runs both encoders on token ids `[prompts, tokens]` of each.
    """

    tokenizer: Any
    tokenizer_2: Any
    encode: Encode

    def __call__(self, prompts: Sequence[str], prompts_2: Sequence[str]) -> TextEmbeddings:
        """Embeds `prompts` for the first and `prompts_2` for the second encoder."""
        ids = tokenize(self.tokenizer, prompts)
        ids_2 = tokenize(self.tokenizer_2, prompts_2)
        return TextEmbeddings(*self.encode(ids, ids_2))
