"""What lies among training data and is not read: told by kind, with a count and the first names."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hotshot_jax.data.captions import TEXT_ENDINGS
from hotshot_jax.data.clip_source import PICTURE_ENDINGS

VIDEO_ENDINGS: Final = (".mp4", ".gif", ".webm", ".mov", ".mkv", ".avi", ".m4v", ".webp")
"""Of the videos that data sets are built from; a .webp is one if it is animated."""

_OTHER_VIDEOS: Final = frozenset(".mpg .mpeg .m2ts .mts .ts .wmv .flv .ogv .3gp .apng".split())
_OTHER_PICTURES: Final = frozenset(
    ".bmp .tif .tiff .avif .heic .heif .jxl .jp2 .jpe .jfif .tga .exr .hdr .svg .ico .psd".split()
)
_FIRST: Final = 3

HIDDEN: Final = "hidden files and folders"
SEEN_BEFORE: Final = "links to folders that are read already"


@dataclass(frozen=True)
class LeftOut:
    """What was left out, of one kind.

    Attributes:
        kind: what it is and why it is not read, in the plural.
        count: how many there are.
        names: the first of them, relative to the data folder.
    """

    kind: str
    count: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        more = ", …" if self.count > len(self.names) else ""
        return f"{self.kind}: {self.count} ({', '.join(self.names)}{more})"


class Tally:
    """Counts what is left out. It keeps the first names only, since there may be a million."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}

    def add(self, kind: str, name: str) -> None:
        """One more of a kind."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        names = self._names.setdefault(kind, [])
        if len(names) < _FIRST:
            names.append(name)

    def left_out(self) -> tuple[LeftOut, ...]:
        """All kinds, in the order in which they were first met."""
        return tuple(
            LeftOut(kind, count, tuple(self._names[kind])) for kind, count in self._counts.items()
        )


def listed(left_out: Sequence[LeftOut]) -> str:
    """All kinds in one sentence that ends a message; empty if nothing was left out."""
    return f" Not read: {'; '.join(map(str, left_out))}." if left_out else ""


def kind_of_file(name: str, read: Collection[str]) -> str:
    """What a file is that is not read.

    Args:
        name: of the file.
        read: endings of the files that data of this form are made of.
    """
    if name.startswith("."):
        return HIDDEN
    ending = Path(name).suffix.lower()
    if ending in _OTHER_VIDEOS:
        return f"videos in a format that is not read ({_enumerated(VIDEO_ENDINGS)} are)"
    if ending in _OTHER_PICTURES:
        return f"pictures in a format that is not read ({_enumerated(PICTURE_ENDINGS)} are)"
    if ending in VIDEO_ENDINGS and ending not in read:
        return "videos among folders of frames"
    if ending in PICTURE_ENDINGS:
        return "pictures among videos"
    if ending in TEXT_ENDINGS:
        return "text files that no clip has as its prompt"
    return "other files"


def _enumerated(endings: Collection[str]) -> str:
    *first, last = endings
    return f"{', '.join(first)} and {last}"
