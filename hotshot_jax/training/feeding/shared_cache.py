"""A folder that several hosts fill together: they see each other in it, and all wait for all."""

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
        _leave(markers / f"here-{index}")
    with failing_together():
        _see_all(markers, count, folder)
    yield
    _leave(markers / f"filled-{index}")
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


def _leave(marker: Path) -> None:
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError as error:
        raise HotshotError(
            f"`cache_dir` {marker.parent.parent} cannot be written: {error.strerror or error}."
        ) from error
