"""What the header of a video says of its length, read without decoding anything.

It is a guess: headers may be absent, cut short or wrong; nothing but speed may depend on it.
Sources: ISO/IEC 14496-12 (MP4 and QuickTime: mdhd, stts, stsd), RFC 9559 (Matroska and WebM: Info,
TrackEntry), Microsoft's AVI RIFF File Reference (avih).
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from hotshot_jax.files.plain_file import open_plain

# Some days; each costs some bytes of memory while clips are chosen.
_MOST_FRAMES: Final = 5_000_000
_MOST_BOXES: Final = 10_000
_MOST_TIMES: Final = 1 << 20
_BOXES_WITH_BOXES: Final = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
_SEGMENT, _INFO, _TRACKS, _ENTRY, _VIDEO = 0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0xE0
_SCALE, _DURATION, _FRAME_NS, _WIDTH, _HEIGHT = 0x2AD7B1, 0x4489, 0x23E383, 0xB0, 0xBA
_CLUSTER: Final = 0x1F43B675


@dataclass(frozen=True)
class VideoHeader:
    """What a header says.

    Attributes:
        width: of a frame in pixels.
        height: of a frame in pixels.
        frames: how many.
        frame_ms: how long each lasts, in milliseconds.
    """

    width: int
    height: int
    frames: int
    frame_ms: float


def read_header(path: Path, container: str) -> VideoHeader | None:
    """Read the header of a video.

    Args:
        path: of the video.
        container: as `video_container` names it.

    Returns:
        What it says; None where it does not say all of it.
    """
    read: Callable[[BinaryIO], VideoHeader | None] | None
    read = {"mov": _mov, "matroska": _matroska, "avi": _avi}.get(container)
    try:
        with open_plain(path) as file:
            header = read(file) if read else None
    except (OSError, ArithmeticError, LookupError, RecursionError, ValueError, struct.error):
        return None
    if header is None or min(header.width, header.height, header.frames) < 1:
        return None
    if header.frames > _MOST_FRAMES:
        return None
    return header if 0 < header.frame_ms < float("inf") else None


def _mov(file: BinaryIO) -> VideoHeader | None:
    facts: dict[str, int] = {}
    for name, start, size in _boxes(file, 0, 1 << 62, [_MOST_BOXES]):
        file.seek(start)
        if name == b"mdhd":
            # The first of a track.
            head, facts = file.read(24), {}
            facts["scale"] = struct.unpack_from(">I", head, 20 if head[0] else 12)[0]
        elif name == b"hdlr":
            # QuickTime has a second one for where the data are.
            facts.setdefault("video", file.read(12)[8:] == b"vide")
        elif name == b"stsd" and facts.get("video"):
            facts["width"], facts["height"] = struct.unpack_from(">HH", file.read(44), 40)
        elif name == b"stts" and facts.get("video"):
            count = min(struct.unpack(">4xI", file.read(8))[0], _MOST_TIMES, size // 8)
            entries = list(struct.iter_unpack(">II", file.read(8 * count)))
            frames = sum(number for number, _ in entries)
            if frames and facts.get("scale") and "width" in facts:
                last_ms = 1000 * entries[-1][1] / facts["scale"]
                return VideoHeader(facts["width"], facts["height"], frames, last_ms)
    return None


def _boxes(
    file: BinaryIO, start: int, end: int, left: list[int]
) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte and size of the content of each box, and of those inside some."""
    while start + 8 <= end and left[0] > 0:
        left[0] -= 1
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            return
        size, name = struct.unpack_from(">I4s", head)
        length = 8
        if size == 1:
            size, length = struct.unpack_from(">Q", head, 8)[0], 16
        if size < length:
            return
        if name in _BOXES_WITH_BOXES:
            yield from _boxes(file, start + length, min(end, start + size), left)
        else:
            yield name, start + length, size - length
        start += size


def _matroska(file: BinaryIO) -> VideoHeader | None:
    facts: dict[int, float] = {_SCALE: 1e6}
    for number, content in _elements(file, 0, 1 << 62, [_MOST_BOXES]):
        if number == _DURATION:
            facts[number] = struct.unpack(">d" if len(content) == 8 else ">f", content)[0]
        # Of the first track with a picture; those before it have no time of a frame.
        elif number in (_SCALE, _FRAME_NS, _WIDTH, _HEIGHT):
            facts.setdefault(number, 0)
            if number == _SCALE or not facts[number]:
                facts[number] = int.from_bytes(content)
    frame_ms = facts[_FRAME_NS] / 1e6 if _FRAME_NS in facts else 0
    if not frame_ms or not {_DURATION, _WIDTH, _HEIGHT} <= facts.keys():
        return None
    frames = round(facts[_DURATION] * facts[_SCALE] / 1e6 / frame_ms)
    return VideoHeader(int(facts[_WIDTH]), int(facts[_HEIGHT]), frames, frame_ms)


def _elements(file: BinaryIO, start: int, end: int, left: list[int]) -> Iterator[tuple[int, bytes]]:
    """Number and content of each short element before the first cluster."""
    while start < end and left[0] > 0:
        left[0] -= 1
        file.seek(start)
        number, first = _variable(file, keep_marker=True)
        size, second = _variable(file, keep_marker=False)
        if number == _CLUSTER:
            left[0] = 0
            return
        start += first + second
        # All ones: a segment whose size was not known.
        unknown = size == (1 << 7 * second) - 1
        inner_end = end if unknown else min(end, start + size)
        if number in (_SEGMENT, _INFO, _TRACKS, _ENTRY, _VIDEO):
            yield from _elements(file, start, inner_end, left)
        elif size <= 8:
            yield number, file.read(size)
        start = inner_end


def _variable(file: BinaryIO, *, keep_marker: bool) -> tuple[int, int]:
    """A number of variable length, and its length in bytes."""
    first = file.read(1)
    length = 9 - first[0].bit_length() if first and first[0] else 0
    rest = file.read(length - 1) if length else b""
    if not length or len(rest) != length - 1:
        raise ValueError("cut short")
    value = int.from_bytes(first + rest)
    return (value if keep_marker else value & (1 << 7 * length) - 1), length


def _avi(file: BinaryIO) -> VideoHeader | None:
    head = file.read(88)
    if head[24:28] != b"avih":
        return None
    microseconds, frames = struct.unpack_from("<I12xI", head, 32)
    width, height = struct.unpack_from("<II", head, 64)
    return VideoHeader(width, height, frames, microseconds / 1000)
