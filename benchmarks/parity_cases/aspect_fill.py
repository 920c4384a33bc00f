"""Pictures scaled and cropped to a size."""

from collections.abc import Iterator

from benchmarks.parity_cases.case import EXACT, Case, Result, compare
from hotshot_jax.media.resize import scale_aspect_fill


def matches(case: Case) -> bool:
    """Whether the case scales pictures."""
    return case.call.startswith("scale_aspect_fill(")


def run(case: Case) -> Iterator[Result]:
    """Compares pictures, byte by byte."""
    sizes = {str(row["index"]): row["new_size_wh"] for row in case.description.get("rows", [])}
    for prefix in case.prefixes("in"):
        expected = case[f"{prefix}out"]
        height, width = expected.shape[:2]
        # The grey picture has no row; its size is that of the stored result.
        wanted = sizes.get(prefix.removesuffix("."), (width, height))
        got = scale_aspect_fill(case[f"{prefix}in"], *wanted, repair_odd_sizes=False)
        exact = tuple(wanted) == (width, height)
        note = "" if exact else f"asked {wanted}; the reference's rounding, which is off by default"
        yield compare(f"{prefix}out", got, expected, EXACT, absolute=True, note=note)
