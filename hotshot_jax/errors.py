"""Errors that speak to the person at the command line.

Anything else that escapes is a bug in this project, so only these are shown without a traceback.
"""

from collections.abc import Iterator


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


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
