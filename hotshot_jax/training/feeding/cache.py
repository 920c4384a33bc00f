"""Latents and text embeddings on disk, each under a name that follows from all that it depends on.

An entry is found only by the hash of what it was computed from (files and size, or token ids, and
the weights of the model), so a changed file or another model never meets an old entry.
"""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from hotshot_jax.convert.tensors.rules import flat_parameters
from hotshot_jax.errors import HotshotError
from hotshot_jax.files.limits import MOST_FILE_BYTES
from hotshot_jax.files.plain_file import read_bytes

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
        probe = self.folder / f".writable-{secrets.token_hex(4)}"
        with self._explained():
            self.folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()

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
        path = self._path(key)
        staged = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with self._explained():
                path.parent.mkdir(parents=True, exist_ok=True)
                staged.write_bytes(save({k: np.ascontiguousarray(v) for k, v in arrays.items()}))
                os.replace(staged, path)
        finally:
            staged.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise HotshotError(
                f"`cache_dir` {self.folder} cannot be written: {error.strerror or error}."
            ) from error

    def _path(self, key: tuple[Any, ...]) -> Path:
        name = hashlib.sha256(repr(key).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"
