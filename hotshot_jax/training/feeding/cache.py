"""Latents and text embeddings on disk, each under a name that follows from all that it depends on.

An entry is found only by the hash of what it was computed from (files and size, or token ids, and
the weights of the model), so a changed file or another model never meets an old entry.
"""

import contextlib
import hashlib
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from hotshot_jax.convert.tensors.rules import flat_parameters
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.files.plain_file import MOST_FILE_BYTES, read_bytes
from hotshot_jax.parallel.hosts import failing_together, first_of_all_hosts
from hotshot_jax.writing.staging import probe_writable, replace_file

# Network file systems may take a while to show what another host has written.
_SECONDS_TO_APPEAR = 20.0
_PAUSE = 0.2

Arrays = dict[str, np.ndarray]


def model_digest(*modules: Any) -> str:
    """A hash of the parameters and configuration of models, in hexadecimal."""
    digest = hashlib.blake2b(digest_size=16)
    for module in modules:
        digest.update(repr(module.config).encode())
        for path, leaf in flat_parameters(module).items():
            array = np.ascontiguousarray(np.asarray(leaf))
            digest.update(f"{path}{array.shape}{array.dtype}".encode())
            digest.update(array.view(np.uint8).data)
    return digest.hexdigest()


class Cache:
    """A folder of arrays by key.

    Args:
        folder: made if missing; several runs and hosts may share it.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def check_writable(self) -> None:
        """Makes the folder and a file in it.

        Raises:
            HotshotError: the folder cannot be written.
        """
        with _explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            probe_writable(self.folder)

    def get(self, *key: Any) -> Arrays | None:
        """The arrays of a key; None where there are none or they are damaged."""
        try:
            return load(read_bytes(self._path(key), MOST_FILE_BYTES))
        except (OSError, SafetensorError):
            return None

    def has(self, *key: Any) -> bool:
        """Whether there are whole arrays of a key."""
        return self.get(*key) is not None

    def put(self, arrays: Mapping[str, np.ndarray], *key: Any) -> None:
        """Stores arrays under a key.

        Raises:
            HotshotError: the folder cannot be written.
        """
        with _explained(self.folder):
            replace_file(
                self._path(key), save({k: np.ascontiguousarray(v) for k, v in arrays.items()})
            )

    def _path(self, key: tuple[Any, ...]) -> Path:
        name = hashlib.sha256(repr(key).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"


@contextlib.contextmanager
def shared_by_hosts(folder: Path) -> Iterator[None]:
    """Around the filling of a folder, each host its share; behind it, the folder is full for all.

    Hosts wait for each other by files that they leave in the folder, for as long as it takes: one
    may have much more to do than another. What ends one of them ends all.

    Args:
        folder: made if missing.

    Raises:
        UsageError: on every host, that they do not see the same folder.
        HotshotError: it cannot be written.
    """
    count, index = jax.process_count(), jax.process_index()
    if count == 1:
        yield
        return
    markers = folder / f".hosts-{first_of_all_hosts(secrets.token_hex(8))}"
    with failing_together():
        _leave(markers / f"here-{index}", folder)
    with failing_together():
        _see_all(markers, count, folder)
    yield
    _leave(markers / f"filled-{index}", folder)
    while not all((markers / f"filled-{other}").exists() for other in range(count)):
        time.sleep(_PAUSE)
    # Nobody removes what another one still looks for.
    first_of_all_hosts("")
    for name in ("here", "filled"):
        (markers / f"{name}-{index}").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        # Succeeds for the last one.
        markers.rmdir()


def _see_all(markers: Path, count: int, folder: Path) -> None:
    deadline = time.monotonic() + _SECONDS_TO_APPEAR
    missing = list(range(count))
    while missing := [other for other in missing if not (markers / f"here-{other}").exists()]:
        if time.monotonic() > deadline:
            raise UsageError(
                f"`cache_dir` {folder} is not shared by the hosts: process {jax.process_index()} "
                f"does not see what process {missing[0]} has written there.\nName a folder on a "
                "file system that all hosts see, or train without `cache_dir`."
            )
        time.sleep(_PAUSE)


def _leave(marker: Path, folder: Path) -> None:
    with _explained(folder):
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HotshotError(
            f"`cache_dir` {folder} cannot be written: {error.strerror or error}."
        ) from error
