"""Which videos lie under a folder, and where the caption of each is."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hotshot_jax.data.captions import (
    METADATA,
    SIDECAR_ENDINGS,
    TABLE_ENDINGS,
    Row,
    check_caption,
    decode_sidecar,
    is_table,
    matched_rows,
    one_caption,
    read_table,
)
from hotshot_jax.data.clip_source import picture_bytes
from hotshot_jax.data.left_out import HIDDEN, VIDEO_ENDINGS, LeftOut, Tally, kind_of_file
from hotshot_jax.errors import HotshotError
from hotshot_jax.files.plain_file import open_plain
from hotshot_jax.media.reading.read import natural_order

UNUSED_ROWS: Final = "captions in tables whose clip is not there"
LINKS: Final = "links to folders, which are not followed"
UNREADABLE: Final = "folders that cannot be read"

_WEBP: Final = ".webp"


@dataclass(frozen=True)
class VideoFiles:
    """The videos under a folder.

    Attributes:
        root: the folder.
        names: of the videos, relative to it, in natural order.
        sidecars: files beside a video that hold its caption, by name of the video.
        rows: captions in tables, by name of the video.
        left_out: what lies there and is not read.
    """

    root: Path
    names: Sequence[str]
    sidecars: Mapping[str, Sequence[str]]
    rows: Mapping[str, Sequence[Row]]
    left_out: tuple[LeftOut, ...]

    @classmethod
    def under(cls, root: Path) -> "VideoFiles":
        """Look for them at any depth.

        Raises:
            HotshotError: a table of captions is none; it names the row.
        """
        videos, others = walk_videos(root)
        found = set(videos)
        counted = Counter(os.path.splitext(video)[0] for video in videos)
        stems = {os.path.splitext(v)[0]: v for v in videos}
        stems = {stem: video for stem, video in stems.items() if counted[stem] == 1}
        sidecars: dict[str, list[str]] = {}
        rows: dict[str, list[Row]] = {}
        tally = Tally()
        with_stem: dict[str, list[str]] = {}
        for video in videos:
            with_stem.setdefault(os.path.splitext(video)[0], []).append(video)
        for kind, name in others:
            stem, ending = os.path.splitext(name)
            if kind == HIDDEN:
                tally.add(kind, name)
            elif ending.lower() in SIDECAR_ENDINGS and stem in with_stem:
                for video in with_stem[stem]:
                    sidecars.setdefault(video, []).append(name)
            elif ending.lower() in TABLE_ENDINGS:
                table = _read_if_table(root / name, name)
                folder = os.path.dirname(name)
                matched, unused = matched_rows(table or (), folder, root, found, stems)
                if table is None or not (matched or is_table(name)):
                    tally.add(kind, name)
                    continue
                for video, its in matched.items():
                    rows.setdefault(video, []).extend(its)
                for row in unused:
                    tally.add(UNUSED_ROWS, f"{row.label}: {row.name}")
            else:
                tally.add(kind, name)
        return cls(root, tuple(videos), sidecars, rows, tally.left_out())

    def prompt(self, name: str) -> str:
        """The caption of a video.

        Raises:
            HotshotError: it has none or several, or it cannot be read.
        """
        files, rows = self.sidecars.get(name, ()), self.rows.get(name, ())
        one_caption(name, [*files, *(row.label for row in rows)])
        for file in files:
            return decode_sidecar(picture_bytes(self.root / file, file), file)
        for row in rows:
            return check_caption(row)
        stem = os.path.splitext(os.path.basename(name))[0]
        raise HotshotError(
            f"{name}: has no prompt; expected {stem}.txt beside it or a line for it in "
            f"{METADATA}.jsonl"
        )


def _read_if_table(path: Path, name: str) -> Sequence[Row] | None:
    """The rows of a table; None for a file of another form that need not be one."""
    try:
        return read_table(path, name)
    except HotshotError:
        if is_table(name):
            raise
        return None


def walk_videos(root: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """All videos under a folder, in natural order, and (kind, name) of all else.

    Names are relative to the folder.
    """
    videos: list[str] = []
    others: list[tuple[str, str]] = []

    def unreadable(error: OSError) -> None:
        others.append((UNREADABLE, os.path.relpath(error.filename, root)))

    for folder, folders, files in os.walk(root, onerror=unreadable):
        where = os.path.relpath(folder, root)
        inner = set(folders)
        for name in sorted([*folders, *files]):
            path = os.path.normpath(os.path.join(where, name))
            if name.startswith("."):
                others.append((HIDDEN, path))
            elif name in inner:
                if os.path.islink(os.path.join(folder, name)):
                    others.append((LINKS, path))
            elif is_video(os.path.join(folder, name)):
                videos.append(path)
            else:
                others.append((kind_of_file(name, VIDEO_ENDINGS), path))
        folders[:] = [name for name in folders if not name.startswith(".")]
    return sorted(videos, key=lambda video: (natural_order(Path(video)), video)), others


def is_video(path: str) -> bool:
    """Whether a file is a video by its ending; a WebP is one if it is animated."""
    lowered = path.lower()
    if not lowered.endswith(VIDEO_ENDINGS):
        return False
    if not lowered.endswith(_WEBP):
        return True
    try:
        with open_plain(path) as file:
            head = file.read(21)
    except OSError:
        return False
    # WebP Container Specification: an extended file, with the flag of animation.
    return head[8:16] == b"WEBPVP8X" and len(head) > 20 and bool(head[20] & 2)
