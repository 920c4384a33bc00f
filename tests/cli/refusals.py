"""What every refusal of a command has in common."""

from tests.cli.conftest import Run


def assert_refused(run: Run, status: int, *expected: str) -> None:
    """The run failed with that status, and with a message of one or two lines that says so.

    Args:
        run: the run.
        status: 1 for a failed run, 2 for wrong usage.
        expected: parts of the message.
    """
    assert run.status == status, run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""
    message = run.stderr[run.stderr.rindex("error: ") :]
    assert len(message.strip().splitlines()) <= 2, message
    for part in expected:
        assert part in message, message


def assert_refused_at_once(run: Run, status: int, *expected: str) -> None:
    """Like `assert_refused`; and no weights were read before."""
    assert_refused(run, status, *expected)
    assert "loading" not in run.stderr
    assert "compiling" not in run.stderr
