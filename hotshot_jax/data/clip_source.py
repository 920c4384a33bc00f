"""What every source of training clips offers, wherever its clips lie."""

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from hotshot_jax.data.pictures import EncodedPicture, picture_bytes, read_picture
from hotshot_jax.errors import HotshotError

OnBadSample = Literal["error", "skip"]

# Six bytes a clip: all that the loader must know of it beforehand.
CLIP_DTYPE: Final = np.dtype([("width", "<u2"), ("height", "<u2"), ("frames", "<u2")])

ClipTable = npt.NDArray[np.void]
"""[samples] of `CLIP_DTYPE`."""


@dataclass(frozen=True)
class EncodedClip:
    """A clip whose frames are decoded one by one, only those that are needed.

    Attributes:
        name: what messages call it: a folder, or a record of a data set.
        prompt: the text that describes it.
        pictures: its frames in their order.
        picture_names: what messages call each frame.
    """

    name: str
    prompt: str
    pictures: Sequence[EncodedPicture]
    picture_names: Sequence[str]

    def frame(self, index: int) -> npt.NDArray[np.uint8]:
        """Decode a frame to uint8 RGB [height, width, 3].

        Raises:
            HotshotError: it is empty, damaged or no picture.
        """
        return read_picture(self.pictures[index], self.picture_names[index])

    def digest(self, indices: Iterable[int]) -> str:
        """A hash of the prompt and of what is stored of some frames, in hexadecimal.

        It changes when a file does, so that what was computed from the clip can be kept under it.

        Raises:
            HotshotError: a frame cannot be read.
        """
        digest = hashlib.sha256(self.prompt.encode())
        for index in indices:
            data = picture_bytes(self.pictures[index], self.picture_names[index])
            digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()


class ClipSource(Protocol):
    """Random access to clips. Threads may call it at the same time."""

    @property
    def table(self) -> ClipTable:
        """Size and number of frames of each clip, without opening any."""
        ...

    def __len__(self) -> int:
        """The number of clips."""
        ...

    def __getitem__(self, index: int) -> EncodedClip:
        """Open a clip.

        Raises:
            HotshotError: it is gone or cannot be read.
        """
        ...


@dataclass(frozen=True)
class Problem:
    """Why a sample cannot be used.

    Attributes:
        sample: name of the sample.
        message: the file, what is wrong with it and what was expected.
    """

    sample: str
    message: str


def refuse_or_skip(
    problems: Sequence[Problem], total: int, where: str, on_bad_sample: OnBadSample
) -> None:
    """Tell all problems of a data set at once, unless bad samples are to be skipped.

    Args:
        problems: of all samples.
        total: number of samples, good and bad.
        where: the data set, as the user named it.
        on_bad_sample: `skip` accepts any number of problems but not that no sample is left.

    Raises:
        HotshotError: there are problems and they are not to be skipped, or no good sample is left.
    """
    bad = len({problem.sample for problem in problems})
    if not problems or (on_bad_sample == "skip" and bad < total):
        return
    lines = [f"{where}: {bad} of {total} samples cannot be used."]
    lines += [f"  {problem.message}" for problem in problems]
    if bad < total:
        lines.append("Repair or remove them, or train without them by `on_bad_sample` skip.")
    else:
        lines.append("No sample is left to train on.")
    raise HotshotError("\n".join(lines))


def clip_table(widths: npt.ArrayLike, heights: npt.ArrayLike, frames: npt.ArrayLike) -> ClipTable:
    """Make a table of clips from three arrays [samples]."""
    columns = [np.asarray(column) for column in (widths, heights, frames)]
    table = np.empty(len(columns[0]), CLIP_DTYPE)
    for name, column in zip(("width", "height", "frames"), columns, strict=True):
        table[name] = np.minimum(column, np.iinfo(np.uint16).max)
    return table


def table_fingerprint(table: ClipTable) -> int:
    """A number that tells data sets apart by the sizes and order of their clips.

    It takes one pass over six bytes a clip, so that a resumed run can afford it.
    """
    return zlib.crc32(np.ascontiguousarray(table).view(np.uint8).data, len(table))
