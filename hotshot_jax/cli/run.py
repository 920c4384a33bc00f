"""What every command does the same way: exit statuses, messages, interruption."""

import argparse
import codecs
import contextlib
import difflib
import io
import logging
import os
import re
import signal
import sys
import time
import traceback
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, NoReturn

from hotshot_jax.cli.missing_package import missing_package
from hotshot_jax.errors import HotshotError, UsageError, causes
from hotshot_jax.files.printable import printable
from hotshot_jax.signals import STOPPING, heard_again, heard_too_early
from hotshot_jax.version import __version__

INTERRUPTED = 128
_FAILED = HotshotError.exit_status
_LONGEST_MESSAGE = 4000
# What libraries quote of the system's refusals in errors of their own classes, and what to do.
_SYSTEM_REFUSALS = {
    "No space left on device": "The disk is full. Make room, or name a place on another disk.",
    "Disk quota exceeded": "The disk quota is used up. Make room, or name a place elsewhere.",
    "Too many open files": "Too many files are open. Raise the limit of open files (ulimit -n).",
    "can't start new thread": (
        "The system allows no more threads. Close other programs, or raise the limit of processes "
        "(ulimit -u)."
    ),
}
# What the library knows by another name than the command line.
_FLAGS = {
    "controlnets": "--controlnet",
    "embeddings": "--embedding",
    "loras": "--lora",
    "num_inference_steps": "--steps",
    "original_size": "--og_width or --og_height",
    "target_size": "--target_width or --target_height",
}
_SETTING = re.compile(r"`([a-z][a-z0-9_]*)`")
# Impatient people press Ctrl-C twice, and some supervisors signal a whole process group besides its
# leader. The repetition must not cut short the cleaning up after the first.
_REPEATED_WITHIN_SECONDS = 1.0


class _Stopped(KeyboardInterrupt):
    # A KeyboardInterrupt, since asyncio and others hold back every other exception.
    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class Parser(argparse.ArgumentParser):
    """A parser whose errors are ours: two lines instead of a page of usage. It knows `--version`.

    A flag that is given twice, with values of which one would count, is refused.
    """

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, **options)
        self._given: dict[str, Any] = {}
        for name, action in ((None, _Store), ("store", _Store), ("store_true", _StoreTrue)):
            self.register("action", name, action)
        version = f"{self.prog} {__version__}"
        self.add_argument("--version", action="version", version=version, help="show it and exit")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses what is known.

        Raises:
            UsageError: a flag is given twice.
        """
        self._given = {}
        return super().parse_known_args(args, namespace)

    def note(self, flag: str, value: Any) -> None:
        """Keeps in mind that a flag is given.

        Raises:
            UsageError: it was given before, with another value.
        """
        if flag in self._given and self._given[flag] != value:
            raise UsageError(
                f"{flag} is given twice, as {self._given[flag]!r} and {value!r}; give it once."
            )
        self._given[flag] = value

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses, and names the nearest flag for one that is unknown.

        Raises:
            UsageError: the arguments are wrong.
        """
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(_describe_unknown(unknown, list(self._option_string_actions)))
        return parsed

    def error(self, message: str) -> NoReturn:
        """Raises `UsageError`."""
        stop = "" if message.endswith((".", "?", "!")) else "."
        raise UsageError(f"{message}{stop} --help lists all flags.")


class _Store(argparse._StoreAction):
    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        if option_string is not None:
            parser.note(f"--{self.dest}", values)
        super().__call__(parser, namespace, values, option_string)


class _StoreTrue(argparse._StoreTrueAction):
    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        parser.note(f"--{self.dest}", True)
        super().__call__(parser, namespace, values, option_string)


class Switch(argparse.BooleanOptionalAction):
    """`--name` and `--no-name`."""

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        """Sets the value, once."""
        parser.note(f"--{self.dest}", not str(option_string).startswith("--no-"))
        super().__call__(parser, namespace, values, option_string)


def program_name(default: str) -> str:
    """What the person called a command: the installed one, or `python -m hotshot_jax`.

    Args:
        default: its name otherwise.
    """
    called = PurePath(sys.argv[0] if sys.argv else "")
    if called.parts[-2:] == ("hotshot_jax", "__main__.py"):
        return "python -m hotshot_jax"
    return called.stem if called.stem.startswith("hotshot-jax") else default


def run(program: str, body: Callable[[], None]) -> int:
    """Runs a command and gives its exit status.

    Errors that the user can act on are shown without a traceback: status 1 for a failed run, 2 for
    wrong usage, 128 plus the signal's number for Ctrl-C and SIGTERM. What the operating system
    refuses counts among them. Anything else is a bug of this project and keeps its traceback.

    Whatever the messages quote of files and servers is made printable here.

    Args:
        program: name of the command, for messages.
        body: the command.
    """
    _prepare_streams()
    try:
        with _stoppable(), _logging_to_stderr(program):
            body()
            sys.stdout.flush()
    except HotshotError as error:
        return _failed(program, str(error), error.exit_status)
    except MemoryError:
        return _failed(
            program, "Out of main memory. Close other programs, or ask for less.", _FAILED
        )
    except RecursionError as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return _failed(
            program,
            "Something that was given is nested too deeply to be worked with "
            f"(RecursionError in {last.filename}, line {last.lineno}).",
            _FAILED,
        )
    except BrokenPipeError:
        _drop_output()
        return _failed(program, "Whoever read standard output has closed it.", _FAILED)
    except OSError as error:
        _drop_output()
        where = f"{error.filename}: " if error.filename else ""
        return _failed(program, f"{where}{error.strerror or error}.", _FAILED)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError):
            refusal = missing_package(error)
        else:
            refusal = _system_refusal(error)
        if refusal is None:
            raise
        return _failed(program, refusal, _FAILED)
    except KeyboardInterrupt as stop:
        outcome = getattr(stop, "outcome", None) or "nothing unfinished was left behind"
        return _stopped(program, getattr(stop, "number", signal.SIGINT), outcome)
    return 0


def run_one_of(
    program: str,
    usage: str,
    commands: Mapping[str, Callable[[Sequence[str]], int]],
    arguments: Sequence[str] | None,
) -> int:
    """Runs the command that the first argument names, and gives its exit status.

    Args:
        program: name of all of them together.
        usage: what `--help` shows.
        commands: by name; each takes the other arguments and gives its exit status.
        arguments: of the command line; None for this process's.
    """
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments), ""]
    if name in commands:
        return commands[name](rest[:-1])

    def body() -> None:
        if name in ("-h", "--help"):
            print(usage)
        elif name == "--version":
            print(f"{program} {__version__}")
        else:
            raise UsageError(f"expected one of {', '.join(commands)}, then its flags. See --help.")

    return run(program, body)


def _system_refusal(error: BaseException | None) -> str | None:
    """What to say of an error that the system caused; None where a bug may have."""
    refusals = (
        message
        for text in map(str, causes(error))
        for quoted, message in _SYSTEM_REFUSALS.items()
        if quoted in text
    )
    return next(refusals, None)


def in_flags(text: str) -> str:
    """A message of the library with the settings in it, which stand in backticks, as flags."""
    return _SETTING.sub(lambda found: _FLAGS.get(found[1], f"--{found[1]}"), text)


def say(text: str) -> None:
    """Prints a line on the error stream; what it quotes of files and servers is made printable."""
    print(printable(in_flags(text)), file=sys.stderr)


def _failed(program: str, message: str, status: int) -> int:
    say(printable(in_flags(f"{program}: error: {message}"), _LONGEST_MESSAGE))
    return status


def _stopped(program: str, number: int, outcome: str) -> int:
    print(f"\n{program}: stopped by {signal.Signals(number).name}; {outcome}.", file=sys.stderr)
    return INTERRUPTED + number


def _prepare_streams() -> None:
    """Lets standard streams be closed, and any file's name be printed."""
    # Python has None for a stream that was closed before it started.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        unicode = codecs.lookup(sys.stdout.encoding).name == "utf-8"
        sys.stdout.reconfigure(errors="surrogateescape" if unicode else "backslashreplace")


def _drop_output() -> None:
    """Gives up standard output if it cannot be written to."""
    # Python flushes again when it exits, and would complain again.
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(in_flags(super().format(record)), _LONGEST_MESSAGE)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Turns signals into exceptions, so that every `finally` on the way out is run."""
    last = -_REPEATED_WITHIN_SECONDS

    def stop(number: int, frame: types.FrameType | None) -> None:
        nonlocal last
        if heard_too_early(number, frame):
            return
        now = time.monotonic()
        repeated = now - last < _REPEATED_WITHIN_SECONDS
        last = now
        if not repeated:
            raise _Stopped(number)

    def forget() -> None:
        nonlocal last
        last = -_REPEATED_WITHIN_SECONDS

    previous = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        with heard_again(_Stopped, forget):
            yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _describe_unknown(arguments: Sequence[str], known: Sequence[str]) -> str:
    hints = []
    for argument in arguments:
        near = difflib.get_close_matches(argument.partition("=")[0][:100], known, 1)
        hints += [f"did you mean {near[0]}?"] if argument.startswith("-") and near else []
    return " ".join([f"unrecognized arguments: {' '.join(arguments)};", *hints]).rstrip(";")


@contextlib.contextmanager
def _logging_to_stderr(program: str) -> Iterator[None]:
    logger = logging.getLogger("hotshot_jax")
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(f"{program}: %(levelname)s: %(message)s"))
    logger.addHandler(handler)
    # Libraries install a handler of their own at the root, which would say everything twice.
    propagate, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.propagate = propagate
        logger.removeHandler(handler)
