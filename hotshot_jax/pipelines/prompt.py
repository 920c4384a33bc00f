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
from hotshot_jax.pipelines.prompt_weighting import (
    PromptChunks,
    Vocabulary,
    chunk_prompt,
    pad_chunks,
    parse_weights,
    weigh_embeddings,
)
from hotshot_jax.runtime.runtime import Runtime

logger = logging.getLogger(__name__)

Text = str | Sequence[str]

_ENCODERS = ("text_encoder", "text_encoder_2")
_Read = tuple[Sequence[PromptChunks], Sequence[PromptChunks]]
"""Prompts as the first and as the second encoder read them."""


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
        prompt_weights: whether brackets weigh words (`prompt_weighting`) or are text.
        long_prompts: whether what exceeds the encoders' length is read in further chunks, instead
            of cut.
    """

    runtime: Runtime
    clip_skip: int = 0
    prompt_weights: bool = True
    long_prompts: bool = False

    def prompts(self, prompt: Text, prompt_2: Text | None, *, at_least: int = 1) -> TextEmbeddings:
        """Embeds prompts; `prompt_2` goes to the second encoder, None means the same.

        Args:
            prompt: one prompt or several.
            prompt_2: as many.
            at_least: number of chunks to pad to, so that negative prompts can be as long.

        Raises:
            UsageError: there are not as many of both, or a bracket has no partner.
        """
        first = _as_list(prompt)
        second = _as_list(prompt_2 or prompt)
        if len(first) != len(second):
            raise UsageError(
                f"{len(first)} prompts for the first text encoder, {len(second)} for the second; "
                "expected as many."
            )
        return self._encode(self._read(first, second), at_least)

    def negatives(
        self, prompt: Text | None, prompt_2: Text | None, positive: TextEmbeddings
    ) -> TextEmbeddings:
        """Embeds negative prompts, one for all or one for each of `positive`.

        They are padded to the chunks of `positive`.

        Raises:
            UsageError: there are neither one nor as many as prompts, or a bracket has no partner.
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
        length = self.runtime.components.tokenizer.model_max_length
        return self._encode(self._read(*texts), positive.hidden.shape[1] // length)

    def chunks(self, prompt: Text | None, prompt_2: Text | None) -> int:
        """How many chunks the longest of these prompts takes.

        Raises:
            UsageError: a bracket has no partner.
        """
        if not self.long_prompts or prompt is None:
            return 1
        read = self._read(_as_list(prompt), _as_list(prompt_2 or prompt))
        return max((len(each) for side in read for each in side), default=1)

    def _read(self, prompts: Sequence[str], prompts_2: Sequence[str]) -> _Read:
        components = self.runtime.components
        first, second = (components.vocabulary(name) for name in _ENCODERS)
        return (
            [self._read_one(prompt, first, warn=True) for prompt in prompts],
            [self._read_one(each, second, warn=each not in prompts) for each in prompts_2],
        )

    def _read_one(self, prompt: str, vocabulary: Vocabulary, *, warn: bool) -> PromptChunks:
        parts = parse_weights(prompt) if self.prompt_weights else prompt
        whole = chunk_prompt(parts, vocabulary)
        return whole if self.long_prompts else _first_chunk(whole, vocabulary, warn=warn)

    def _encode(self, read: _Read, at_least: int) -> TextEmbeddings:
        components = self.runtime.components
        prompts = len(read[0])
        chunks = max(at_least, *(len(each) for side in read for each in side))
        padded = [
            [pad_chunks(each, chunks, components.vocabulary(name)) for each in side]
            for name, side in zip(_ENCODERS, read, strict=True)
        ]
        hidden, pooled = self._run(*(np.concatenate([e.ids for e in side]) for side in padded))
        if any(each.is_weighted for side in padded for each in side):
            hidden = self._weigh(hidden, padded)
        # The pooled text of a prompt is that of its first chunk.
        return TextEmbeddings(
            hidden.reshape(prompts, -1, hidden.shape[-1]),
            pooled.reshape(prompts, chunks, -1)[:, 0],
        )

    def _weigh(self, hidden: jax.Array, padded: Sequence[Sequence[PromptChunks]]) -> jax.Array:
        components = self.runtime.components
        nothing = [chunk_prompt("", components.vocabulary(name)).ids for name in _ENCODERS]
        empty = self._run(*nothing)[0][0]
        border = components.text_encoder.config.hidden_size
        channels = (slice(None, border), slice(border, None))
        moved = [
            weigh_embeddings(
                hidden[..., part],
                empty[..., part],
                jnp.asarray(np.concatenate([each.weights for each in side])),
            )
            for part, side in zip(channels, padded, strict=True)
        ]
        return jnp.concatenate(moved, axis=-1)

    def _run(self, ids: np.ndarray, ids_2: np.ndarray) -> tuple[jax.Array, jax.Array]:
        """Hidden states and pooled text of token ids `[chunks, tokens]`."""
        arrays, build = self.runtime.model("text_encoder")
        arrays_2, build_2 = self.runtime.model("text_encoder_2")

        def encode(arrays: Any, arrays_2: Any, ids: jax.Array, ids_2: jax.Array) -> Any:
            return encode_tokens(
                build(arrays), build_2(arrays_2), ids, ids_2, clip_skip=self.clip_skip
            )

        arguments = (arrays, arrays_2, ids, ids_2)
        program = self.runtime.program("text encoders", self.clip_skip, encode, arguments)
        return program(*arguments)


def embed_prompts(
    encoder: PromptEncoder,
    prompts: tuple[Text | None, Text | None],
    negatives: tuple[Text | None, Text | None],
    given: TextEmbeddings | None,
    given_negative: TextEmbeddings | None,
    *,
    guided: bool,
) -> list[TextEmbeddings]:
    """What the UNet is told: with guidance negative and positive embeddings, equally long.

    Args:
        encoder: for prompts that come as text.
        prompts: for the first and the second text encoder.
        negatives: negative prompts for both.
        given: embeddings instead of prompts.
        given_negative: embeddings instead of negative prompts.
        guided: whether there is guidance.

    Raises:
        UsageError: there is neither prompt nor embedding, or shapes or numbers differ.
    """
    positive, (prompt, prompt_2) = given, prompts
    if positive is None:
        if prompt is None:
            raise UsageError("Neither prompt nor prompt_embeds is given.")
        at_least = encoder.chunks(*negatives) if guided else 1
        positive = encoder.prompts(prompt, prompt_2, at_least=at_least)
    if not guided:
        return [positive]
    negative = given_negative or encoder.negatives(*negatives, positive)
    if _without_frames(negative.hidden) != _without_frames(positive.hidden):
        raise UsageError(
            f"negative_prompt_embeds has the shape {negative.hidden.shape}, prompt_embeds "
            f"{positive.hidden.shape}; they have to be equal."
        )
    return [negative, positive]


def given_embeddings(hidden: Any, pooled: Any, text: Any, name: str) -> TextEmbeddings | None:
    """Embeddings that a caller gave instead of a text, if he did.

    Args:
        hidden: `[prompts, tokens, channels]`, `[prompts, frames, tokens, channels]` or None.
        pooled: `[prompts, text_channels]`, `[prompts, frames, text_channels]` or None.
        text: the text, or None.
        name: what messages call the text.

    Raises:
        UsageError: only one of the two is given, or a text as well.
    """
    if hidden is None and pooled is None:
        return None
    if hidden is None or pooled is None:
        raise UsageError(f"{name}_embeds and its pooled twin have to be given together.")
    if text is not None:
        raise UsageError(f"{name} and {name}_embeds are both given; one of them is enough.")
    return TextEmbeddings(jnp.asarray(hidden), jnp.asarray(pooled))


def tokenize(tokenizer: Any, prompts: Sequence[str], *, warn: bool = True) -> np.ndarray:
    """Token ids `[prompts, tokens]`, padded or cut to the tokenizer's length.

    Brackets are text. What is cut off is logged as a warning, if `warn`.
    """
    vocabulary = Vocabulary.of(tokenizer)
    read = (chunk_prompt(prompt, vocabulary) for prompt in prompts)
    return np.concatenate([_first_chunk(each, vocabulary, warn=warn).ids for each in read])


def _first_chunk(whole: PromptChunks, vocabulary: Vocabulary, *, warn: bool) -> PromptChunks:
    if len(whole) == 1:
        return whole
    if warn:
        room = vocabulary.length - 2
        tokens = whole.tokens(vocabulary)
        logger.warning(
            "The prompt has %d tokens, %d fit; this part has no effect without long_prompts: %s",
            len(tokens),
            room,
            vocabulary.decode(tokens[room:]),
        )
    return PromptChunks(whole.ids[:1], whole.weights[:1])


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


def _without_frames(hidden: jax.Array) -> tuple[int, ...]:
    return hidden.shape[0], *hidden.shape[-2:]


def _as_list(text: Text) -> list[str]:
    return [text] if isinstance(text, str) else list(text)
