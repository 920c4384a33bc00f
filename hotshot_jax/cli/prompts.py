"""Prompts of a run, looked at before any model is loaded."""

import logging
from collections.abc import Iterator, Sequence

from hotshot_jax.cli.settings import InferSettings
from hotshot_jax.errors import UsageError
from hotshot_jax.files.limits import MOST_PROMPT_BYTES
from hotshot_jax.pipelines.prompt_weighting import parse_weights
from hotshot_jax.pipelines.textual_inversion import mentions, parse_embedding

logger = logging.getLogger(__name__)


def check_prompts(settings: InferSettings, prompts: Sequence[str]) -> None:
    """Checks the brackets of all prompts, and that they use the words of `--embedding`.

    A word that no prompt has is a warning.

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
    for argument in settings.embedding:
        path, word = parse_embedding(argument)
        if not any(mentions(text, word) for _, text in texts):
            logger.warning(
                "--embedding %s has no effect: no prompt has the word %s in it.", path, word
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


def _texts(settings: InferSettings, prompts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every text that the encoders will read, and the flag that it comes from."""
    for number, prompt in enumerate(prompts, 1):
        yield "--prompt" if settings.prompts_file is None else f"prompt {number}", prompt
    for flag in ("prompt_2", "negative_prompt", "negative_prompt_2"):
        text = getattr(settings, flag)
        if text is not None:
            yield f"--{flag}", text
