"""Compiled programs kept on disk between runs."""

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax._src import compilation_cache as jax_cache
from jax._src.compilation_cache_interface import CacheInterface
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.runtime.program_folder import ProgramFolder, own_secret
from hotshot_jax.runtime.stored_programs import LOADED

logger = logging.getLogger(__name__)

_NONE = "none"
_HIT = "/jax/compilation_cache/cache_hits"
# Recorded for every program, whether it is compiled or taken from the cache.
_MADE = "/jax/core/compile/backend_compile_duration"


def default_folder() -> Path:
    """The user's folder for compiled programs, after the XDG convention."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not os.path.isabs(base):
        # There are containers whose user has no home. The temporary folder is everybody's, and the
        # name below is taken only if it is this user's.
        base = os.path.join(tempfile.gettempdir(), f"hotshot-jax-{os.getuid()}")
    return Path(base) / "hotshot-jax" / "compiled"


def _secret_file() -> Path | None:
    # Not beside the programs: whoever can write there is not to know it.
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    # A user without a home has no secrets.
    return Path(base) / "hotshot-jax" / "programs.secret" if os.path.isabs(base) else None


def _on_several_gpu_hosts() -> bool:
    """Whether compilers wait for each other.

    Compilers for GPUs share out what is tried on the device, and JAX keeps programs on the first
    host: from a folder of each host's own it would have its program at once, and the others wait
    for its share. Asked for by name, a folder is one that all hosts see.
    """
    together = jax.distributed.is_initialized() and jax.process_count() > 1
    return together and jax.default_backend() == "gpu"


def chosen_folder(flag: str | None) -> Path | None:
    """The folder that `--compilation_cache` names; None for no cache.

    Args:
        flag: the user's folder, "none", or None for the default.

    Raises:
        UsageError: the flag is empty.
    """
    if flag is None:
        return None if _on_several_gpu_hosts() else default_folder()
    if flag == _NONE:
        return None
    if not flag:
        raise UsageError("--compilation_cache is empty; give a folder, or 'none'.")
    return Path(os.path.expanduser(flag))


@contextlib.contextmanager
def compilation_cache(folder: Path | None) -> Iterator[ProgramFolder | None]:
    """Keeps compiled programs in `folder`; nowhere without one, or where it cannot be trusted.

    Gives the same folder with a secret, for programs that can be loaded without being traced; None
    if there is no folder, or no secret of this user.

    A folder that JAX is told of in the environment is not used either: whether others can write to
    it is not looked at there.
    """
    programs = None if folder is None else _open(folder)
    settings = {
        "jax_compilation_cache_dir": None if programs is None else str(programs.path),
        # Small programs count too: a run starts in seconds only when nothing at all is compiled.
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    file = _secret_file()
    secret = None if programs is None or file is None else own_secret(file)
    keyed = None if programs is None or secret is None else programs.with_secret(secret)
    if programs is not None and keyed is None:
        logger.warning(
            "Programs are traced anew in every run: those that are stored are only loaded with a "
            "secret of yours, and %s cannot be read or written by you alone.",
            file or "the folder of XDG_CONFIG_HOME",
        )
    with _jax_settings(settings), _jax_reads(programs):
        yield keyed


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


@contextlib.contextmanager
def _jax_reads(programs: ProgramFolder | None) -> Iterator[None]:
    """Has JAX read and write through `programs`, for which it has no public way.

    Its own reader takes whatever lies under a name.
    """
    before = jax_cache.get_file_cache
    setattr(jax_cache, "get_file_cache", lambda path: programs and (_JaxCache(programs), path))  # noqa: B010
    try:
        yield
    finally:
        setattr(jax_cache, "get_file_cache", before)  # noqa: B010


class _JaxCache(CacheInterface):
    """A `ProgramFolder` as JAX takes it."""

    def __init__(self, programs: ProgramFolder) -> None:
        self._path = programs.path
        self._programs = programs

    def get(self, key: str) -> bytes | None:
        return self._programs.get(key)

    def put(self, key: str, value: bytes) -> None:
        self._programs.put(key, value)


def _open(folder: Path) -> ProgramFolder | None:
    try:
        return ProgramFolder(folder)
    except HotshotError as error:
        logger.warning(
            "%s; every run will compile anew. --compilation_cache names another folder.", error
        )
        return None


class CompilationCounter:
    """Counts programs that were compiled (`misses`) and taken from the cache (`hits`)."""

    def __init__(self) -> None:
        self.hits = 0
        self._made = 0
        jax.monitoring.register_event_listener(self._listen)
        jax.monitoring.register_event_duration_secs_listener(self._listen_to_duration)

    @property
    def misses(self) -> int:
        """Programs that were compiled, whether there is a cache or none."""
        return self._made - self.hits

    def _listen(self, event: str, **_: Any) -> None:
        self.hits += event in (_HIT, LOADED)
        self._made += event == LOADED

    def _listen_to_duration(self, event: str, duration_secs: float, **_: Any) -> None:
        self._made += event == _MADE
