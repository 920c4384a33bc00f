"""Measures of clips as a table, and as JSON."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hotshot_jax.files.printable import printable
from hotshot_jax.measure.comparison import Comparison
from hotshot_jax.measure.frames import ClipMeasures

_MOST_LISTED = 64
_IN_A_ROW = 8


def as_json(name: str, measures: ClipMeasures, comparison: Comparison | None) -> dict[str, Any]:
    """All of it as JSON's types; what is infinite there is null."""
    report: dict[str, Any] = {
        "file": name,
        "frames": measures.frames,
        "width": measures.width,
        "height": measures.height,
        "differences": measures.differences,
        "mean_difference": measures.mean_difference,
        "loop_difference": measures.loop_difference,
        "loop_gap": measures.loop_gap,
        "flicker": measures.flicker,
        "mean_colours": measures.mean_colours,
        "colour_drift": measures.colour_drift,
        "colours": measures.colours,
        "duplicates": measures.duplicates,
        "last_equals_first": measures.last_equals_first,
    }
    if comparison is not None:
        report["against"] = {
            "error": comparison.error,
            "psnr": _finite(comparison.psnr),
            "ssim": comparison.ssim,
            "blurred_psnr": _finite(comparison.blurred_psnr),
            "error_flicker": comparison.error_flicker,
            "psnr_of_frames": [_finite(value) for value in comparison.psnr_of_frames],
            "ssim_of_frames": comparison.ssim_of_frames,
        }
    return report


def on_one_line(name: str) -> str:
    """A file's name as tables and pictures show it."""
    return printable(name).replace("\n", " ")


def describe(found: Mapping[str, tuple[ClipMeasures, Comparison | None]]) -> str:
    """A table with a line for each clip, then each clip's frames."""
    rows = [_cells(name, *each) for name, each in found.items()]
    parts = ["\n".join(_aligned([list(rows[0]), *(list(row.values()) for row in rows)]))]
    for name, (measures, _) in found.items():
        lines = [on_one_line(name)]
        if measures.frames > _MOST_LISTED:
            lines.append(f"  {measures.frames} frames; --json lists what each of them tells")
        else:
            lines += _listed("difference to the next frame", measures.differences)
            lines += _listed("colour drift", measures.colour_drift)
        lines += [f"  {note}" for note in _notes(measures)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _cells(name: str, measures: ClipMeasures, comparison: Comparison | None) -> dict[str, str]:
    cells = {
        "clip": on_one_line(name),
        "frames": str(measures.frames),
        "size": f"{measures.width}x{measures.height}",
        "difference": f"{measures.mean_difference:.3f}",
        "loop gap": f"{measures.loop_gap:.3f}",
        "flicker": f"{measures.flicker:.4f}",
        "drift": f"{max(measures.colour_drift):.2f}",
        "colours": str(max(measures.colours)),
        "equal": str(len(measures.duplicates)),
    }
    if comparison is not None:
        cells |= {
            "error": f"{comparison.error:.3f}",
            "PSNR": f"{comparison.psnr:.2f}",
            "SSIM": "-" if comparison.ssim is None else f"{comparison.ssim:.4f}",
            "blurred": f"{comparison.blurred_psnr:.2f}",
            "grain": f"{comparison.error_flicker:.3f}",
        }
    return cells


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _listed(title: str, values: Sequence[float]) -> list[str]:
    lines = [f"  {title}, by frame"]
    for start in range(0, len(values), _IN_A_ROW):
        row = values[start : start + _IN_A_ROW]
        lines.append("".join([f"  {start:6d}:", *(f"{value:9.3f}" for value in row)]))
    return lines


def _notes(measures: ClipMeasures) -> list[str]:
    notes = [
        f"from the last frame to the first {measures.loop_difference:.3f}, largest between "
        f"neighbours {max(measures.differences):.3f}"
    ]
    if measures.duplicates:
        shown = ", ".join(map(str, measures.duplicates[:_MOST_LISTED]))
        more = " and more" if len(measures.duplicates) > _MOST_LISTED else ""
        notes.append(f"equal to the frame before: {shown}{more}")
    if measures.last_equals_first:
        notes.append("the last frame equals the first: repeated, the clip shows it twice")
    return notes


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
