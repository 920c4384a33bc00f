"""Compiled programs kept on disk between runs."""

import logging
import os
from pathlib import Path
from typing import Any

import jax

logger = logging.getLogger(__name__)

_HIT = "/jax/compilation_cache/cache_hits"
_MISS = "/jax/compilation_cache/cache_misses"


def default_folder() -> Path:
    """The user's folder for compiled programs, after the XDG convention."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "hotshot-jax" / "compiled"


def use_compilation_cache(folder: Path | None) -> None:
    """Keeps compiled programs in `folder`; without one, or where it cannot be written, nowhere."""
    if folder is None:
        return
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
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # Small programs count too: a run starts in seconds only when nothing at all is compiled.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


class CompilationCounter:
    """Counts programs that were compiled (`misses`) and taken from the cache (`hits`)."""

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        jax.monitoring.register_event_listener(self._listen)

    def _listen(self, event: str, **_: Any) -> None:
        self.hits += event == _HIT
        self.misses += event == _MISS
