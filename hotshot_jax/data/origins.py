"""What a data set is built from: folders of frames, video files, or drawn shapes.

An origin lists its items first, cheaply, and turns each into clips later, so that the items can be
handed to many machines.
"""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from hotshot_jax.data.captions import METADATA
from hotshot_jax.data.clip_source import picture_bytes
from hotshot_jax.data.folders import (
    FolderNames,
    check_sample,
    picture_files,
    prompt_files,
    read_prompt,
    sample_names,
)
from hotshot_jax.data.left_out import VIDEO_ENDINGS, LeftOut, listed
from hotshot_jax.data.shapes import ShapesSource
from hotshot_jax.data.video_files import VideoFiles, is_video
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.media.reading.key_frames import estimated_frame_duration, key_frame_indices
from hotshot_jax.media.reading.read import open_clip

PictureFormat = Literal["png", "jpeg"]


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
    """Folders of frames, each with its prompt; pictures are taken over byte for byte.

    Attributes:
        root: the folder of samples.
        frames: that a sample must have at least.
    """

    root: Path
    frames: int = 8

    def items(self) -> Sequence[str]:
        """As `Origin.items`."""
        return self._found.names

    def left_out(self) -> tuple[LeftOut, ...]:
        """As `Origin.left_out`."""
        return self._found.left_out

    @cached_property
    def _found(self) -> FolderNames:
        return sample_names(self.root)

    def clips(self, item: str) -> list[ClipRecord]:
        """As `Origin.clips`."""
        rows = self._found.rows.get(item, ())
        (width, height, _), messages = check_sample(self.root, item, self.frames, True, rows)
        if messages:
            raise HotshotError("\n".join(messages))
        folder = self.root / item
        pictures = tuple(picture_bytes(file, str(file)) for file in picture_files(folder))
        return [ClipRecord(item, read_prompt(folder, item, rows), pictures, width, height)]


@dataclass(frozen=True)
class VideoOrigin:
    """Video files, each with its prompt in a file beside it or in a table; see `captions`.

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
        if not self._files.names:
            raise UsageError(
                f"{self.root} holds no videos; expected {', '.join(VIDEO_ENDINGS)} files, "
                f"each with its prompt in a .txt of the same name or in {METADATA}.jsonl."
                f"{listed(self.left_out())}"
            )
        return self._files.names

    def left_out(self) -> tuple[LeftOut, ...]:
        """As `Origin.left_out`."""
        return self._files.left_out

    @cached_property
    def _files(self) -> VideoFiles:
        return VideoFiles.under(self.root)

    def clips(self, item: str) -> list[ClipRecord]:
        """As `Origin.clips`."""
        path = self.root / item
        prompt = self._files.prompt(item)
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


def holds_videos(root: Path) -> bool:
    """Whether a video lies anywhere under a folder."""
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if not name.startswith(".")]
        if any(is_video(os.path.join(folder, n)) for n in names if not n.startswith(".")):
            return True
    return False


def holds_prompt_files(root: Path) -> bool:
    """Whether a sample's prompt lies anywhere under a folder."""
    return any(prompt_files(names) for _, _, names in os.walk(root))
