"""Tables of sizes, aspect ratios and key frames."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.parity_cases.case import EXACT, Case, Result, Verdict
from hotshot_jax.errors import UsageError
from hotshot_jax.media.aspect_ratios import SIZES_BY_RESOLUTION, best_aspect_ratio
from hotshot_jax.media.pixels import to_uint8
from hotshot_jax.media.reading.key_frames import key_frame_indices
from hotshot_jax.media.resize import get_crop_coordinates
from hotshot_jax.sampling.request import Request


def matches(case: Case) -> bool:
    """Whether the case is made of tables."""
    return bool(set(case.description) & set(_TABLES))


def run(case: Case) -> Iterator[Result]:
    """Compares every row of every table; one line for each table."""
    for name, table in case.description.items():
        if name in ("case", "note", "description"):
            continue
        if name not in _TABLES:
            yield Result(name, Verdict.UNKNOWN, note="no such table here")
        else:
            yield dataclasses.replace(_TABLES[name](table), what=name)


def count_rows(rows: list[tuple[Any, Any]]) -> Result:
    """How many rows of a table are wrong, given what was got and what was expected."""
    wrong = [(got, expected) for got, expected in rows if got != expected]
    note = f"{len(rows)} rows"
    if wrong:
        note += f"; the first wrong one gives {wrong[0][0]!r}, expected {wrong[0][1]!r}"
    return Result(
        "", Verdict.FAILED if wrong else Verdict.OK, len(wrong) / max(len(rows), 1), EXACT, note
    )


def _crop_coordinates(table: list[dict]) -> Result:
    return count_rows(
        [
            (
                list(get_crop_coordinates(tuple(row["old_wh"]), tuple(row["new_wh"]))),
                row["out_l_u_r_b"],
            )
            for row in table
        ]
    )


def _list_argument(expected: str) -> Result:
    """The reference refuses lists in place of tuples."""
    old, new = [1920, 1080], [512, 512]
    try:
        got = get_crop_coordinates(old, new)  # type: ignore[arg-type]
    except ValueError:
        return count_rows([("ValueError", expected.partition(":")[0])])
    same = got == get_crop_coordinates((1920, 1080), (512, 512))
    return Result(
        "",
        Verdict.DIFFERS if same else Verdict.FAILED,
        note="lists are taken as tuples are; the reference raises ValueError",
    )


def _best_aspect_ratio(table: list[dict]) -> Result:
    rows = []
    for row in table:
        name, size = best_aspect_ratio(row["aspect_ratio"], row["resolution"])
        rows.append(((name, list(size)), (row["key"], row["size_wh"])))
    return count_rows(rows)


def _sizes(table: dict[str, dict[str, list[int]]]) -> Result:
    rows = [
        (list(SIZES_BY_RESOLUTION.get(int(resolution), {}).get(name, ())), size)
        for resolution, sizes in table.items()
        for name, size in sizes.items()
    ]
    published = sorted((int(resolution), *sizes) for resolution, sizes in table.items())
    ours = sorted((resolution, *sizes) for resolution, sizes in SIZES_BY_RESOLUTION.items())
    return count_rows([*rows, (ours, published)])


def _key_frames(table: dict) -> Result:
    rows = []
    for count, duration, video_length, target_duration, expected in table["rows"]:
        got: Any
        try:
            got = key_frame_indices([duration or 0] * count, video_length, target_duration)
        except UsageError:
            got = "refused"
        rows.append((got, expected if isinstance(expected, list) else "refused"))
    return count_rows(rows)


def _frames_to_uint8(table: dict) -> Result:
    return count_rows([(int(to_uint8([value])[0]), expected) for value, expected in table["rows"]])


def _time_ids(table: dict) -> Result:
    rows = []
    for row in table["rows"]:
        request = Request(
            height=512,
            width=512,
            video_length=8,
            num_inference_steps=1,
            guidance_scale=1.0,
            guidance_rescale=0.0,
            original_size=tuple(row["original_size"]),
            crops_coords_top_left=tuple(row["crops_coords_top_left"]),
            target_size=tuple(row["target_size"]),
            eta=0.0,
            clip_skip=0,
            denoising_end=None,
        )
        rows.append(([list(map(float, request.time_ids))], row["time_ids"]))
    return count_rows(rows)


_TABLES: dict[str, Callable[[Any], Result]] = {
    "get_crop_coordinates": _crop_coordinates,
    "get_crop_coordinates_list_argument": _list_argument,
    "best_aspect_ratio": _best_aspect_ratio,
    "res_to_aspect_map": _sizes,
    "extract_gif_frames_from_midpoint": _key_frames,
    "add_time_ids": _time_ids,
    "frames_to_uint8": _frames_to_uint8,
}
