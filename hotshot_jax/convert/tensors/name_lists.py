"""Long lists of names in short messages."""

from __future__ import annotations

from collections.abc import Sequence


def first_names(names: Sequence[str], count: int = 5) -> str:
    """The first ``count`` names separated by commas, and how many more there are."""
    shown = ", ".join(names[:count])
    more = len(names) - count
    return shown if more <= 0 else f"{shown} and {more} more"
