"""What every command does the same way: exit statuses, messages, interruption."""

import argparse
import contextlib
import logging
import signal
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from hotshot_jax.errors import HotshotError, UsageError

INTERRUPTED = 128


class _Terminated(BaseException):
    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class Parser(argparse.ArgumentParser):
    """A parser whose errors are ours: two lines instead of a page of usage."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raises `UsageError`."""
        raise UsageError(f"{message}. --help lists all flags.")


def run(program: str, body: Callable[[], None]) -> int:
    """Runs a command and gives its exit status.

    Errors that the user can act on are shown without a traceback: status 1 for a failed run, 2 for
    wrong usage, 128 plus the signal's number for Ctrl-C and SIGTERM. Anything else is a bug of
    this project and keeps its traceback.

    Args:
        program: name of the command, for messages.
        body: the command.
    """
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        with _logging_to_stderr(program):
            body()
    except HotshotError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return _stopped(program, signal.SIGINT)
    except _Terminated as stop:
        return _stopped(program, stop.number)
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def _stopped(program: str, number: int) -> int:
    name = signal.Signals(number).name
    print(f"\n{program}: stopped by {name}; nothing unfinished was left behind.", file=sys.stderr)
    return INTERRUPTED + number


def _terminate(number: int, frame: types.FrameType | None) -> None:
    raise _Terminated(number)


@contextlib.contextmanager
def _logging_to_stderr(program: str) -> Iterator[None]:
    logger = logging.getLogger("hotshot_jax")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"{program}: %(levelname)s: %(message)s"))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
