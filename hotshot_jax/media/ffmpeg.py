"""Running the ffmpeg that imageio-ffmpeg finds or brings."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable
from typing import IO

import numpy as np
import numpy.typing as npt

from hotshot_jax.errors import HotshotError


class FfmpegError(HotshotError):
    """ffmpeg ended with an error; `log` is what it said."""

    def __init__(self, message: str, log: str) -> None:
        super().__init__(message)
        self.log = log


def ffmpeg_executable() -> str:
    """Find ffmpeg.

    Raises:
        HotshotError: there is none; the message says where to get it.
    """
    try:
        import imageio_ffmpeg

        executable = shutil.which(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        executable = None
    if executable is None:
        raise HotshotError(
            "MP4 and WebM need ffmpeg, which was not found: `pip install imageio-ffmpeg` brings "
            "it, or set IMAGEIO_FFMPEG_EXE to its path. GIF and WebP work without."
        )
    return executable


def file_url(path: str | os.PathLike[str]) -> str:
    """Spell a path so that ffmpeg takes it for nothing else than a local file."""
    return "file:" + os.path.abspath(path)


def run_ffmpeg(
    arguments: list[str],
    *,
    subject: str,
    feed: Iterable[npt.NDArray[np.uint8]] = (),
    most_seconds: float | None = None,
) -> bytes:
    """Run ffmpeg to its end.

    Args:
        arguments: without the program's name.
        subject: what an error message is about, such as the path of the file.
        feed: what its standard input is given, as it lies in memory.
        most_seconds: after which it is ended; None for as long as it takes.

    Returns:
        What ffmpeg wrote to its standard output.

    Raises:
        FfmpegError: it ended with an error, or was ended; the message holds the last line of
            its log.
        HotshotError: there is no ffmpeg.
    """
    command = _command(arguments)
    # In a session of its own, so that Ctrl-C reaches this process only, which then ends ffmpeg.
    try:
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            # Its input is written while its output is read, or both would wait for each other.
            pipe, process.stdin = process.stdin, None
            assert pipe is not None
            feeding = threading.Thread(target=_write_all, args=(pipe, feed), daemon=True)
            feeding.start()
            try:
                output, errors = process.communicate(timeout=most_seconds)
            except BaseException:
                process.kill()
                raise
            finally:
                feeding.join()
    except subprocess.TimeoutExpired as error:
        raise FfmpegError(
            f"{subject}: ffmpeg took more than {most_seconds:g} seconds.", ""
        ) from error
    except OSError as error:
        raise FfmpegError(
            f"{subject}: ffmpeg could not be started ({error.strerror or error}).", ""
        ) from error
    _check(process, errors, subject)
    return output


def stream_ffmpeg(
    arguments: list[str],
    read: Callable[[IO[bytes]], object],
    *,
    subject: str,
    folder: str | os.PathLike[str],
) -> None:
    """Run ffmpeg and read what it writes to its standard output as it comes.

    Args:
        arguments: without the program's name.
        read: reads it; what it leaves is not read.
        subject: what an error message is about, such as the path of the file.
        folder: where ffmpeg works: names of files that it writes are relative to it.

    Raises:
        FfmpegError: it ended with an error; the message holds the last line of its log.
        HotshotError: there is no ffmpeg.
    """
    with tempfile.TemporaryFile() as errors:
        try:
            with subprocess.Popen(
                _command(arguments),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=folder,
                start_new_session=True,
            ) as process:
                assert process.stdout is not None
                try:
                    read(process.stdout)
                except BaseException:
                    process.kill()
                    raise
        except OSError as error:
            raise FfmpegError(
                f"{subject}: ffmpeg could not be started ({error.strerror or error}).", ""
            ) from error
        errors.seek(0)
        _check(process, errors.read(), subject)


def _command(arguments: list[str]) -> list[str]:
    return [ffmpeg_executable(), "-nostdin", "-hide_banner", "-loglevel", "error", *arguments]


def _check(process: subprocess.Popen[bytes], errors: bytes, subject: str) -> None:
    log = errors.decode(errors="replace").strip()
    if process.returncode != 0:
        reason = log.splitlines()[-1] if log else f"exit status {process.returncode}"
        raise FfmpegError(f"{subject}: ffmpeg failed: {reason}", log)


def _write_all(pipe: IO[bytes], arrays: Iterable[npt.NDArray[np.uint8]]) -> None:
    """Feeds a process, as far as it reads; why it stops early stands in its log."""
    with contextlib.suppress(BrokenPipeError), pipe:
        for array in arrays:
            pipe.write(np.ascontiguousarray(array).reshape(-1).data)
