"""Compiled programs kept on disk between runs."""

import contextlib
import glob
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from hotshot_jax.errors import UsageError

logger = logging.getLogger(__name__)

_NONE = "none"
_HIT = "/jax/compilation_cache/cache_hits"
_CACHE_ERROR = re.compile(
    r"Error (?P<what>reading|writing) persistent compilation cache entry for '(?P<program>[^']*)'"
)
_MISS = "/jax/compilation_cache/cache_misses"


def default_folder() -> Path:
    """The user's folder for compiled programs, after the XDG convention."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not os.path.isabs(base):
        # There are containers whose user has no home.
        base = tempfile.gettempdir()
    return Path(base) / "hotshot-jax" / "compiled"


def chosen_folder(flag: str | None) -> Path | None:
    """The folder that `--compilation_cache` names; None for no cache.

    Args:
        flag: the user's folder, "none", or None for the default.

    Raises:
        UsageError: the flag is empty.
    """
    if flag is None:
        return default_folder()
    if flag == _NONE:
        return None
    if not flag:
        raise UsageError("--compilation_cache is empty; give a folder, or 'none'.")
    return Path(os.path.expanduser(flag))


@contextlib.contextmanager
def compilation_cache(folder: Path | None) -> Iterator[None]:
    """Keeps compiled programs in `folder`; without one, or where it cannot be written, nowhere.

    A program that was kept but cannot be read again is removed, so that it is compiled and kept
    anew: JAX leaves it there, and every run would be slow.
    """
    if folder is None or not _is_writable(folder):
        yield
        return
    # Small programs count too: a run starts in seconds only when nothing at all is compiled.
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    with _jax_settings(settings), warnings.catch_warnings():
        warnings.filterwarnings("always", message=_CACHE_ERROR.pattern)
        show = warnings.showwarning
        told = False

        def explain(message: Any, *arguments: Any, **options: Any) -> None:
            nonlocal told
            error = _CACHE_ERROR.match(str(message))
            if error is None:
                show(message, *arguments, **options)
                return
            if error["what"] == "reading":
                _remove_program(folder, error["program"])
            if not told:
                logger.warning(
                    "--compilation_cache %s: %s. What is damaged there is compiled anew.",
                    folder,
                    " ".join(str(message).split()),
                )
            told = True

        warnings.showwarning = explain
        yield


@contextlib.contextmanager
def _jax_settings(settings: dict[str, Any]) -> Iterator[None]:
    before = {name: getattr(jax.config, name) for name in settings}
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        # JAX opens one folder and stays with it until it is told to look again.
        reset_cache()
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        reset_cache()


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        logger.warning(
            "Compiled programs cannot be kept in %s (%s); every run will compile anew. "
            "--compilation_cache names another folder.",
            folder,
            error.strerror,
        )
        return False
    return True


def _remove_program(folder: Path, name: str) -> None:
    for file in folder.glob(f"{glob.escape(name)}-*"):
        with contextlib.suppress(OSError):
            file.unlink()


class CompilationCounter:
    """Counts programs that were compiled (`misses`) and taken from the cache (`hits`)."""

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        jax.monitoring.register_event_listener(self._listen)

    def _listen(self, event: str, **_: Any) -> None:
        self.hits += event == _HIT
        self.misses += event == _MISS
