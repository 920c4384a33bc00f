"""Textual inversion: words whose embeddings come from a file (https://arxiv.org/abs/2208.01618)."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hotshot_jax.conditioning.text.prompt_weighting import Vocabulary
from hotshot_jax.convert.formats.model_family import EMBEDDING, refuse_other_kinds
from hotshot_jax.convert.tensors.tensor_source import TensorSource, check_finite, first_names
from hotshot_jax.convert.tensors.weight_types import check_weight_types
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.models import CLIPTextConfig

# A file's keys for the two encoders: the usual ones, and those of diffusers' trainer for pivotal
# tuning.
_KEYS = (
    {"text_encoder": "clip_l", "text_encoder_2": "clip_g"},
    {"text_encoder": "text_encoders_0", "text_encoder_2": "text_encoders_1"},
)
_OTHER_MODELS = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x"}
# AUTOMATIC1111's key of embeddings for these.
_OLD_KEYS = frozenset({"emb_params"})


@dataclasses.dataclass(frozen=True)
class TextualInversion:
    """A word that a file gives a meaning to.

    Attributes:
        token: what stands for it in prompts.
        vectors: embeddings `[vectors, width]`, float32, by "text_encoder" and "text_encoder_2".
    """

    token: str
    vectors: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.vectors["text_encoder"])

    def __str__(self) -> str:
        return f"{self.token}: {len(self)} vector{'s' * (len(self) != 1)} for each text encoder"


def parse_embedding(argument: str) -> tuple[str, str]:
    """Splits `PATH[:TOKEN]`.

    Args:
        argument: a path, with or without the word for prompts; the file's name without.

    Raises:
        UsageError: the word is empty or has a space in it.
    """
    path, colon, token = argument.rpartition(":")
    if not colon or Path(argument).exists():
        path, token = argument, Path(argument).stem.partition("@")[0]
    if not path or not token or re.search(r"\s", token):
        raise UsageError(
            f"`embeddings` {argument}: {token!r} cannot be the word for it; expected PATH or "
            "PATH:WORD, a word without spaces."
        )
    return path, token


def mentions(text: str, word: str) -> bool:
    """Whether a prompt has a word in it, standing by itself."""
    return re.search(_standing_alone(word), text) is not None


def read_textual_inversion(
    source: TensorSource, token: str, widths: Mapping[str, int]
) -> TextualInversion:
    """Reads an embedding for SDXL.

    Args:
        source: the file: `clip_l` and `clip_g`.
        token: the word for prompts.
        widths: width of each text encoder, by "text_encoder" and "text_encoder_2".

    Raises:
        HotshotError: the file is for another model, lacks one of the two, has more than these,
            other widths or numbers of vectors, or values that are not finite.
    """
    refuse_other_kinds(source, EMBEDDING)
    check_weight_types(source)
    keys = next((keys for keys in _KEYS if set(keys.values()) & set(source)), None)
    if keys is None or set(keys.values()) != set(source):
        raise HotshotError(_not_sdxl(source, keys or _KEYS[0]))
    vectors = {}
    for component, key in keys.items():
        array = np.array(source.read(key))
        check_finite(f"{source.path}: {key}", array)
        array = array[None] if array.ndim == 1 else array
        if array.ndim != 2 or not len(array) or array.shape[1] != widths[component]:
            raise HotshotError(
                f"{source.path}: {key} has shape {list(array.shape)}, expected vectors of "
                f"{widths[component]} values; the embedding is for another model."
            )
        vectors[component] = array.astype(np.float32)
    first, second = vectors.values()
    if len(first) != len(second):
        raise HotshotError(
            f"{source.path}: {len(first)} vectors for the first text encoder, {len(second)} for "
            "the second; expected as many."
        )
    return TextualInversion(token, vectors)


def extended_vocabulary(
    vocabulary: Vocabulary, inversions: Sequence[TextualInversion], first_id: int
) -> Vocabulary:
    """A vocabulary that knows the words of textual inversions.

    A word counts where it stands by itself; longer words are looked for first.

    Args:
        vocabulary: the tokenizer.
        inversions: the words, in the order of their vectors in the table.
        first_id: id of the first vector: the size of the table without them.
    """
    ids: dict[str, list[int]] = {}
    for inversion in inversions:
        ids[inversion.token] = list(range(first_id, first_id + len(inversion)))
        first_id += len(inversion)
    if not ids:
        return vocabulary
    words = sorted(ids, key=len, reverse=True)
    pattern = re.compile("|".join(f"({_standing_alone(word)})" for word in words))

    def encode(text: str) -> list[int]:
        result: list[int] = []
        position = 0
        for match in pattern.finditer(text):
            result += _encode(vocabulary, text[position : match.start()]) + ids[match[0]]
            position = match.end()
        return result + _encode(vocabulary, text[position:])

    starts = {numbers[0]: word for word, numbers in ids.items()}

    def decode(sequence: Sequence[int]) -> str:
        # What a tokenizer does with ids that it does not know is its own affair.
        runs = itertools.groupby(sequence, key=lambda each: each in new)
        return " ".join(
            " ".join(starts[each] for each in run if each in starts)
            if is_new
            else vocabulary.decode(list(run))
            for is_new, run in runs
        )

    new = {each for numbers in ids.values() for each in numbers}
    return dataclasses.replace(vocabulary, encode=encode, decode=decode)


def extended_table(
    table: np.ndarray, inversions: Sequence[TextualInversion], component: str
) -> np.ndarray:
    """The token embeddings of a text encoder with the vectors of textual inversions appended.

    Args:
        table: `[vocabulary, width]`.
        inversions: in the order given to `extended_vocabulary`.
        component: "text_encoder" or "text_encoder_2".

    Returns:
        `[vocabulary + vectors, width]` in the table's dtype.
    """
    vectors = [inversion.vectors[component].astype(table.dtype) for inversion in inversions]
    return np.concatenate([table, *vectors])


def extended_config(
    config: Mapping[str, Any], inversions: Sequence[TextualInversion], vocabulary: Vocabulary
) -> dict[str, Any]:
    """The `config.json` of a text encoder with an extended table.

    The end of the text has to be found by its own id: the rule of SDXL's published configuration,
    the largest id, would find a new word instead.

    Args:
        config: that of the encoder without new words.
        inversions: the new words.
        vocabulary: its tokenizer.
    """
    size = config.get("vocab_size", CLIPTextConfig.vocab_size) + sum(map(len, inversions))
    return {**config, "vocab_size": size, "eos_token_id": vocabulary.end}


def _encode(vocabulary: Vocabulary, text: str) -> list[int]:
    return list(vocabulary.encode(text)) if text.strip() else []


def _standing_alone(word: str) -> str:
    before = r"(?<!\w)" if re.match(r"\w", word) else ""
    after = r"(?!\w)" if re.search(r"\w$", word) else ""
    return before + re.escape(word) + after


def joined_halves(first: TensorSource, second: TensorSource) -> TensorSource:
    """One embedding of two files that hold a single tensor each, under the word it was trained as.

    Args:
        first: the file for the first text encoder.
        second: the file for the second.

    Raises:
        HotshotError: a file holds something else.
    """
    halves = []
    for source, key in zip((first, second), _KEYS[0].values(), strict=True):
        if len(source) != 1:
            raise HotshotError(
                f"{source.path} holds {len(source)} tensors; expected one, half of an embedding."
            )
        halves.append(next(iter(source.values())).renamed(key))
    return TensorSource(halves, first.path, first.metadata)


def _not_sdxl(source: TensorSource, keys: Mapping[str, str]) -> str:
    """Why a file that does not hold these two keys alone cannot be used."""
    first, second = keys.values()
    more = sorted(set(source) - {first, second})
    t5 = [name for name in more if name.startswith("t5")]
    if t5:
        return f"{source.path} is a textual inversion for Stable Diffusion 3: it holds {t5[0]}."
    outputs = [name for name in more if name in (f"{first}_out", f"{second}_out")]
    if outputs:
        return (
            f"{source.path} holds output embeddings ({', '.join(outputs)}), which OneTrainer puts "
            "behind the text encoders; they are not supported. Train it without them."
        )
    if {first, second} <= set(source):
        return (
            f"{source.path}: {first_names(more)} belong to no textual inversion for SDXL, which "
            f"has {first} and {second} alone."
        )
    widths = {tensor.shape[-1] for tensor in source.values() if tensor.shape}
    alone = len(source) == 1 and _OLD_KEYS.isdisjoint(source)
    if alone and widths == {1280}:
        return (
            f"{source.path} is the second half of a textual inversion for SDXL; the first, "
            "learned_embeds.safetensors, has to lie beside it."
        )
    model = next((_OTHER_MODELS[width] for width in widths if width in _OTHER_MODELS), None)
    if model is not None and {first, second}.isdisjoint(source):
        half = (
            ", or the first half of one for SDXL without learned_embeds_2.safetensors beside it"
            if alone and widths == {768}
            else ""
        )
        return (
            f"{source.path} is a textual inversion for {model}{half}; SDXL's has clip_l and clip_g."
        )
    return (
        f"{source.path} is no textual inversion for SDXL: expected {first} and {second}, found "
        f"{first_names(source.names) or 'nothing'}."
    )
