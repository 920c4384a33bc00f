"""Prompts of a run, looked at before any model is loaded."""

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hotshot_jax.builtin import builtin_checkpoint
from hotshot_jax.cli.infer.clip import windows_of_clip
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.conditioning.text.prompt_editing import (
    edited_texts,
    edits_without_effect,
    has_alternatives,
)
from hotshot_jax.conditioning.text.prompt_weighting import parse_weights
from hotshot_jax.conditioning.text.textual_inversion import mentions, parse_embedding
from hotshot_jax.errors import UsageError
from hotshot_jax.files.plain_file import MOST_PROMPT_BYTES
from hotshot_jax.files.printable import printable
from hotshot_jax.pipelines.known_prompts import KnownPrompts

logger = logging.getLogger(__name__)

_UNKNOWN = {
    re.compile(r"\bAND\b"): "AND in capitals is read as a word: prompts are not combined here.",
    re.compile(
        r"<(?:lora|lyco):"
    ): "<lora:...> is read as words; name the file with --lora instead.",
    re.compile(r"<hypernet:"): "<hypernet:...> is read as words: hypernetworks are not known here.",
}
"""What AUTOMATIC1111 would take for more than words, and what is to be said of it."""


def check_prompts(settings: InferSettings, prompts: Sequence[str]) -> None:
    """Checks the brackets of all prompts, and that they use the words of `--embedding`.

    A word that no prompt has is a warning, as is syntax without effect.

    Args:
        settings: the settings.
        prompts: those of `--prompt` or `--prompts_file`.

    Raises:
        UsageError: a prompt is no UTF-8, or absurdly long; a bracket has no partner; an
            embedding's word cannot be one.
    """
    texts = list(_texts(settings, prompts))
    for flag, text in texts:
        _check_text(flag, text)
    if settings.prompt_weights:
        for flag, text in texts:
            parse_weights(text, where=flag)
            for warning in _warnings(text, settings.steps):
                logger.warning("%s: %s", flag, warning)
    for argument in settings.embedding:
        path, word = parse_embedding(argument)
        if not any(mentions(text, word) for _, text in texts):
            logger.warning(
                "--embedding %s has no effect: no prompt has the word %s in it.", path, word
            )


def warn_of_unknown(settings: InferSettings, prompts: Sequence[str]) -> None:
    """Points out what the model was not made for, where its checkpoint says what it was made for.

    LoRAs, embeddings and parts of other models may teach other words, of which it says nothing.

    Args:
        settings: the settings, with width and height.
        prompts: those of `--prompt` or `--prompts_file`.
    """
    path = settings.pretrained_path
    known = KnownPrompts.of(builtin_checkpoint() if path is None else Path(path))
    if known is None:
        return
    taught = (*settings.lora, *settings.embedding, settings.base, settings.spatial_unet_base)
    shown = [*filter(None, prompts), *(text for _, text in settings.prompt_at)]
    unknown = [text for text in shown if not _is_known(settings, known, text)]
    if unknown and not any(taught):
        others = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        logger.warning(
            "The model was not made for %r%s. The prompts that it knows read %s.",
            printable(unknown[0], 80),
            others,
            printable(known.describe()),
        )
    if (settings.width, settings.height) not in known.sizes:
        logger.warning(
            "The model was not made for %s x %s pixels, but for %s.",
            settings.width,
            settings.height,
            " or ".join(f"{width} x {height}" for width, height in known.sizes),
        )
    seen, _ = windows_of_clip(settings)
    if seen not in known.frames:
        logger.warning(
            "The model was not made for %d frames at once, but for %s.",
            seen,
            " or ".join(map(str, known.frames)),
        )


def _is_known(settings: InferSettings, known: KnownPrompts, prompt: str) -> bool:
    """Whether the model knows all that a prompt says in the course of the run."""
    if not settings.prompt_weights:
        return known.knows(prompt)
    return all(
        known.knows("".join(part.text for part in parse_weights(text)))
        for _, text in edited_texts(prompt, settings.steps)
    )


def _check_text(flag: str, text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise UsageError(f"{flag} is not UTF-8 text (character {error.start + 1}).") from error
    if size > MOST_PROMPT_BYTES:
        raise UsageError(
            f"{flag} has {size} bytes, at most {MOST_PROMPT_BYTES} can be read; text encoders take "
            "some 300 at a time."
        )


def _warnings(text: str, steps: int) -> Iterator[str]:
    for pattern, warning in _UNKNOWN.items():
        if pattern.search(text):
            yield warning
    if has_alternatives(text):
        yield (
            "[a|b] is read as weaker words: texts do not alternate here; [a:b:0.5] changes a text "
            "once."
        )
    edits = edits_without_effect(text, steps)
    if edits:
        first = edits[0] if len(edits[0]) <= 60 else f"{edits[0][:40]} ... {edits[0][-15:]}"
        others = f" (and {len(edits) - 1} more)" if len(edits) > 1 else ""
        yield f"{first}{others} is the same text in all {steps} steps."


def _texts(settings: InferSettings, prompts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every text that the encoders will read, and the flag that it comes from."""
    for number, prompt in enumerate(prompts, 1):
        yield "--prompt" if settings.prompts_file is None else f"prompt {number}", prompt
    for flag in ("prompt_at", "negative_prompt_at"):
        for frame, text in getattr(settings, flag):
            yield f"--{flag} {frame}", text
    for flag in ("prompt_2", "negative_prompt", "negative_prompt_2"):
        text = getattr(settings, flag)
        if text is not None:
            yield f"--{flag}", text
