"""Marks of many measured clips, added up: shares of right ones, and what was taken for what."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.toy.shapes_evaluator import PROMPT, Measurement, score

ATTRIBUTES = ("colour", "shape", "motion", "background")
ALL = "all"
_NOTHING = "nothing"


class Scores:
    """What the clips of one model show, against what their prompts asked for.

    Args:
        attributes: those that count, of `ATTRIBUTES`; single images show no motion.
    """

    def __init__(self, attributes: Sequence[str] = ATTRIBUTES):
        self.attributes = tuple(attributes)
        self.clips = 0
        self._right: Counter[str] = Counter()
        # By attribute, then by the word asked for and the word shown.
        self._pairs: dict[str, Counter[tuple[str, str]]] = {name: Counter() for name in attributes}

    def add(self, prompt: str, measurement: Measurement) -> bool:
        """Counts a clip, and tells whether all of it is right.

        Raises:
            ValueError: the prompt is not about a coloured shape.
        """
        marks = score(prompt, measurement)
        wanted = PROMPT.fullmatch(" ".join(prompt.split()))
        assert wanted is not None
        self.clips += 1
        for name in self.attributes:
            self._right[name] += marks[name]
            self._pairs[name][wanted[name], getattr(measurement, name) or _NOTHING] += 1
        whole = all(marks[name] for name in self.attributes)
        self._right[ALL] += whole
        return whole

    @property
    def shares(self) -> dict[str, float]:
        """The share of right clips for each attribute, and for `all` of them at once."""
        count = max(1, self.clips)
        return {name: self._right[name] / count for name in (*self.attributes, ALL)}

    def confusions(self, attribute: str) -> list[tuple[str, str, int]]:
        """What was asked for, what was shown instead, and how often; the commonest first."""
        wrong = [(a, b, n) for (a, b), n in self._pairs[attribute].items() if a != b]
        return sorted(wrong, key=lambda each: (-each[2], each))

    def words(self, attribute: str) -> dict[str, tuple[int, int]]:
        """For each word that was asked for: how many of its clips are right, of how many."""
        found: dict[str, tuple[int, int]] = {}
        for (asked, shown), number in sorted(self._pairs[attribute].items()):
            right, count = found.get(asked, (0, 0))
            found[asked] = right + number * (asked == shown), count + number
        return found

    def report(self) -> dict[str, Any]:
        """All of it as JSON's types."""
        return {
            "clips": self.clips,
            "scores": {name: round(share, 4) for name, share in self.shares.items()},
            "confusions": {name: self.confusions(name) for name in self.attributes},
            "words": {name: self.words(name) for name in self.attributes},
        }


def table(columns: Mapping[str, Scores]) -> str:
    """Scores side by side, then what the first column got wrong, a line an attribute."""
    first = next(iter(columns.values()))
    width = max(map(len, columns)) + 2
    lines = ["".join([" " * 12, *(title.rjust(width) for title in columns)])]
    for name in (*first.attributes, ALL):
        cells = [f"{100 * scores.shares[name]:.1f} %".rjust(width) for scores in columns.values()]
        lines.append("".join([("all at once" if name == ALL else name).ljust(12), *cells]))
    lines.append("".join(["clips".ljust(12), *(f"{s.clips:{width}d}" for s in columns.values())]))
    for title, scores in columns.items():
        lines.append(f"\nwrong, {title}:")
        for name in scores.attributes:
            wrong = [f"{a} -> {b} {n}" for a, b, n in scores.confusions(name)]
            lines.append(f"  {name.ljust(10)}  {', '.join(wrong) or 'none'}")
    return "\n".join(lines)
