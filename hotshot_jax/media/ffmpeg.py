"""Running the ffmpeg that imageio-ffmpeg finds or brings."""

import os
import shutil
import subprocess

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
    frames: npt.NDArray[np.uint8] | None = None,
    most_seconds: float | None = None,
) -> bytes:
    """Run ffmpeg to its end.

    Args:
        arguments: without the program's name.
        subject: what an error message is about, such as the path of the file.
        frames: fed to its standard input, as they lie in memory.
        most_seconds: after which it is ended; None for as long as it takes.

    Returns:
        What ffmpeg wrote to its standard output.

    Raises:
        FfmpegError: it ended with an error, or was ended; the message holds the last line of
            its log.
        HotshotError: there is no ffmpeg.
    """
    command = [ffmpeg_executable(), "-nostdin", "-hide_banner", "-loglevel", "error", *arguments]
    feed = np.ascontiguousarray(frames).reshape(-1).data if frames is not None else b""
    # In a session of its own, so that Ctrl-C reaches this process only, which then ends ffmpeg.
    try:
        result = subprocess.run(
            command,
            input=feed,
            capture_output=True,
            start_new_session=True,
            check=False,
            timeout=most_seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise FfmpegError(
            f"{subject}: ffmpeg took more than {most_seconds:g} seconds.", ""
        ) from error
    except OSError as error:
        raise FfmpegError(
            f"{subject}: ffmpeg could not be started ({error.strerror or error}).", ""
        ) from error
    log = result.stderr.decode(errors="replace").strip()
    if result.returncode != 0:
        reason = log.splitlines()[-1] if log else f"exit status {result.returncode}"
        raise FfmpegError(f"{subject}: ffmpeg failed: {reason}", log)
    return result.stdout
