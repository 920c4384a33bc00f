"""What a data set is built from: folders of frames, video files, or drawn shapes.

An origin lists its items first, cheaply, and turns each into clips later, so that the items can be
handed to many machines.
"""

import io
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise, product
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from hotshot_jax.data.building.cut_free import moves, near_moves
from hotshot_jax.data.building.findings import (
    CUT_CLIPS,
    CUTS,
    FEW_FRAMES,
    SHORT,
    signature,
    thumbnail,
)
from hotshot_jax.data.building.video_files import VideoFiles, is_video
from hotshot_jax.data.captions import METADATA
from hotshot_jax.data.clip_source import picture_bytes
from hotshot_jax.data.folder_prompts import prompt_files, read_prompt
from hotshot_jax.data.folders import FolderNames, check_sample, picture_files, sample_names
from hotshot_jax.data.left_out import VIDEO_ENDINGS, LeftOut, listed
from hotshot_jax.data.shapes import ShapesSource
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.media.reading.key_frames import estimated_frame_duration, key_frame_indices
from hotshot_jax.media.reading.one_pass import (
    CUT,
    cuts,
    frames_at,
    look_through,
    measured_changes,
)
from hotshot_jax.media.reading.read import open_clip

PictureFormat = Literal["png", "jpeg"]

# A frame, encoded, and its part of a signature.
_Finished = tuple[bytes, npt.NDArray[np.uint8]]

_WAITING_BYTES: Final = 256_000_000
# Times the duration that is asked for.
_TOO_LONG: Final = 1.25


@dataclass(frozen=True)
class ClipRecord:
    """A clip as it is stored.

    Attributes:
        name: of its folder or file, for messages.
        prompt: the text that describes it.
        pictures: its frames, encoded.
        width: of the frames in pixels.
        height: of the frames in pixels.
        remarks: what training may learn wrongly: kinds, each with the name to be told.
        signature: by which clips are compared, see `findings`; None for a clip that is not.
        fps: frames a second; 0 where it is not known.
    """

    name: str
    prompt: str
    pictures: tuple[bytes, ...]
    width: int
    height: int
    remarks: tuple[tuple[str, str], ...] = ()
    signature: npt.NDArray[np.uint8] | None = None
    fps: float = 0.0


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
        frames: list[npt.NDArray[np.uint8]] = []
        (width, height, _), messages = check_sample(
            self.root, item, self.frames, True, rows, frames.append
        )
        if messages:
            raise HotshotError("\n".join(messages))
        folder = self.root / item
        pictures = tuple(picture_bytes(file, str(file)) for file in picture_files(folder))
        remarks = ((CUT_CLIPS, item),) if cuts(measured_changes(frames)) else ()
        prompt = read_prompt(folder, item, rows)
        return [ClipRecord(item, prompt, pictures, width, height, remarks, signature(frames))]


@dataclass(frozen=True)
class VideoOrigin:
    """Video files, each with its prompt in a file beside it or in a table; see `captions`.

    Key frames are chosen as the reference chooses them from a GIF: at a constant stride, around the
    middle of the stretch, spanning the duration as closely as frames allow. Where another scene
    begins between them, they are moved as little as that takes; in a stretch of short scenes they
    are chosen from the longest one.

    Attributes:
        root: the folder of videos, searched at any depth.
        frames: key frames a clip.
        duration_ms: that they span.
        clips_per_video: at most so many clips of each video, from equal stretches that each last
            at least the duration.
        picture_format: `png` keeps pixels exactly, `jpeg` (quality 95) is smaller.
        cut_threshold: how much more than its neighbours a frame changes that begins another
            scene, in percent of brightness; see `one_pass`.
    """

    root: Path
    frames: int = 8
    duration_ms: float = 1000.0
    clips_per_video: int = 1
    picture_format: PictureFormat = "png"
    cut_threshold: float = CUT

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

        def finish(pixels: npt.NDArray[np.uint8]) -> _Finished:
            return encode(pixels, self.picture_format), thumbnail(pixels)

        waiting = False

        def wanted(durations_ms: Sequence[float], frame_bytes: int) -> list[int]:
            nonlocal waiting
            if len(durations_ms) < self.frames:
                return []
            clips = self._clips_of(durations_ms, [])
            # Places that they may be moved to, as long as the pixels of all fit into memory.
            near = [
                index + move
                for clip, stretch in zip(clips, self._stretches(durations_ms), strict=True)
                for index, move in product(clip, near_moves(clip))
                if index + move in stretch
            ]
            waiting = len(near) * frame_bytes <= _WAITING_BYTES
            return near if waiting else list(chain(*clips))

        def keep(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | _Finished:
            return pixels if waiting else finish(pixels)

        try:
            # By its name in this module, which tests give another meaning.
            seen = look_through(path, wanted, keep, lambda path: open_clip(path))
            durations = seen.durations_ms
            if len(durations) < self.frames:
                raise HotshotError(
                    f"{item}: has {len(durations)} frames, but {self.frames} are needed"
                )
            found = cuts(seen.changes, self.cut_threshold)
            clips = self._clips_of(durations, found)
            if not any(clips):
                raise HotshotError(
                    f"{item}: none of its scenes has {self.frames} frames; another begins at "
                    f"{_times(durations, found)}"
                )
            kept: dict[int, npt.NDArray[np.uint8] | _Finished] = seen.kept
            if missing := sorted(set(chain(*clips)) - kept.keys()):
                kept = kept | frames_at(path, missing, finish, lambda path: open_clip(path))
        except HotshotError as error:
            # Messages of the media room end in a full stop and name the file by its path.
            raise HotshotError(str(error).replace(str(path), item).rstrip(".")) from error
        remarks = tuple(self._remarks(item, durations, found, clips))
        records = []
        for number, chosen in enumerate(clips):
            if chosen:
                frames = [kept[index] for index in chosen]
                made = [each if isinstance(each, tuple) else finish(each) for each in frames]
                name = item if len(clips) == 1 else f"{item}#{number}"
                pictures = tuple(picture for picture, _ in made)
                compared = np.concatenate([made[i][1] for i in (0, len(made) // 2, -1)])
                size = seen.width, seen.height
                stride = (chosen[-1] - chosen[0]) / max(1, len(chosen) - 1) or 1
                fps = 1000 / (estimated_frame_duration(durations) * stride)
                records.append(ClipRecord(name, prompt, pictures, *size, remarks, compared, fps))
                # Of the video, told once.
                remarks = ()
        return records

    def _clips_of(self, durations_ms: Sequence[float], cuts: Sequence[int]) -> list[list[int]]:
        """The key frames of the clip of each stretch; none where no scene of it is long enough."""
        return [
            self._chosen(durations_ms, stretch, cuts) for stretch in self._stretches(durations_ms)
        ]

    def _chosen(
        self, durations_ms: Sequence[float], stretch: range, cuts: Sequence[int]
    ) -> list[int]:
        indices = key_frame_indices(
            durations_ms[stretch.start : stretch.stop], self.frames, self.duration_ms
        )
        chosen = [stretch.start + index for index in indices]
        for move in moves(chosen, stretch):
            first, last = chosen[0] + move, chosen[-1] + move
            if bisect_right(cuts, first) == bisect_right(cuts, last):
                return [index + move for index in chosen]
        edges = [stretch.start, *(cut for cut in cuts if cut in stretch[1:]), stretch.stop]
        longest = max((range(*edge) for edge in pairwise(edges)), key=len)
        return self._chosen(durations_ms, longest, ()) if len(longest) >= self.frames else []

    def _remarks(
        self,
        item: str,
        durations_ms: Sequence[float],
        cuts: Sequence[int],
        clips: Sequence[Sequence[int]],
    ) -> Iterator[tuple[str, str]]:
        if cuts:
            yield CUTS, f"{item} at {_times(durations_ms, cuts)}"
        frame_ms = estimated_frame_duration(durations_ms)
        first = next(chosen for chosen in clips if chosen)
        lasts_ms = (first[-1] - first[0]) * frame_ms
        told = f"{item}: {self.frames} frames in {lasts_ms:.0f} ms"
        if lasts_ms > _TOO_LONG * self.duration_ms:
            yield FEW_FRAMES, told
        elif lasts_ms < self.duration_ms / 2 and self.frames > 1:
            yield SHORT, told

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
        size = frames.shape[2], frames.shape[1]
        # A clip lasts a second, however many frames it has.
        fps = float(len(frames))
        return [ClipRecord(f"shape {item}", sample["prompt"], pictures, *size, fps=fps)]


def find_origin(
    root: Path,
    frames: int = 8,
    duration_ms: float = 1000.0,
    clips_per_video: int = 1,
    picture_format: PictureFormat = "png",
    cut_threshold: float = CUT,
) -> FolderOrigin | VideoOrigin:
    """Tell folders of frames from video files by what lies in a folder.

    Raises:
        UsageError: the folder is missing, or holds neither, or both.
    """
    if not root.is_dir():
        state = "is not a folder" if root.exists() else "does not exist"
        raise UsageError(f"`source` {root} {state}.")
    videos = VideoOrigin(root, frames, duration_ms, clips_per_video, picture_format, cut_threshold)
    folders = FolderOrigin(root, frames)
    if not holds_videos(root):
        return folders
    if holds_prompt_files(root):
        raise UsageError(
            f"`source` {root} holds both videos and folders of frames; say which by `kind`."
        )
    return videos


def _times(durations_ms: Sequence[float], frames: Sequence[int], most: int = 3) -> str:
    starts = np.cumsum([0, *durations_ms]) / 1000
    told = ", ".join(f"{starts[frame]:.2f}" for frame in frames[:most])
    return f"{told}{', …' if len(frames) > most else ''} seconds"


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
