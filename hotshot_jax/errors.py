"""Errors that speak to the person at the command line.

Anything else that escapes is a bug in this project, so only these are shown without a traceback.
"""

import re
from collections.abc import Iterator

_OUT_OF_MEMORY = re.compile("resource_exhausted|out of memory|out_of_memory|alloc_failed", re.I)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether a device's memory did not suffice, by an error or what it came from.

    JAX has one class for all that goes wrong on devices. What is allocated outside its own pool of
    a GPU, such as a library's handle, fails in that library's words.
    """
    return any(
        isinstance(each, RuntimeError) and _OUT_OF_MEMORY.search(str(each)) is not None
        for each in causes(error)
    )


class HotshotError(Exception):
    """The run failed for a reason that the user can act on.

    The message is one or two lines: what is wrong, where, and what to do. Settings in it stand in
    backticks, by their names in Python; commands show them as flags.
    """

    exit_status = 1
    everywhere = False
    """Whether all processes of a run raise it at once, so that none has to tell the others."""


class UsageError(HotshotError):
    """The request itself is wrong: an argument or a combination of them."""

    exit_status = 2
