"""Latents and text embeddings on disk, each under a name that follows from all that it depends on.

An entry is found only by the hash of what it was computed from (files and size, or token ids, and
the weights of the model), so a changed file or another model never meets an old entry.
"""

import contextlib
import hashlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from hotshot_jax.convert.tensors.rules import flat_parameters
from hotshot_jax.files.plain_file import MOST_FILE_BYTES, read_bytes
from hotshot_jax.parallel.hosts import first_of_all_hosts
from hotshot_jax.parallel.shared_folder import folder_of, leave, seen_by_all_hosts
from hotshot_jax.writing.staging import probe_writable, replace_file

_SETTING = "cache_dir"
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
        with folder_of(_SETTING, self.folder):
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
        with folder_of(_SETTING, self.folder):
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
    with seen_by_all_hosts(folder, _SETTING, f", or train without `{_SETTING}`") as markers:
        yield
        own = markers / f"filled-{index}"
        leave(own, folder, _SETTING)
        while not all((markers / f"filled-{other}").exists() for other in range(count)):
            time.sleep(_PAUSE)
        # Nobody removes what another one still looks for.
        first_of_all_hosts("")
        own.unlink(missing_ok=True)
