"""Learning rates by group of layers: which parameters a group's name means, and their factors.

A factor multiplies the learning rate of the whole course, warm-up and decay included.
"""

import difflib
import fnmatch
import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Final

from hotshot_jax.convert.tensors.rules import TEMPORAL
from hotshot_jax.errors import UsageError

ALL_LAYERS: Final = "all"
"""Stands for every layer that no other group has."""

_SETTING: Final = "learning_rate_factors"
_JOINED: Final = "+"
# By a parameter's name: of the UNet or a ControlNet its path, of a text encoder behind its name.
_KINDS: Final = {
    "unet": r"^(?!text_encoder)",
    "text_encoder": r"^text_encoder/",
    "text_encoder_2": r"^text_encoder_2/",
    "temporal": rf"/{TEMPORAL}/",
    "spatial": rf"^(?!text_encoder)(?!.*/{TEMPORAL}/)",
    "attention": r"/(attn\d|attention_blocks|self_attn)/",
    "self_attention": r"/(attn1|attention_blocks|self_attn)/",
    "cross_attention": r"/attn2/",
    "feed_forward": r"/(ff|mlp)/",
    "resnets": r"/resnets/",
    "norms": r"norm\w*(/\d+)?/(scale|bias)$",
    "embeddings": r"^(time|add)_embedding/",
    "down": r"^down_blocks/",
    "mid": r"^mid_block/",
    "up": r"^up_blocks/",
}
_LEVEL: Final = re.compile(r"(down|up)(\d+)")
# What makes a pattern of a word.
_OF_PATTERNS: Final = re.compile(r"[*?\[\]/.]")
# Finding what a longer one resembles would take for ever.
_LONGEST: Final = 100


def check_factors(factors: Mapping[str, float]) -> None:
    """Refuses what makes no sense whatever the model.

    Args:
        factors: by group.

    Raises:
        UsageError: a factor is negative or no number, or a group is unknown.
    """
    for group, factor in factors.items():
        if not 0 <= factor < math.inf:
            raise UsageError(
                f"`{_SETTING}` of {group[:_LONGEST]} is {factor}; expected a number from 0, which "
                "leaves these layers as they are."
            )
        for part in () if group == ALL_LAYERS else group.split(_JOINED):
            _matcher(part)


def factors_by_name(factors: Mapping[str, float], names: Collection[str]) -> dict[str, float]:
    """The factor of the learning rate of each parameter where it is not 1.

    Of two groups, one of which lies within the other, the inner one counts.

    Args:
        factors: by group: a kind of layers ("temporal", "attention"), a level of the UNet ("down1",
            "mid", "up0"), several of these joined by "+" for what is in all of them, a pattern of a
            parameter's path ("*/to_q/*", dots or slashes), or `ALL_LAYERS`.
        names: of the parameters that train.

    Raises:
        UsageError: see `check_factors`; or a group has no parameter that trains, two groups overlap
            and none lies within the other, or nothing would be trained.
    """
    check_factors(factors)
    members = {group: frozenset(_members(group, names)) for group in factors if group != ALL_LAYERS}
    for group, found in members.items():
        if not found:
            raise UsageError(_nothing_in(group, names))
    result = {}
    for name in sorted(names):
        factor = factors.get(ALL_LAYERS, 1.0)
        groups = [group for group, found in members.items() if name in found]
        if groups:
            factor = factors[_innermost(groups, members)]
        if factor != 1:
            result[name] = float(factor)
    if len(result) == len(names) and not any(result.values()):
        raise UsageError(f"`{_SETTING}` is 0 for all that trains: nothing would be learned.")
    return result


def describe_factors(by_name: Mapping[str, float], names: Collection[str]) -> str:
    """One line about the factors, such as "learning rate x 0.5 for 34 tensors"."""
    counts: dict[float, int] = {}
    for name in names:
        factor = by_name.get(name, 1.0)
        counts[factor] = counts.get(factor, 0) + 1
    return ", ".join(
        f"learning rate x {factor:g} for {count} tensors" if factor else f"{count} stay as they are"
        for factor, count in sorted(counts.items(), reverse=True)
    )


def _innermost(groups: list[str], members: Mapping[str, frozenset[str]]) -> str:
    smallest = min(groups, key=lambda group: len(members[group]))
    for other in groups:
        if other == smallest or members[smallest] < members[other]:
            continue
        if members[smallest] == members[other]:
            raise UsageError(
                f"`{_SETTING}`: {smallest} and {other} are the same layers here; give one of them."
            )
        raise UsageError(
            f"`{_SETTING}`: {smallest} and {other} overlap, and none is a part of the other. Say "
            f"what holds for both by {smallest}{_JOINED}{other}=FACTOR."
        )
    return smallest


def _members(group: str, names: Collection[str]) -> set[str]:
    matchers = [_matcher(part) for part in group.split(_JOINED)]
    return {name for name in names if all(matches(name) for matches in matchers)}


def _matcher(part: str) -> Callable[[str], bool]:
    """Whether a parameter, by its name, is in a group that is not joined of others."""
    if level := _LEVEL.fullmatch(part):
        expression = rf"^{level[1]}_blocks/{level[2]}/"
    elif part in _KINDS:
        expression = _KINDS[part]
    elif _OF_PATTERNS.search(part):
        pattern = part.replace(".", "/").rstrip("/")
        expression = "|".join(map(fnmatch.translate, (pattern, f"{pattern}/*")))
        return lambda name: any(re.match(expression, each) for each in (name, _in_torch(name)))
    else:
        near = difflib.get_close_matches(part[:_LONGEST], (*_KINDS, "down0", "up0"), 1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(_KINDS)}"
        raise UsageError(
            f"`{_SETTING}`: there is no group {part[:_LONGEST]!r} ({hint}). Levels are down0, "
            "up1 and so on, and patterns of names have * or dots, as 'conv_in.*'."
        )
    return lambda name: re.search(expression, name) is not None


def _in_torch(name: str) -> str:
    """A name with the last part that PyTorch has for it."""
    return re.sub(r"/(kernel|scale|embedding)$", "/weight", name)


def _nothing_in(group: str, names: Collection[str]) -> str:
    told = f"`{_SETTING}`: nothing of {group[:_LONGEST]} trains in this run"
    if _OF_PATTERNS.search(group):
        pattern = group[:_LONGEST].replace(".", "/")
        near = difflib.get_close_matches(pattern, sorted(names), 1, 0.0)
        return f"{told}. The nearest name of what does is {', '.join(near)}."
    groups = [each for each in (*_KINDS, *_levels(names)) if _members(each, names)]
    return f"{told}. What does is in {', '.join(groups)}."


def _levels(names: Collection[str]) -> list[str]:
    found = (re.match(r"(down|up)_blocks/(\d+)/", name) for name in names)
    return sorted({match[1] + match[2] for match in found if match})
