"""From prompts to the text embeddings that SDXL's UNet takes."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hotshot_jax.conditioning.key_frames import check_keys
from hotshot_jax.conditioning.text.prompt_editing import text_of_each_step
from hotshot_jax.conditioning.text.prompt_weighting import (
    PromptChunks,
    Vocabulary,
    WeightedText,
    chunk_prompt,
    pad_chunks,
    parse_weights,
    split_at_breaks,
    weigh_embeddings,
)
from hotshot_jax.conditioning.text.text_embeddings import TextEmbeddings
from hotshot_jax.errors import UsageError
from hotshot_jax.models import CLIPTextModel
from hotshot_jax.runtime.runtime import Runtime

logger = logging.getLogger(__name__)

Prompt = str | Mapping[int, str]
"""One prompt for all frames, or prompts at key frames."""

Text = Prompt | Sequence[Prompt]

Texts = tuple[tuple[str, ...], tuple[str, ...]]
"""Prompts without edits, for the first and for the second encoder."""

Read = tuple[Sequence[PromptChunks], Sequence[PromptChunks]]
"""Prompts as the first and as the second encoder read them."""

_ENCODERS = ("text_encoder", "text_encoder_2")


@dataclasses.dataclass(frozen=True)
class TextsOfRun:
    """What the UNet is told in the steps of a run.

    Attributes:
        texts: the different texts: with guidance embeddings of the negative prompts before those of
            the prompts. All are equally long.
        of_step: which of them serves each step.
    """

    texts: Sequence[Sequence[TextEmbeddings]]
    of_step: Sequence[int]


@dataclasses.dataclass(frozen=True)
class PromptEncoder:
    """Turns prompts into embeddings with both text encoders.

    Attributes:
        runtime: holds the encoders.
        clip_skip: encoder layers left out before the last but one.
        prompt_weights: whether brackets and `BREAK` (`prompt_weighting`) and edits
            (`prompt_editing`) have a meaning or are text.
        long_prompts: whether what exceeds the encoders' length is read in further chunks, instead
            of cut.
    """

    runtime: Runtime
    clip_skip: int = 0
    prompt_weights: bool = True
    long_prompts: bool = False

    def prompts(self, prompt: Text, prompt_2: Text | None = None) -> TextEmbeddings:
        """Embeds prompts; edits give their last text.

        Args:
            prompt: one prompt or several.
            prompt_2: as many for the second encoder; None means the same.

        Raises:
            UsageError: there are not as many of both, or a bracket has no partner.
        """
        return embed_prompts(
            self, (prompt, prompt_2), (None, None), None, None, guided=False
        ).texts[0][0]

    def of_steps(self, prompts: Sequence[str], prompts_2: Sequence[str], steps: int) -> list[Texts]:
        """What both encoders are to read for each step.

        Args:
            prompts: for the first encoder.
            prompts_2: for the second; as many.
            steps: number of steps of the whole schedule.

        Raises:
            UsageError: a bracket has no partner.
        """
        if not self.prompt_weights:
            return [(tuple(prompts), tuple(prompts_2))] * steps
        for prompt in (*prompts, *prompts_2):
            # Here, where the brackets' places are those of the prompt as it was written.
            parse_weights(prompt)
        sides = (
            zip(*(text_of_each_step(prompt, steps) for prompt in side), strict=True)
            for side in (prompts, prompts_2)
        )
        return list(zip(*sides, strict=True))

    def read(self, texts: Texts) -> Read:
        """Token ids and weights of texts without edits; logs what is cut off."""
        components = self.runtime.components
        first, second = (components.vocabulary(name) for name in _ENCODERS)
        prompts, prompts_2 = texts
        return (
            [self._read_one(prompt, first, warn=True) for prompt in prompts],
            [self._read_one(each, second, warn=each not in prompts) for each in prompts_2],
        )

    def _read_one(self, prompt: str, vocabulary: Vocabulary, *, warn: bool) -> PromptChunks:
        pieces = [[WeightedText(prompt)]]
        if self.prompt_weights:
            pieces = split_at_breaks(parse_weights(prompt))
        read = [chunk_prompt(piece, vocabulary) for piece in pieces]
        if not self.long_prompts:
            read = [_first_chunk(each, vocabulary, warn=warn) for each in read]
        return PromptChunks(
            np.concatenate([each.ids for each in read]),
            np.concatenate([each.weights for each in read]),
        )

    def encode(self, read: Read, chunks: int) -> TextEmbeddings:
        """Embeddings of prompts, padded to a number of chunks that is enough for them."""
        components = self.runtime.components
        padded = [
            [pad_chunks(each, chunks, components.vocabulary(name)) for each in side]
            for name, side in zip(_ENCODERS, read, strict=True)
        ]
        hidden, pooled = self._run(*(np.concatenate([e.ids for e in side]) for side in padded))
        if any(each.is_weighted for side in padded for each in side):
            hidden = self._weigh(hidden, padded)
        # The pooled text of a prompt is that of its first chunk.
        prompts = len(read[0])
        if chunks == 1:
            return TextEmbeddings(hidden, pooled)
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
    steps: int = 1,
    frames: int | None = None,
) -> TextsOfRun:
    """What the UNet is told: with guidance negative and positive embeddings, equally long.

    Args:
        encoder: for prompts that come as text.
        prompts: for the first and the second text encoder; None for the second means the same.
        negatives: negative prompts for both, one for all prompts or one for each. None means
            embeddings of zeros, where the model was trained with those, or an empty prompt.
        given: embeddings instead of prompts.
        given_negative: embeddings instead of negative prompts.
        guided: whether there is guidance.
        steps: number of steps of the whole schedule.
        frames: of the clip, in which key frames have to lie; None is no limit.

    Raises:
        UsageError: there is neither prompt nor embedding, shapes or numbers differ, a bracket
            has no partner, or a key frame lies outside the clip.
    """
    for text in (*prompts, *negatives):
        for each in [] if text is None else _as_list(text):
            if isinstance(each, Mapping) and frames is not None:
                check_keys("prompt", each, frames)
    for embeddings in (given, given_negative):
        for row in () if embeddings is None else embeddings.keys or ():
            check_keys("prompt_embeds", row, frames)
    positive: Sequence[Texts | None] = [None] * steps
    negative: Sequence[Texts | None] = [None] * steps
    keys, negative_keys = None, None
    if given is None:
        pair = _pair(*prompts)
        texts_of_keys, keys = _at_keys(*pair)
        positive = encoder.of_steps(*texts_of_keys, steps)
    count = len(pair[0]) if given is None else len(given.pooled)
    zeros = encoder.runtime.components.force_zeros_for_empty_prompt and negatives[0] is None
    if guided and given_negative is None and not zeros:
        texts_of_keys, negative_keys = _at_keys(*_negative_pair(*negatives, count))
        negative = encoder.of_steps(*texts_of_keys, steps)

    # Both halves are read before one is encoded, since the longer decides the length of both.
    read = {texts: encoder.read(texts) for texts in (*positive, *negative) if texts is not None}
    chunks = max((len(each) for r in read.values() for side in r for each in side), default=1)
    if given is not None and read:
        length = encoder.runtime.components.tokenizer.model_max_length
        chunks = max(chunks, given.hidden.shape[-2] // length)
    encoded = {texts: encoder.encode(each, chunks) for texts, each in read.items()}

    pairs = list(zip(negative, positive, strict=True))
    different = list(dict.fromkeys(pairs))
    texts = []
    for negative_texts, positive_texts in different:
        told = given if positive_texts is None else encoded[positive_texts].at_keys(keys)
        assert told is not None
        if not guided:
            texts.append([told])
            continue
        away = given_negative
        if negative_texts is not None:
            away = encoded[negative_texts].at_keys(negative_keys)
        texts.append([TextEmbeddings.zeros_like(told) if away is None else away, told])
        _check_equal(*texts[-1])
    return TextsOfRun(texts, [different.index(pair) for pair in pairs])


def _at_keys(
    prompts: Sequence[Prompt], prompts_2: Sequence[Prompt]
) -> tuple[Texts, list[list[int]] | None]:
    """The prompts of all keys, one after the other, and the frames of each prompt's keys.

    Raises:
        UsageError: the second text has keys at other frames than the first.
    """
    if not any(isinstance(each, Mapping) for each in (*prompts, *prompts_2)):
        return (tuple(map(str, prompts)), tuple(map(str, prompts_2))), None
    first: list[str] = []
    second: list[str] = []
    keys = []
    for prompt, prompt_2 in zip(prompts, prompts_2, strict=True):
        keyed = [each for each in (prompt, prompt_2) if isinstance(each, Mapping)]
        frames = sorted(keyed[0]) if keyed else [0]
        if any(sorted(each) != frames for each in keyed):
            raise UsageError("The prompts of the two text encoders have keys at different frames.")
        for side, text in ((first, prompt), (second, prompt_2)):
            side += [text[key] if isinstance(text, Mapping) else text for key in frames]
        keys.append(frames)
    return (tuple(first), tuple(second)), keys


def _pair(prompt: Text | None, prompt_2: Text | None) -> tuple[list[Prompt], list[Prompt]]:
    if prompt is None:
        raise UsageError("Neither prompt nor prompt_embeds is given.")
    first, second = _as_list(prompt), _as_list(prompt_2 or prompt)
    if len(first) != len(second):
        raise UsageError(
            f"{len(first)} prompts for the first text encoder, {len(second)} for the second; "
            "expected as many."
        )
    return first, second


def _negative_pair(
    prompt: Text | None, prompt_2: Text | None, count: int
) -> tuple[list[Prompt], list[Prompt]]:
    texts = []
    for given in (prompt or "", prompt_2 or prompt or ""):
        listed = _as_list(given)
        if len(listed) not in (1, count):
            raise UsageError(
                f"{len(listed)} negative prompts for {count} prompts; expected one, or as many."
            )
        texts.append(listed * count if len(listed) == 1 else listed)
    return texts[0], texts[1]


def _check_equal(negative: TextEmbeddings, positive: TextEmbeddings) -> None:
    if _without_frames(negative.hidden) != _without_frames(positive.hidden):
        raise UsageError(
            f"negative_prompt_embeds has the shape {negative.hidden.shape}, prompt_embeds "
            f"{positive.hidden.shape}; they have to be equal."
        )


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


def _as_list(text: Text) -> list[Prompt]:
    return [text] if isinstance(text, str | Mapping) else list(text)
