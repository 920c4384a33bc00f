"""Textual inversions of a pipeline: found, read, and appended to the text encoders' tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from hotshot_jax.conditioning.text.prompt_weighting import Vocabulary
from hotshot_jax.conditioning.text.textual_inversion import (
    TextualInversion,
    extended_config,
    extended_table,
    joined_halves,
    read_textual_inversion,
)
from hotshot_jax.convert.assembly import AnyComponent
from hotshot_jax.convert.formats.diffusers_folder import Component
from hotshot_jax.convert.hub import resolve
from hotshot_jax.convert.prepare import component_source
from hotshot_jax.convert.tensors.file_content import refuse_pickle
from hotshot_jax.convert.tensors.tensor_source import LazyTensor, TensorSource, open_file
from hotshot_jax.errors import HotshotError, UsageError

ENCODERS = ("text_encoder", "text_encoder_2")
"""The models that a textual inversion extends."""

# diffusers' trainer writes one file for each encoder of SDXL, and others after some steps.
_STEM = "learned_embeds"
_USUAL_NAME = f"{_STEM}.safetensors"
_HALF = re.compile(rf"{_STEM}(?:_2)?((?:-steps-\d+)?\.safetensors)")
_TABLE = "embeddings.token_embedding.weight"
_ENDING = ".safetensors"


def open_embeddings(
    embeddings: Sequence[tuple[str, str]],
    widths: Mapping[str, int],
) -> tuple[TextualInversion, ...]:
    """Reads textual inversions for a checkpoint.

    Args:
        embeddings: paths or Hub ids, and the words that stand for them in prompts.
        widths: width of each text encoder, by "text_encoder" and "text_encoder_2".

    Raises:
        HotshotError: one is missing, damaged, a pickle, or for another model.
        UsageError: nothing is there, or two have the same word.
    """
    words = [token for _, token in embeddings]
    for word in words:
        if words.count(word) > 1:
            raise UsageError(f"`embeddings`: the word {word!r} is used twice; name one PATH:WORD.")
    return tuple(read_textual_inversion(_open(path), token, widths) for path, token in embeddings)


def with_embeddings(
    components: Mapping[str, AnyComponent],
    inversions: Sequence[TextualInversion],
    vocabulary: Vocabulary,
) -> dict[str, Component]:
    """The text encoders of a checkpoint with vectors of new words appended to their tables.

    Args:
        components: the models.
        inversions: the new words, in the order of their vectors.
        vocabulary: a tokenizer of the checkpoint.
    """
    return {name: _extended(components[name], name, inversions, vocabulary) for name in ENCODERS}


def select_embedding_files(names: Sequence[str]) -> list[str]:
    """Which files of a Hub repository hold a textual inversion; for `convert.hub.resolve`.

    Args:
        names: all files of the repository.

    Returns:
        One file, or the two that diffusers' trainer writes for SDXL, the first encoder's first.

    Raises:
        HotshotError: there is none, or several that have no usual name.
    """
    files = sorted(name for name in names if "/" not in name and name.endswith(_ENDING))
    chosen = [_USUAL_NAME] if _USUAL_NAME in files else files
    halves = _halves(chosen[0]) if chosen else None
    if halves is not None and set(halves) <= set(files) and set(chosen) <= set(halves):
        return list(halves)
    if len(chosen) != 1:
        held = f"{len(files)} files ({', '.join(files[:5])})" if files else "no .safetensors file"
        raise HotshotError(
            f"There is {held}; expected one textual inversion. Give the path of the file."
        )
    return chosen


def _halves(name: str) -> tuple[str, str] | None:
    """The names of both of diffusers' files, by either; None where it has another name."""
    match = _HALF.fullmatch(name)
    return None if match is None else (f"{_STEM}{match[1]}", f"{_STEM}_2{match[1]}")


def _open(path: str) -> TensorSource:
    found = resolve(path, select=select_embedding_files)
    if found.is_dir():
        try:
            names = select_embedding_files([each.name for each in found.iterdir()])
        except HotshotError as error:
            raise HotshotError(f"{found}: {error}") from error
        files = [found / name for name in names]
    else:
        refuse_pickle(found)
        halves = [found.with_name(name) for name in _halves(found.name) or ()]
        files = halves if halves and all(each.is_file() for each in halves) else [found]
    sources = [open_file(each) for each in files]
    return sources[0] if len(sources) == 1 else joined_halves(*sources)


def _extended(
    component: AnyComponent,
    name: str,
    inversions: Sequence[TextualInversion],
    vocabulary: Vocabulary,
) -> Component:
    source = component_source(component)

    def widened(tensor: LazyTensor) -> LazyTensor:
        if not tensor.name.endswith(_TABLE) or len(tensor.shape) != 2:
            return tensor
        # In float32, so that the vectors are rounded once, to what the model computes in.
        return tensor.recomputed(
            lambda: extended_table(tensor.read().astype(np.float32), inversions, name),
            shape=(tensor.shape[0] + sum(map(len, inversions)), tensor.shape[1]),
            dtype=np.dtype(np.float32),
        )

    return Component(
        name,
        component.path,
        component.config_path,
        extended_config(component.config, inversions, vocabulary),
        TensorSource(map(widened, source.values()), source.path, source.metadata),
        variant=None,
    )
