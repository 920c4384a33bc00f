"""Looking through a whole clip once: its times, where it changes at once, and the frames wanted.

How much a frame changes is what ffmpeg's filter `scdet` calls `mafd`: the mean absolute difference
of brightness from the frame before, in percent of the whole range. A frame that changes much more
than those around it begins another scene. `scdet` itself looks at the one before alone, and takes
flashes and the first motion of a clip for cuts too.
"""

import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from hotshot_jax.errors import HotshotError
from hotshot_jax.files.plain_file import open_plain
from hotshot_jax.media.ffmpeg import FfmpegError, stream_ffmpeg
from hotshot_jax.media.reading.clip import Clip, ReadLimits
from hotshot_jax.media.reading.read import (
    SQUARE_PIXELS,
    explained,
    frame_times,
    open_clip,
    selection,
    source_arguments,
    video_container,
)
from hotshot_jax.media.reading.video_header import read_header

Kept = TypeVar("Kept")
Pixels = npt.NDArray[np.uint8]

CUT: Final = 10.0
"""How much more a frame changes than those around it if it begins another scene, in percent; as
much as `scdet` takes for a cut."""

# Where everything changes much all the time, nothing is a cut.
_TIMES_NEIGHBOURS: Final = 2
_WHOLE_BYTES: Final = 8_000_000
_PPM: Final = re.compile(rb"P6\n(\d+) (\d+)\n255\n")
# As ffmpeg's conversion to video's brightness has it (ITU-R BT.601, 219 levels).
_BRIGHTNESS: Final = np.array([0.299, 0.587, 0.114], np.float32) * (219 / 255)


Wanted = Callable[[Sequence[float], int], Sequence[int]]
"""From the duration of each frame in milliseconds and the bytes of one to numbers of frames."""


@dataclass(frozen=True)
class Seen(Generic[Kept]):
    """What was seen of a clip.

    Attributes:
        width: of a frame in pixels.
        height: of a frame in pixels.
        durations_ms: of each frame, 0 where the file states no time.
        changes: float32 `[frames]`, how much each frame changes from the one before, in percent.
        kept: the wanted frames, as `keep` made them, by number; all frames of a small clip, as
            uint8 `[height, width, 3]`.
    """

    width: int
    height: int
    durations_ms: tuple[float, ...]
    changes: npt.NDArray[np.float32]
    kept: dict[int, Kept | Pixels]


def look_through(
    path: Path,
    wanted: Wanted,
    keep: Callable[[Pixels], Kept],
    opened: Callable[[Path], Clip] = open_clip,
) -> Seen[Kept]:
    """See all of a clip, of any length, and keep some of its frames.

    A video is decoded once, by one ffmpeg. Which frames are wanted is asked of what its header says
    of its length, which may be wrong: `kept` may then lack some, or hold others.

    Args:
        path: of the clip.
        wanted: which frames to keep of a clip that is too large to keep all.
        keep: what to keep of such a frame, uint8 `[height, width, 3]`.
        opened: opens what is no video.

    Raises:
        UsageError: there is no such file.
        HotshotError: it cannot be read; the message names the file.
    """
    container = _container(path)
    if container is not None:
        return _look_through_video(path, container, wanted, keep)
    clip = opened(path)
    frame_bytes = clip.height * clip.width * 3
    small = len(clip.durations_ms) * frame_bytes <= _WHOLE_BYTES
    chosen = set(() if small else wanted(clip.durations_ms, frame_bytes))
    kept: dict[int, Kept | Pixels] = {}

    def frames() -> Iterator[Pixels]:
        for number, frame in enumerate(clip.stream()):
            if small:
                kept[number] = frame
            elif number in chosen:
                kept[number] = keep(frame)
            yield frame

    return Seen(clip.width, clip.height, clip.durations_ms, measured_changes(frames()), kept)


def measured_changes(frames: Iterable[Pixels]) -> npt.NDArray[np.float32]:
    """How much each frame changes from the one before, float32 `[frames]`, in percent.

    Args:
        frames: uint8 `[height, width, 3]`, of one size.
    """
    changes: list[float] = []
    before: npt.NDArray[np.float32] | None = None
    for frame in frames:
        brightness = frame @ _BRIGHTNESS
        change = 0.0 if before is None else float(np.abs(brightness - before).mean()) * 100 / 256
        changes.append(change)
        before = brightness
    return np.array(changes, np.float32)


def cuts(changes: npt.NDArray[np.float32], least: float = CUT) -> list[int]:
    """The frames with which another scene begins.

    Args:
        changes: how much each frame changes from the one before, in percent.
        least: how much more such a frame changes than those around it; it also changes at least
            twice as much.
    """
    # The first has nothing before it, so that the second has one neighbour.
    own = np.asarray(changes, np.float64)[1:]
    if len(own) < 2:
        return []
    around = np.maximum(np.append(own[1:], 0), np.append(0, own[:-1]))
    stands_out = (own - around >= least) & (own >= _TIMES_NEIGHBOURS * around)
    return [int(number) + 1 for number in np.flatnonzero(stands_out)]


def _container(path: Path) -> str | None:
    try:
        with open_plain(path) as file:
            return video_container(file.read(16))
    except OSError:
        # Whatever it is, opening it as a clip explains it.
        return None


def frames_at(
    path: Path,
    numbers: Sequence[int],
    keep: Callable[[Pixels], Kept],
    opened: Callable[[Path], Clip] = open_clip,
) -> dict[int, Kept]:
    """Decode some frames of a clip of any length.

    Args:
        path: of the clip.
        numbers: in ascending order, at least one.
        keep: what to keep of a frame, uint8 `[height, width, 3]`.
        opened: opens what is no video.

    Returns:
        What is kept of them, by number.

    Raises:
        HotshotError: it cannot be read, or has no such frame.
    """
    container = _container(path)
    if container is None:
        decoded = opened(path).frames(numbers)
        return dict(zip(numbers, map(keep, decoded), strict=True))
    arguments = [
        *_source(path, container),
        *["-map", "0:V:0", "-vf", f"{selection(numbers)},{SQUARE_PIXELS}"],
        *[*_PASSING, "-frames:v", str(len(numbers)), *_PICTURES],
    ]
    frames: list[Kept] = []
    with tempfile.TemporaryDirectory() as folder:
        _stream(path, arguments, lambda stream: frames.extend(map(keep, _pictures(stream))), folder)
    if len(frames) != len(numbers):
        raise HotshotError(f"{path} is damaged: not all of its frames can be decoded.")
    return dict(zip(numbers, frames, strict=True))


_PASSING: Final = ("-fps_mode", "passthrough")
_PICTURES: Final = ("-c:v", "ppm", "-pix_fmt", "rgb24", "-f", "image2pipe", "pipe:1")


def _look_through_video(
    path: Path,
    container: str,
    wanted: Wanted,
    keep: Callable[[Pixels], Kept],
) -> Seen[Kept]:
    header = read_header(path, container)
    numbers: Sequence[int] | None = None
    frame_bytes = 0 if header is None else 3 * header.width * header.height
    if header is not None and frame_bytes * header.frames > _WHOLE_BYTES:
        # The first at any rate: where the header is wrong, ffmpeg fails without any frame.
        numbers = sorted({0, *wanted([header.frame_ms] * header.frames, frame_bytes)})
    picked = SQUARE_PIXELS if numbers is None else f"{selection(numbers)},{SQUARE_PIXELS}"
    # Looking at a copy, so that what is kept is not converted for it.
    graph = (
        f"[0:V:0]split[a][b];[b]{picked}[frames];[a]scdet,metadata=mode=print:"
        "key=lavfi.scd.mafd:file=changes,scale=w=round(iw*sar):h=ih,setsar=1[all]"
    )
    limit = ["-fs", str(_WHOLE_BYTES)] if numbers is None else []
    arguments = [
        *_source(path, container),
        *["-filter_complex", graph],
        *["-map", "[all]", *_PASSING, "-c:v", "wrapped_avframe", "-f", "framecrc", "times"],
        *["-map", "[frames]", *_PASSING, *limit, *_PICTURES],
    ]
    kept: dict[int, Kept | Pixels] = {}

    def read(stream: IO[bytes]) -> None:
        if numbers is None:
            kept.update(enumerate(_pictures(stream)))
        else:
            kept.update(zip(numbers, map(keep, _pictures(stream)), strict=False))

    with tempfile.TemporaryDirectory() as folder:
        _stream(path, arguments, read, folder)
        width, height, durations = frame_times(_written(folder, "times"))
        lines = _written(folder, "changes").splitlines()
    if not durations:
        raise HotshotError(f"{path} has a video track without a frame in it.")
    ReadLimits().check_size(path, width, height)
    changes = [float(line.partition("=")[2]) for line in lines if "scd.mafd" in line]
    # Of frames whose size changes there is none.
    changes += [0.0] * (len(durations) - len(changes))
    return Seen(width, height, durations, np.array(changes, np.float32), kept)


def _source(path: Path, container: str) -> list[str]:
    # One thread a filter, since pieces for several may be computed with other roundings.
    threads = ["-filter_threads", "1", "-filter_complex_threads", "1", "-threads", "2"]
    return [*threads, *source_arguments(path, container)]


def _stream(
    path: Path, arguments: list[str], read: Callable[[IO[bytes]], object], folder: str
) -> None:
    try:
        stream_ffmpeg(arguments, read, subject=str(path), folder=folder)
    except FfmpegError as error:
        raise explained(error, path) from error


def _pictures(stream: IO[bytes]) -> Iterator[Pixels]:
    """Frames as ffmpeg writes them one after the other, uint8 `[height, width, 3]`."""
    while first := stream.readline():
        header = _PPM.fullmatch(first + stream.readline() + stream.readline())
        if header is None:
            return
        width, height = int(header[1]), int(header[2])
        frame = np.empty((height, width, 3), np.uint8)
        if stream.readinto(frame.reshape(-1).data) != frame.size:  # type: ignore[attr-defined]
            return
        yield frame


def _written(folder: str, name: str) -> str:
    with open_plain(Path(folder, name)) as file:
        return file.read().decode()
