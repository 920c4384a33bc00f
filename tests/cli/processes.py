"""Commands in processes of their own, for what a test cannot do to its own process."""

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def infer_command(checkpoint: Path, cache: Path, *flags: str) -> list[str]:
    """`infer.py` on a small checkpoint, two steps at 16 x 16 unless `flags` say otherwise."""
    defaults = {
        "--pretrained_path": str(checkpoint),
        "--compilation_cache": str(cache),
        "--steps": "2",
        "--width": "16",
        "--height": "16",
    }
    given = [
        part for name, value in defaults.items() if name not in flags for part in (name, value)
    ]
    return [sys.executable, "infer.py", *given, *flags]


def signalled(command: list[str], number: signal.Signals, when: str) -> tuple[int, str]:
    """Runs a command, sends it a signal when its standard error says `when`.

    Returns:
        Its exit status and all of standard error.
    """
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stderr is not None
    said = b""
    with process:
        while when.encode() not in said:
            # Progress bars go without a line's end for long.
            read = process.stderr.read1(4096)  # type: ignore[attr-defined]
            if not read:
                break
            said += read
        process.send_signal(number)
        said += process.stderr.read()
    return process.returncode, said.decode()
