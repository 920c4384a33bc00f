"""Writing under a temporary name and renaming into place.

A run that fails, for want of disk space or by Ctrl-C, leaves what was there before as it was, and
neither half a file nor a temporary one behind.
"""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from hotshot_jax.errors import HotshotError


@contextlib.contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write a file under; rename it to `path` at the end.

    Missing parent folders are made, and removed again if the body raises.

    Raises:
        HotshotError: the operating system refuses; the message names `path` and the reason.
    """
    with _made_parents(path), _errors_name(path):
        staged = staging_name(path.parent)
        try:
            yield staged
            os.replace(staged, path)
        finally:
            with contextlib.suppress(OSError):
                staged.unlink(missing_ok=True)


@contextlib.contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path` to fill; rename it to `path` at the end.

    A folder of that name is replaced as a whole. Parents and errors are as in `staged_file`.
    """
    with _made_parents(path), _errors_name(path):
        staged = staging_name(path.parent)
        try:
            staged.mkdir()
            yield staged
            _rename_folder(staged, path)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def staging_name(folder: Path) -> Path:
    """Give a hidden name that is free in a folder."""
    return folder / f".hotshot-jax-{uuid.uuid4().hex}.tmp"


def _rename_folder(staged: Path, path: Path) -> None:
    if not path.exists():
        os.rename(staged, path)
        return
    previous = staging_name(path.parent)
    try:
        os.rename(path, previous)
        os.rename(staged, path)
    except BaseException:
        if previous.exists() and not path.exists():
            os.rename(previous, path)
        raise
    shutil.rmtree(previous, ignore_errors=True)


@contextlib.contextmanager
def _made_parents(path: Path) -> Iterator[None]:
    missing = [folder for folder in path.parents if not folder.exists()]
    with _errors_name(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


@contextlib.contextmanager
def _errors_name(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HotshotError(
            f"{path} could not be written: {error.strerror or error}. "
            "What was there before is unchanged."
        ) from error
