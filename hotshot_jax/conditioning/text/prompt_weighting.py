"""Prompts with weights and of any length.

The syntax is the one that SDXL users know: `(word)` is 1.1 times as strong, `(word:1.3)` 1.3 times,
`[word]` 1.1 times weaker, brackets nest and multiply, and a backslash takes a bracket literally.
`BREAK` in capitals begins a new piece.

Text encoders read 77 tokens at a time. Longer prompts are encoded piece by piece and the embeddings
joined along the tokens, to which the UNet's cross-attention is indifferent. A prompt that is short
and has no brackets gives the tokens that it always gave.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hotshot_jax.errors import UsageError

ROUND = 1.1
SQUARE = 1 / 1.1

MOST_NESTED = 100
"""Brackets within brackets; each multiplies, so that many fewer already drown the rest."""

_CLOSING = {"(": ")", "[": "]"}
_TOKENS = re.compile(r"\\[()\[\]\\:|]|[()\[\]]|[^()\[\]\\]+|\\")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)")
_BREAK = re.compile(r"\bBREAK\b")
_LARGEST_WEIGHT = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class WeightedText:
    """A part of a prompt.

    Attributes:
        text: the text, without brackets and backslashes.
        weight: 1 is neutral.
    """

    text: str
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What has to be known of a tokenizer.

    Attributes:
        encode: text to token ids, without begin and end.
        begin: id of the token that starts every sequence.
        end: id of the token that ends it.
        padding: id of the token that fills it up.
        length: tokens of a sequence, begin and end included.
        decode: token ids to text, for messages.
    """

    encode: Callable[[str], Sequence[int]]
    begin: int
    end: int
    padding: int
    length: int = 77
    decode: Callable[[Sequence[int]], str] = str

    @classmethod
    def of(cls, tokenizer: Any) -> Vocabulary:
        """That of a tokenizer for CLIP, ours or that of transformers."""

        def encode(text: str) -> list[int]:
            return list(tokenizer.encode(text, add_special_tokens=False))

        return cls(
            encode,
            tokenizer.bos_token_id,
            tokenizer.eos_token_id,
            tokenizer.pad_token_id,
            tokenizer.model_max_length,
            tokenizer.decode,
        )


@dataclasses.dataclass(frozen=True)
class PromptChunks:
    """A prompt as the text encoders read it.

    Attributes:
        ids: `[chunks, tokens]`, int64.
        weights: `[chunks, tokens]`, float32; 1 for begin, end and padding.
    """

    ids: np.ndarray
    weights: np.ndarray

    @property
    def is_weighted(self) -> bool:
        """Whether any weight differs from 1."""
        return bool((self.weights != 1).any())

    def tokens(self, vocabulary: Vocabulary) -> list[int]:
        """The ids of the prompt's own tokens, without begin, end and padding."""
        ends = (self.ids[:, 1:] == vocabulary.end).argmax(axis=1)
        return [
            int(each) for row, end in zip(self.ids, ends, strict=True) for each in row[1 : end + 1]
        ]

    def __len__(self) -> int:
        return len(self.ids)


def parse_weights(prompt: str, *, where: str = "prompt") -> list[WeightedText]:
    """Splits a prompt into parts of one weight.

    `(text:number)` sets a weight; a colon that no number follows is text.

    Args:
        prompt: as the user wrote it.
        where: what messages call it.

    Raises:
        UsageError: a bracket has no partner, which is named with its place; or brackets are nested
            deeper than `MOST_NESTED`, or a weight is too large a number.
    """
    parts = [_Part()]
    # Of each open bracket: the bracket, where it stands, and the first part inside.
    opened: list[tuple[str, int, int]] = []
    for token in _TOKENS.finditer(prompt):
        text, position = token[0], token.start() + 1
        if text in _CLOSING:
            if len(opened) == MOST_NESTED:
                raise UsageError(
                    f"{where}: the {text!r} at character {position} is inside {MOST_NESTED} other "
                    "brackets, deeper than weights make sense; leave some out."
                )
            opened.append((text, position, len(parts)))
            parts.append(_Part())
        elif text in _CLOSING.values():
            if not opened or _CLOSING[opened[-1][0]] != text:
                raise _unbalanced(prompt, text, position, where)
            bracket, _, first = opened.pop()
            factor = parts[-1].take_number() if bracket == "(" else SQUARE
            for part in parts[first:]:
                part.weight *= ROUND if factor is None else factor
            parts.append(_Part())
        else:
            parts[-1].text.append(text[1:] if len(text) == 2 and text[0] == "\\" else text)
    if opened:
        raise _unbalanced(prompt, opened[-1][0], opened[-1][1], where)
    if not all(abs(part.weight) <= _LARGEST_WEIGHT for part in parts):
        raise UsageError(f"{where}: a weight is too large a number; write one such as 1.3.")
    return _joined(parts)


def split_at_breaks(parts: Sequence[WeightedText]) -> list[list[WeightedText]]:
    """The pieces between the words `BREAK`, each of which begins a chunk of its own.

    Args:
        parts: the result of `parse_weights`. A break may stand inside brackets.

    Returns:
        One piece at least. Nothing after the last break is no piece; nothing before it is an empty
        one.
    """
    pieces: list[list[WeightedText]] = [[]]
    for part in parts:
        first, *others = _BREAK.split(part.text)
        pieces[-1].append(WeightedText(first, part.weight))
        pieces += [[WeightedText(text, part.weight)] for text in others]
    if len(pieces) > 1 and not any(part.text.strip() for part in pieces[-1]):
        pieces.pop()
    return pieces


def chunk_prompt(
    parts: Sequence[WeightedText] | str, vocabulary: Vocabulary, *, chunks: int | None = None
) -> PromptChunks:
    """Token ids and weights of a prompt, in as many chunks as it needs.

    Args:
        parts: the result of `parse_weights`, or a text without weights.
        vocabulary: the tokenizer.
        chunks: the most that may be used; None for no limit. What does not fit is left out.

    Returns:
        One chunk at least, also for an empty prompt.
    """
    if isinstance(parts, str):
        parts = [WeightedText(parts)]
    ids: list[int] = []
    weights: list[float] = []
    for part in parts:
        encoded = list(vocabulary.encode(part.text)) if part.text.strip() else []
        ids += encoded
        weights += [part.weight] * len(encoded)
    room = vocabulary.length - 2
    count = max(1, -(-len(ids) // room))
    count = count if chunks is None else min(count, chunks)
    rows = [
        _chunk(ids[start : start + room], weights[start : start + room], vocabulary)
        for start in range(0, count * room, room)
    ]
    return PromptChunks(
        np.asarray([row[0] for row in rows], np.int64),
        np.asarray([row[1] for row in rows], np.float32),
    )


def pad_chunks(prompt: PromptChunks, count: int, vocabulary: Vocabulary) -> PromptChunks:
    """Appends empty chunks, so that positive and negative prompts are equally long.

    Args:
        prompt: at most `count` chunks.
        count: number of chunks of the result.
        vocabulary: the tokenizer.

    Raises:
        ValueError: the prompt has more chunks.
    """
    missing = count - len(prompt)
    if missing < 0:
        raise ValueError(f"a prompt of {len(prompt)} chunks cannot be padded to {count}")
    ids, weights = _chunk([], [], vocabulary)
    return PromptChunks(
        np.concatenate([prompt.ids, np.asarray([ids] * missing, np.int64).reshape(missing, -1)])
        if missing
        else prompt.ids,
        np.concatenate([prompt.weights, np.ones((missing, len(weights)), np.float32)]),
    )


def weigh_embeddings(hidden: jax.Array, empty: jax.Array, weights: jax.Array) -> jax.Array:
    """Moves token embeddings away from those of an empty prompt, or towards them.

    A weight w gives empty + w (hidden - empty), which keeps the scale of the embeddings whatever
    their mean is (the rule of ComfyUI). A weight of 1 leaves the embedding bit for bit.

    Args:
        hidden: embeddings `[chunks, tokens, channels]`.
        empty: those of an empty prompt, `[tokens, channels]`.
        weights: `[chunks, tokens]`.

    Returns:
        Embeddings in the dtype of `hidden`.
    """
    factor = weights.astype(jnp.float32)[..., None]
    wide, origin = hidden.astype(jnp.float32), empty.astype(jnp.float32)
    moved = (origin + factor * (wide - origin)).astype(hidden.dtype)
    return jnp.where(factor == 1, hidden, moved)


def _chunk(
    ids: list[int], weights: list[float], vocabulary: Vocabulary
) -> tuple[list[int], list[float]]:
    padding = vocabulary.length - 2 - len(ids)
    return (
        [vocabulary.begin, *ids, vocabulary.end] + [vocabulary.padding] * padding,
        [1.0, *weights, 1.0] + [1.0] * padding,
    )


@dataclasses.dataclass
class _Part:
    """A part of a prompt while it is read."""

    text: list[str] = dataclasses.field(default_factory=list)
    weight: float = 1.0

    def take_number(self) -> float | None:
        """Takes the number after the last colon away, if there is one."""
        text, colon, number = "".join(self.text).rpartition(":")
        if not colon or _NUMBER.fullmatch(number.strip()) is None:
            return None
        self.text = [text]
        return float(number)


def _joined(parts: Sequence[_Part]) -> list[WeightedText]:
    """Neighbours of equal weight become one part: neutral brackets change nothing."""
    filled = (part for part in parts if any(part.text))
    return [
        WeightedText("".join(text for part in group for text in part.text), weight)
        for weight, group in itertools.groupby(filled, key=lambda part: part.weight)
    ]


def _unbalanced(prompt: str, bracket: str, position: int, where: str) -> UsageError:
    shown = prompt if len(prompt) <= 60 else prompt[max(0, position - 30) : position + 30]
    return UsageError(
        f"{where}: the {bracket!r} at character {position} has no partner (… {shown} …).\n"
        f"Close it, or write \\{bracket} for a bracket that is meant literally."
    )
