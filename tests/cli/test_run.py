"""What every command does with errors, streams and text that is not its own."""

import io
import logging
import subprocess
import sys
from collections.abc import Callable

import pytest

from hotshot_jax.cli.run import run
from hotshot_jax.errors import HotshotError


def raising(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


def wrapped(error: Exception) -> Exception:
    outer = RuntimeError("a library's own words")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RecursionError(), "nested too deeply"),
        (MemoryError(), "Out of main memory"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (RuntimeError("write() failed: No space left on device; writing /x"), "The disk is full"),
        (wrapped(OSError(28, "No space left on device", "/x")), "The disk is full"),
        (OSError(24, "Too many open files", "/x"), "Too many open files"),
        (BrokenPipeError(), "closed it"),
        (OSError(13, "Permission denied", b"/x"), "Permission denied"),
    ],
)
def test_what_the_system_refuses_is_a_sentence(error, expected, monkeypatch, capsys) -> None:
    # Its own, which may be given up without harm to that of pytest.
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert run("name", raising(error)) == 1
    said = capsys.readouterr().err
    assert said.startswith("name: error: ")
    assert expected in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("error", [ValueError("bug"), RuntimeError("bug"), AttributeError("bug")])
def test_a_bug_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error), match="bug"):
        run("name", raising(error))


def test_what_files_say_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("name", raising(HotshotError("tensor \x1b]0;title\x07 of\r\x9b2J"))) == 1
    assert capsys.readouterr().err == "name: error: tensor \\x1b]0;title\\x07 of\\r\\x9b2J\n"

    def warn() -> None:
        logging.getLogger("hotshot_jax.test").warning("key %s", "\x1b[31m")

    assert run("name", warn) == 0
    assert capsys.readouterr().err == "name: WARNING: key \\x1b[31m\n"


_PRINTS = "import sys; from hotshot_jax.cli.run import run; sys.exit(run('n', lambda: print({!r})))"


@pytest.mark.parametrize(
    ("redirection", "text", "status"),
    [
        (">&-", "text", 0),
        (">/dev/full", "text", 1),
        ("2>&-", "text", 0),
        (">&- 2>&-", "text", 0),
        (">/dev/null", "bytes \udcff", 0),
    ],
)
def test_standard_streams_may_be_closed_or_full(redirection: str, text: str, status: int) -> None:
    command = f'"{sys.executable}" -c "$0" {redirection}'
    ended = subprocess.run(
        ["sh", "-c", command, _PRINTS.format(text)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == status, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr
