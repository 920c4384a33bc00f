"""What a data set is built from: folders of frames, video files, or drawn shapes.

An origin lists its items first, cheaply, and turns each into clips later, so that the items can be
handed to many machines.
"""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from hotshot_jax.data.clip_source import picture_bytes
from hotshot_jax.data.folders import (
    PROMPT_FILE,
    check_sample,
    decode_prompt,
    picture_files,
    read_prompt,
    sample_names,
)
from hotshot_jax.data.left_out import HIDDEN, VIDEO_ENDINGS, LeftOut, Tally, kind_of_file, listed
from hotshot_jax.data.shapes import ShapesSource
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.files.parsed import parse_json
from hotshot_jax.media.reading.key_frames import estimated_frame_duration, key_frame_indices
from hotshot_jax.media.reading.read import natural_order, open_clip

METADATA_FILE: Final = "metadata.jsonl"

PictureFormat = Literal["png", "jpeg"]

_UNUSED_LINES: Final = f"lines of {METADATA_FILE} whose video is not there"
_REPLACED_LINES: Final = f"lines of {METADATA_FILE} in whose place a .txt or a later line is taken"
_LINKS: Final = "links to folders, which are not followed"
_UNREADABLE: Final = "folders that cannot be read"

_PROMPT_KEYS: Final = ("prompt", "text", "caption")


@dataclass(frozen=True)
class ClipRecord:
    """A clip as it is stored.

    Attributes:
        name: of its folder or file, for messages.
        prompt: the text that describes it.
        pictures: its frames, encoded.
        width: of the frames in pixels.
        height: of the frames in pixels.
    """

    name: str
    prompt: str
    pictures: tuple[bytes, ...]
    width: int
    height: int


class Origin(Protocol):
    """Where clips come from. Pickled when it is sent to other machines."""

    def items(self) -> Sequence[str]:
        """Names of the samples, files or whatever clips are made of, in their order.

        Raises:
            UsageError: there are none.
        """
        ...

    def left_out(self) -> tuple[LeftOut, ...]:
        """What lies there and no clip is made of."""
        ...

    def clips(self, item: str) -> list[ClipRecord]:
        """The clips of an item.

        Raises:
            HotshotError: it is broken; one line for each reason.
        """
        ...


@dataclass(frozen=True)
class FolderOrigin:
    """Folders SAMPLE/0.jpg … and SAMPLE/prompt.txt; pictures are taken over byte for byte.

    Attributes:
        root: the folder of samples.
        frames: that a sample must have at least.
    """

    root: Path
    frames: int = 8

    def items(self) -> Sequence[str]:
        """As `Origin.items`."""
        return sample_names(self.root)[0]

    def left_out(self) -> tuple[LeftOut, ...]:
        """As `Origin.left_out`."""
        return sample_names(self.root)[1]

    def clips(self, item: str) -> list[ClipRecord]:
        """As `Origin.clips`."""
        (width, height, _), messages = check_sample(self.root, item, self.frames, decode=True)
        if messages:
            raise HotshotError("\n".join(messages))
        folder = self.root / item
        pictures = tuple(picture_bytes(file, str(file)) for file in picture_files(folder))
        return [ClipRecord(item, read_prompt(folder, item), pictures, width, height)]


@dataclass(frozen=True)
class VideoOrigin:
    """Video files, each with its prompt in a `.txt` of the same name or in `metadata.jsonl`.

    A line of `metadata.jsonl` is an object with `file_name` and `prompt` (or `text`, `caption`).
    Key frames are chosen as the reference chooses them from a GIF: at a constant stride, around the
    middle of the stretch, spanning the duration as closely as frames allow.

    Attributes:
        root: the folder of videos, searched at any depth.
        frames: key frames a clip.
        duration_ms: that they span.
        clips_per_video: at most so many clips of each video, from equal stretches that each last
            at least the duration.
        picture_format: `png` keeps pixels exactly, `jpeg` (quality 95) is smaller.
    """

    root: Path
    frames: int = 8
    duration_ms: float = 1000.0
    clips_per_video: int = 1
    picture_format: PictureFormat = "png"

    def items(self) -> Sequence[str]:
        """As `Origin.items`."""
        videos, _ = walk_videos(self.root)
        if not videos:
            raise UsageError(
                f"{self.root} holds no videos; expected {', '.join(VIDEO_ENDINGS)} files, "
                f"each with its prompt in a .txt of the same name or in {METADATA_FILE}."
                f"{listed(self.left_out())}"
            )
        read_metadata(self.root)
        return videos

    def left_out(self) -> tuple[LeftOut, ...]:
        """As `Origin.left_out`."""
        tally = Tally()
        videos, others = walk_videos(self.root)
        found = set(videos)
        texts = {os.path.splitext(video)[0] + ".txt" for video in videos}
        for kind, name in others:
            if name != METADATA_FILE and name not in texts:
                tally.add(kind, name)
        last = {name: number for number, (name, _) in enumerate(_metadata_lines(self.root))}
        for number, (name, _) in enumerate(_metadata_lines(self.root)):
            if name not in found:
                tally.add(_UNUSED_LINES, name)
            elif number != last[name] or (self.root / name).with_suffix(".txt").exists():
                tally.add(_REPLACED_LINES, name)
        return tally.left_out()

    def clips(self, item: str) -> list[ClipRecord]:
        """As `Origin.clips`."""
        path = self.root / item
        prompt = self._prompt(path, item)
        try:
            clip = open_clip(path)
            available = len(clip.durations_ms)
            if available < self.frames:
                raise HotshotError(f"{item}: has {available} frames, but {self.frames} are needed")
            records = []
            stretches = self._stretches(clip.durations_ms)
            for number, stretch in enumerate(stretches):
                durations = clip.durations_ms[stretch.start : stretch.stop]
                chosen = key_frame_indices(durations, self.frames, self.duration_ms)
                pixels = clip.frames([stretch.start + index for index in chosen])
                pictures = tuple(encode(frame, self.picture_format) for frame in pixels)
                name = item if len(stretches) == 1 else f"{item}#{number}"
                records.append(ClipRecord(name, prompt, pictures, clip.width, clip.height))
            return records
        except HotshotError as error:
            # Messages of the media room end in a full stop and name the file by its path.
            raise HotshotError(str(error).replace(str(path), item).rstrip(".")) from error

    def _stretches(self, durations_ms: Sequence[float]) -> list[range]:
        """Equal parts of a video, each long enough for a clip."""
        count = len(durations_ms)
        total_ms = count * estimated_frame_duration(durations_ms)
        fitting = min(int(total_ms / self.duration_ms), count // self.frames)
        parts = max(1, min(self.clips_per_video, fitting))
        ends = [count * part // parts for part in range(parts + 1)]
        return [range(start, end) for start, end in pairwise(ends)]

    def _prompt(self, path: Path, item: str) -> str:
        text_file = path.with_suffix(".txt")
        if text_file.exists():
            label = os.path.relpath(text_file, self.root)
            return decode_prompt(picture_bytes(text_file, label), label)
        prompts = read_metadata(self.root)
        if item in prompts:
            return prompts[item]
        raise HotshotError(
            f"{item}: has no prompt; expected {text_file.name} beside it "
            f"or a line for it in {METADATA_FILE}"
        )


@dataclass(frozen=True)
class ShapesOrigin:
    """Clips of `ShapesSource`, as PNGs."""

    source: ShapesSource

    def items(self) -> Sequence[str]:
        """As `Origin.items`."""
        return [str(index) for index in range(len(self.source))]

    def left_out(self) -> tuple[LeftOut, ...]:
        """As `Origin.left_out`: nothing."""
        return ()

    def clips(self, item: str) -> list[ClipRecord]:
        """As `Origin.clips`."""
        sample = self.source[int(item)]
        frames: npt.NDArray[np.uint8] = sample["frames"]
        pictures = tuple(encode(frame, "png") for frame in frames)
        return [
            ClipRecord(
                f"shape {item}", sample["prompt"], pictures, frames.shape[2], frames.shape[1]
            )
        ]


def find_origin(
    root: Path,
    frames: int = 8,
    duration_ms: float = 1000.0,
    clips_per_video: int = 1,
    picture_format: PictureFormat = "png",
) -> FolderOrigin | VideoOrigin:
    """Tell folders of frames from video files by what lies in a folder.

    Raises:
        UsageError: the folder is missing, or holds neither, or both.
    """
    if not root.is_dir():
        state = "is not a folder" if root.exists() else "does not exist"
        raise UsageError(f"`source` {root} {state}.")
    videos = VideoOrigin(root, frames, duration_ms, clips_per_video, picture_format)
    folders = FolderOrigin(root, frames)
    if not holds_videos(root):
        return folders
    if holds_prompt_files(root):
        raise UsageError(
            f"`source` {root} holds both videos and folders of frames; say which by `kind`."
        )
    return videos


def encode(pixels: npt.NDArray[np.uint8], picture_format: PictureFormat) -> bytes:
    """Encode a frame, uint8 [height, width, 3]."""
    file = io.BytesIO()
    options: dict[str, Any] = (
        {"compress_level": 3} if picture_format == "png" else {"quality": 95, "subsampling": 0}
    )
    Image.fromarray(pixels).save(file, picture_format, **options)
    return file.getvalue()


def read_metadata(root: Path) -> dict[str, str]:
    """The prompts in `metadata.jsonl` by file name, relative to the folder; none if it is missing.

    Raises:
        HotshotError: a line is no object with `file_name` and a prompt; it names the line.
    """
    return dict(_metadata_lines(root))


def _metadata_lines(root: Path) -> Sequence[tuple[str, str]]:
    """(file name, prompt) of each line, in their order."""
    path = root / METADATA_FILE
    return _parse_metadata(path, path.stat().st_mtime_ns) if path.exists() else ()


@lru_cache(maxsize=2)
def _parse_metadata(path: Path, modified: int) -> Sequence[tuple[str, str]]:
    prompts: list[tuple[str, str]] = []
    for number, line in enumerate(picture_bytes(path, METADATA_FILE).split(b"\n"), 1):
        if not line.strip():
            continue
        label = f"{METADATA_FILE} line {number}"
        try:
            entry = parse_json(line.decode("utf-8-sig"))
            name = os.path.normpath(entry["file_name"])
            prompt = next(entry[key] for key in _PROMPT_KEYS if isinstance(entry.get(key), str))
        except (ValueError, TypeError, KeyError, AttributeError, StopIteration) as error:
            raise HotshotError(
                f'{label}: expected {{"file_name": "clip.mp4", "prompt": "..."}}'
            ) from error
        prompts.append((name, decode_prompt(prompt.encode(errors="surrogatepass"), label)))
    return prompts


def walk_videos(root: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """All videos under a folder, in natural order, and (kind, name) of all else.

    Names are relative to the folder.
    """
    videos: list[str] = []
    others: list[tuple[str, str]] = []

    def unreadable(error: OSError) -> None:
        others.append((_UNREADABLE, os.path.relpath(error.filename, root)))

    for folder, folders, files in os.walk(root, onerror=unreadable):
        where = os.path.relpath(folder, root)
        inner = set(folders)
        for name in sorted([*folders, *files]):
            path = os.path.normpath(os.path.join(where, name))
            if name.startswith("."):
                others.append((HIDDEN, path))
            elif name in inner:
                if os.path.islink(os.path.join(folder, name)):
                    others.append((_LINKS, path))
            elif name.lower().endswith(VIDEO_ENDINGS):
                videos.append(path)
            else:
                others.append((kind_of_file(name, VIDEO_ENDINGS), path))
        folders[:] = [name for name in folders if not name.startswith(".")]
    return sorted(videos, key=lambda video: (natural_order(Path(video)), video)), others


def holds_videos(root: Path) -> bool:
    """Whether a video lies anywhere under a folder."""
    return bool(walk_videos(root)[0])


def holds_prompt_files(root: Path) -> bool:
    """Whether a sample's prompt lies anywhere under a folder."""
    return any(PROMPT_FILE in names for _, _, names in os.walk(root))
