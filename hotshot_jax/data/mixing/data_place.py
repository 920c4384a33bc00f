"""What `data_dir` names: a place, and behind a question mark how it is to be mixed."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hotshot_jax.data.mixing.mixed_plan import Part
from hotshot_jax.errors import UsageError

SHAPES: Final = "shapes:"
MOST_REPEATS: Final = 1_000_000
_OPTIONS: Final = ("repeats", "weight", "fps")


@dataclass(frozen=True)
class DataPlace:
    """A place of training data.

    Attributes:
        text: as it was given.
        place: the folder, or `shapes:` with its own options.
        repeats: how often an epoch has each clip.
        weight: its share of what is drawn, beside the weights of the others.
        fps: frames a second that its clips have, where they do not say so themselves.
    """

    text: str
    place: str
    repeats: int | None = None
    weight: float | None = None
    fps: float | None = None

    def part(self, clips: int) -> Part:
        """This data set among others, once its clips are counted."""
        return Part(clips, self.repeats or 1, self.weight)


def parse_place(text: str | os.PathLike[str]) -> DataPlace:
    """Read `DIR?repeats=N`, `DIR?weight=W` and `DIR?fps=F`.

    A folder whose name holds a question mark is taken as it is.

    Raises:
        UsageError: an option is unknown, given twice, or has a value that makes no sense.
    """
    text = os.fspath(text)
    place, mark, query = text.partition("?")
    if not mark or os.path.exists(text):
        return DataPlace(text, text)
    pairs = [pair.partition("=") for pair in query.split("&")]
    own = [(name, value) for name, _, value in pairs if name in _OPTIONS]
    rest = "&".join("".join(pair) for pair in pairs if pair[0] not in _OPTIONS)
    if rest and not text.startswith(SHAPES):
        raise UsageError(
            f"`data_dir` {text}: unknown option {rest.partition('=')[0]!r}; expected "
            f"{', '.join(_OPTIONS)}, as in {place}?repeats=2."
        )
    given = dict(own)
    if len(given) < len(own):
        raise UsageError(f"`data_dir` {text}: an option is given twice.")
    if "repeats" in given and "weight" in given:
        raise UsageError(f"`data_dir` {text}: give repeats or a weight, not both.")
    return DataPlace(
        text,
        f"{place}?{rest}" if rest else place,
        _repeats(text, given["repeats"]) if "repeats" in given else None,
        _positive(text, "weight", given["weight"]) if "weight" in given else None,
        _positive(text, "fps", given["fps"]) if "fps" in given else None,
    )


def parse_places(texts: Sequence[str]) -> list[DataPlace]:
    """All places of a run.

    Raises:
        UsageError: as `parse_place`, or some have weights where others have repeats.
    """
    places = [parse_place(text) for text in texts]
    weighted = next((each for each in places if each.weight is not None), None)
    repeated = next((each for each in places if each.repeats is not None), None)
    if weighted and repeated:
        raise UsageError(
            f"`data_dir` {repeated.text} has repeats and {weighted.text} a weight: give repeats "
            "or weights to all."
        )
    return places


def _repeats(text: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and 1 <= int(value[:9]) <= MOST_REPEATS):
        raise UsageError(
            f"`data_dir` {text}: repeats is {value}; expected a whole number from 1 to "
            f"{MOST_REPEATS}."
        )
    return int(value)


def _positive(text: str, name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise UsageError(f"`data_dir` {text}: {name} is {value}; expected a number above 0.")
    return number
