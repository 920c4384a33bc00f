"""What the library warns of while it works for somebody is for them, not for the server's log.

Such warnings quote prompts.
"""

import contextlib
import contextvars
import logging
from collections.abc import Iterator

_MOST = 20
_listening: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("heard", default=None)


class _Ear(logging.Handler):
    """Keeps warnings for those who asked for what is done."""

    def emit(self, record: logging.LogRecord) -> None:
        heard = _listening.get()
        if heard is not None and record.levelno >= logging.WARNING:
            text = record.getMessage()
            if len(heard) < _MOST and text not in heard:
                heard.append(text)


def _is_for_the_log(record: logging.LogRecord) -> bool:
    return _listening.get() is None


@contextlib.contextmanager
def kept_from_log() -> Iterator[None]:
    """While the context lasts, what `warnings_heard` gives is not logged."""
    logger = logging.getLogger("hotshot_jax")
    others = [*logger.handlers, *logging.getLogger().handlers]
    ear = _Ear()
    for handler in others:
        handler.addFilter(_is_for_the_log)
    logger.addHandler(ear)
    try:
        yield
    finally:
        logger.removeHandler(ear)
        for handler in others:
            handler.removeFilter(_is_for_the_log)


@contextlib.contextmanager
def warnings_heard() -> Iterator[list[str]]:
    """Gives the warnings of this thread while the context lasts."""
    heard: list[str] = []
    token = _listening.set(heard)
    try:
        yield heard
    finally:
        _listening.reset(token)
