"""Folders that all processes of a run have to see."""

import contextlib
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import jax

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.parallel.hosts import failing_together, first_of_all_hosts

# Network file systems may take a while to show what another host has written.
_SECONDS_TO_APPEAR = 20.0
_PAUSE = 0.2


@contextlib.contextmanager
def seen_by_all_hosts(folder: Path, setting: str, otherwise: str = "") -> Iterator[Path]:
    """Checks that all processes see one folder, by files that each leaves there for the others.

    All hosts have to enter it together.

    Args:
        folder: made if missing.
        setting: that names it.
        otherwise: what else can be done, behind the advice to name another folder.

    Returns:
        A hidden folder in it for what else they leave for each other; gone at the end, if they
        remove that.

    Raises:
        UsageError: on every host, that they do not see the same folder.
        HotshotError: on every host, that it cannot be written.
    """
    count, index = jax.process_count(), jax.process_index()
    markers = folder / f".hosts-{first_of_all_hosts(secrets.token_hex(8))}"
    own = markers / f"here-{index}"
    try:
        with failing_together():
            leave(own, folder, setting)
        # Behind this block all have looked, so that what they looked for may go.
        with failing_together():
            _see_all(markers, count, folder, setting, otherwise)
        yield markers
    finally:
        with contextlib.suppress(OSError):
            own.unlink()
            # Succeeds for the last one.
            markers.rmdir()


def check_seen_by_all_hosts(folder: Path, setting: str) -> None:
    """Checks that all processes see one folder; a process on its own looks at nothing.

    Args:
        folder: made if missing.
        setting: that names it.

    Raises:
        UsageError: on every host, that they do not see the same folder.
        HotshotError: on every host, that it cannot be written.
    """
    if jax.process_count() > 1:
        with seen_by_all_hosts(folder, setting):
            pass


def leave(marker: Path, folder: Path, setting: str) -> None:
    """Leaves a file for other hosts.

    Args:
        marker: the file; its folder is made if missing.
        folder: that they share.
        setting: that names it.

    Raises:
        HotshotError: the folder cannot be written.
    """
    with folder_of(setting, folder):
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()


@contextlib.contextmanager
def folder_of(setting: str, folder: Path) -> Iterator[None]:
    """Around what writes to a folder, for an error in the words of the setting that names it.

    Raises:
        HotshotError: in place of an error of the operating system.
    """
    try:
        yield
    except OSError as error:
        raise HotshotError(
            f"`{setting}` {folder} cannot be written: {error.strerror or error}."
        ) from error


def _see_all(markers: Path, count: int, folder: Path, setting: str, otherwise: str) -> None:
    deadline = time.monotonic() + _SECONDS_TO_APPEAR
    missing = list(range(count))
    while missing := [other for other in missing if not (markers / f"here-{other}").exists()]:
        if time.monotonic() > deadline:
            raise UsageError(
                f"`{setting}` {folder} is not shared by the hosts: process {jax.process_index()} "
                f"does not see what process {missing[0]} has written there.\nName a folder on a "
                f"file system that all hosts see{otherwise}."
            )
        time.sleep(_PAUSE)
