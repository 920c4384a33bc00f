"""Measures clips as a command line says: a table, or JSON; a plot; a sheet of frames."""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hotshot_jax.cli.measure.report import as_json, describe, on_one_line
from hotshot_jax.cli.run import say
from hotshot_jax.errors import UsageError
from hotshot_jax.measure.comparison import Comparison, compare_frames
from hotshot_jax.measure.frames import ClipMeasures, measure_frames
from hotshot_jax.measure.plot import MOST_CURVES, draw_plot
from hotshot_jax.media.formats.output_form import ONE_FRAME_FORMS, output_form
from hotshot_jax.media.reading.clip import Clip
from hotshot_jax.media.reading.read import open_clip
from hotshot_jax.media.sheet import draw_sheet, spread_indices
from hotshot_jax.media.write import check_output, write_video
from hotshot_jax.writing.places import check_local, check_not_read, is_same_place

_MOST_ON_SHEET = 64
_IN_A_ROW = 8

Measured = dict[str, tuple[ClipMeasures, Comparison | None]]


def measure(given: argparse.Namespace) -> None:
    """Measures clips and prints what they tell.

    Args:
        given: the arguments.

    Raises:
        UsageError: a clip is missing, has one frame, or is of another size or length than
            `--against`; a picture cannot be written where it should.
        HotshotError: a clip is damaged.
    """
    # A clip that is named twice is measured once.
    names = list(dict.fromkeys(given.clips))
    for name in (*names, *([given.against] if given.against else [])):
        check_local(name, "CLIP" if name in names else "--against")
    _check_places(given, names)
    clips = {name: _opened(name) for name in names}
    against = None if given.against is None else _opened(given.against)
    if against is not None:
        for clip in clips.values():
            _check_alike(clip, against)
    found: Measured = {}
    for name, clip in clips.items():
        comparison = None
        if against is not None:
            comparison = compare_frames(clip.stream(), against.stream())
        found[name] = measure_frames(clip.stream()), comparison
    if given.plot:
        _write(given.plot, draw_plot(_panels(found)), "plot")
    if given.sheet:
        rows = [row for name, clip in clips.items() for row in _rows(name, clip)]
        _write(given.sheet, draw_sheet(rows), "sheet")
    if given.json:
        for name, (measures, comparison) in found.items():
            print(json.dumps(as_json(name, measures, comparison)))
    else:
        print(describe(found))


def _opened(name: str) -> Clip:
    clip = open_clip(name)
    if len(clip.durations_ms) < 2:
        raise UsageError(
            f"{name} has one frame, which there is nothing to measure by; give a clip of at least "
            "two."
        )
    return clip


def _check_alike(clip: Clip, against: Clip) -> None:
    one, other = (
        f"{len(each.durations_ms)} frames of {each.width}x{each.height}" for each in (clip, against)
    )
    if one != other:
        raise UsageError(
            f"{clip.path} has {one}, but --against {against.path} has {other}. Only clips of one "
            "size and length can be compared."
        )


def _check_places(given: argparse.Namespace, names: list[str]) -> None:
    """Checks before anything is read that pictures can be written, and over no clip."""
    sources = {name: name for name in names}
    if given.against is not None:
        sources["--against"] = given.against
    for flag in ("plot", "sheet"):
        place = getattr(given, flag)
        if place is None:
            continue
        check_local(place, f"--{flag}")
        try:
            form = output_form(place)
            if form not in ONE_FRAME_FORMS:
                raise UsageError(f"--{flag} {place} is a picture: name it .png or .jpg.")
            check_output(place, 1, overwrite=True)
        except UsageError as error:
            raise UsageError(str(error).replace("`output`", f"--{flag}")) from error
        check_not_read(place, sources, f"--{flag}")
        for name in sources.values():
            if Path(name).is_dir() and is_same_place(Path(place).parent, name):
                raise UsageError(
                    f"--{flag} {place} lies among the frames of {name}, and would be one of them "
                    "the next time. Name a place elsewhere."
                )
    if given.plot and given.sheet and is_same_place(given.plot, given.sheet):
        raise UsageError(f"--plot and --sheet are both {given.plot}; name two files.")
    if given.plot and len(names) > MOST_CURVES:
        raise UsageError(
            f"--plot can tell {MOST_CURVES} clips apart, not {len(names)}; give fewer."
        )


def _panels(found: Measured) -> dict[str, Mapping[str, list[float]]]:
    found = {on_one_line(name): each for name, each in found.items()}
    panels: dict[str, Mapping[str, list[float]]] = {
        # The last step of a loop is the one back to its first frame.
        "difference of each frame to the next, the last to the first, in levels": {
            name: [*measures.differences, measures.loop_difference]
            for name, (measures, _) in found.items()
        },
        "mean colour, distance from that of the first frame in levels": {
            name: list(measures.colour_drift) for name, (measures, _) in found.items()
        },
    }
    compared = {name: likeness for name, (_, likeness) in found.items() if likeness is not None}
    if compared:
        panels["PSNR of each frame in dB"] = {
            name: list(likeness.psnr_of_frames) for name, likeness in compared.items()
        }
    return panels


def _rows(name: str, clip: Clip) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    chosen = spread_indices(len(clip.durations_ms), _MOST_ON_SHEET)
    for start in range(0, len(chosen), _IN_A_ROW):
        row = chosen[start : start + _IN_A_ROW]
        text = f"{on_one_line(name)[-100:]}: frames {', '.join(map(str, row))}"
        yield text, clip.frames(row)


def _write(place: str, picture: npt.NDArray[np.uint8], what: str) -> None:
    path = write_video(place, picture[None], 1000, {}, overwrite=True)
    say(f"{what}: {path}")
