"""Compiled programs that are loaded without being traced again.

JAX's own cache saves compiling, but finds a program by its text, which takes as long to make as the
rest of a start. Here a program is found by everything that its text is made of.
"""

import contextlib
import functools
import hashlib
import logging
import os
import pickle
import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import flax
import jax
import jaxlib
from jax.experimental.serialize_executable import deserialize_and_load, serialize

import hotshot_jax
from hotshot_jax.runtime.program_folder import ProgramFolder

logger = logging.getLogger(__name__)

MOST_STORED = 64
"""Programs that are kept on disk: those of some ten sizes and models."""
LOADED = "/hotshot_jax/program_loaded"
"""Recorded with `jax.monitoring` for every program that is loaded."""

_PREFIX = "executable-"
# Recorded by JAX for every program that its own cache has.
_TAKEN = "/jax/compilation_cache/cache_hits"
# Settings of JAX that change no program.
_IDLE_SETTINGS = ("cache", "log", "dump", "traceback", "debug", "profil", "distributed", "explain")
_COMPILER_VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
# How an object shows itself that has nothing to tell it by.
_ADDRESS = " at 0x"


class StoredPrograms:
    """Programs in a folder, by what they are made of.

    They are pickles, which run what they say. Therefore the folder has to have a secret: without it
    nobody can write a file that is read here.

    Args:
        folder: with a secret.
        models: all about the models that decides what is traced, but for the shapes of their
            parameters.

    Raises:
        ValueError: the folder has no secret.
    """

    def __init__(self, folder: ProgramFolder, models: str) -> None:
        if not folder.keyed:
            raise ValueError("programs are only loaded from a folder with a secret")
        self._folder = folder
        self._common = (_surroundings(), models)

    def get_or_compile(self, made_of: Any, compile_program: Callable[[], Any]) -> Any:
        """A program that is kept, or compiled and then kept where that is possible.

        Args:
            made_of: all that it is made of, see `key`.
            compile_program: compiles it.
        """
        return self.get_or_make(made_of, lambda: (compile_program(), None))[0]

    def get_or_make(self, made_of: Any, make: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
        """The same, with what is known of the program, which is kept beside it.

        Args:
            made_of: all that it is made of, see `key`.
            make: gives the program, and a number or a text.
        """
        key = self.key(made_of)
        if key is None:
            return make()
        found = self.get(key)
        return self._made(key, make) if found is None else found

    def key(self, *parts: Any) -> str | None:
        """What a program is kept under; None if it cannot be told from others.

        Args:
            parts: all that the program is made of. Their texts have to tell them apart.
        """
        text = repr((self._common, _jax_settings(), parts))
        if _ADDRESS in text:
            return None
        return f"{_PREFIX}{hashlib.sha256(text.encode()).hexdigest()}"

    def get(self, key: str) -> tuple[Callable[..., Any], Any] | None:
        """The program of a key, and what is known of it; None if there is none that runs here."""
        content = self._folder.get(key)
        if content is None:
            return None
        try:
            program_bytes, in_tree, out_tree, ids, known = pickle.loads(content)
            here = {device.id: device for device in jax.devices()}
            # Left to itself, JAX takes all devices in the order of their numbers; meshes of TPUs
            # have another one, so that neighbours are joined.
            devices = [here[each] for each in ids]
            program: Callable[..., Any] = deserialize_and_load(
                program_bytes, in_tree, out_tree, execution_devices=devices
            )
        # Whatever XLA and pickle have against a file that this user wrote: it is compiled anew.
        except Exception as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            logger.warning("A stored program cannot be loaded and is compiled anew: %s", reason)
            return None
        jax.monitoring.record_event(LOADED)
        return program, known

    def _made(self, key: str, make: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
        """A program that there is none of yet, which is kept where its platform can."""
        with _counted(_TAKEN) as taken:
            program, known = make()
        if taken and jax.default_backend() != "tpu":
            # What JAX has taken from its own cache has lost its machine code on CPUs: written
            # again, it would load and then fail when it is run. What GPUs do was not seen.
            return program, known
        self._put(key, program, known)
        return program, known

    def _put(self, key: str, program: Any, known: Any) -> None:
        try:
            ids = [device.id for device in _devices_of(program)]
            content = pickle.dumps((*serialize(program), ids, known))
        # Whatever a platform has against it: the program is there, and is compiled again next time.
        except Exception as error:
            logger.debug("A program is not stored: %s", error)
            return
        self._folder.put(key, content)
        self._folder.forget_oldest(_PREFIX, MOST_STORED)


def _devices_of(program: Any) -> Sequence[jax.Device]:
    """The devices that a program runs on, in its order."""
    for sharding in jax.tree.leaves(program.input_shardings):
        if isinstance(sharding, jax.sharding.NamedSharding):
            return list(sharding.mesh.devices.flat)
    found: Sequence[jax.Device] = program.runtime_executable().local_devices()
    return found


@contextlib.contextmanager
def _counted(name: str) -> Iterator[list[str]]:
    """Has a list grow with every event of a name that JAX records meanwhile."""
    seen: list[str] = []

    def listen(event: str, **_: Any) -> None:
        if event == name:
            seen.append(event)

    jax.monitoring.register_event_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_listener(listen)


@functools.cache
def _surroundings() -> tuple[Any, ...]:
    """What every program of this process has in common."""
    device = jax.devices()[0]
    return (
        platform.python_version(),
        jax.__version__,
        jaxlib.__version__,
        flax.__version__,
        _source_digest(Path(hotshot_jax.__file__).parent),
        device.client.platform_version,
        [f"{each.id} {each.device_kind}" for each in jax.devices()],
        # Programs for a CPU use what this one has.
        _processor() if device.platform == "cpu" else "",
        [os.environ.get(name) for name in _COMPILER_VARIABLES],
    )


def _jax_settings() -> list[tuple[str, Any]]:
    return sorted(
        (name, value)
        for name, value in jax.config.values.items()
        if not any(part in name for part in _IDLE_SETTINGS)
    )


def _source_digest(package: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(package)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    told = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(told)}))
