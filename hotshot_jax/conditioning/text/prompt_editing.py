"""Prompts that change during a run: `[before:after:when]`.

The syntax and its meaning are AUTOMATIC1111's:

    [cat:dog:0.4]   "cat" for the first 40 % of the steps, "dog" afterwards
    [cat:dog:12]    "cat" for the first 12 steps
    [dog:0.4]       nothing, then "dog"
    [cat::0.4]      "cat", then nothing

A number with a decimal point, or below 1, is a fraction of the steps; any other counts steps. Edits
nest, and their texts may have weights. Square brackets that end otherwise are left as they are, and
so are brackets without a partner.
"""

import dataclasses
import re
from collections.abc import Iterator

_TOKENS = re.compile(r"\\.|[()\[\]:|]|[^\\()\[\]:|]+|\\", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_CLOSING = {"(": ")", "[": "]"}


@dataclasses.dataclass
class _Bracket:
    """One that is open.

    Attributes:
        opening: where it stands among the tokens.
        colons: the colons directly inside.
        bar: whether a bar is directly inside.
        plain: whether everything inside can be part of an edit: brackets inside that have colons
            or bars of another syntax cannot.
    """

    opening: int
    colons: list[int]
    bar: bool = False
    plain: bool = True


@dataclasses.dataclass(frozen=True)
class _Edit:
    """Positions among the tokens, and the number as it is written."""

    opening: int
    colons: list[int]
    closing: int
    when: str

    def last_step(self, steps: int) -> int:
        """The last step that is given `before`; 0 for none."""
        when = float(self.when)
        if "." in self.when or abs(when) < 1:
            when *= steps
        return int(max(0, min(steps, when)))


def edited_texts(prompt: str, steps: int) -> list[tuple[int, str]]:
    """What a prompt says in the course of a run.

    Args:
        prompt: as the user wrote it.
        steps: number of steps of the whole schedule.

    Returns:
        Texts without edits in the order of their use, each with the last step that it serves,
        counted from 1. A prompt without edits gives itself alone.
    """
    tokens = _TOKENS.findall(prompt)
    edits = list(_edits(tokens))
    lasts = {edit.last_step(steps) for edit in edits} | {steps}
    return [(last, _text_at(tokens, edits, last, steps)) for last in sorted(lasts - {0})]


def text_of_each_step(prompt: str, steps: int) -> list[str]:
    """The text of `edited_texts` for each step."""
    texts: list[str] = []
    for last, text in edited_texts(prompt, steps):
        texts += [text] * (last - len(texts))
    return texts


def edits_without_effect(prompt: str, steps: int) -> list[str]:
    """The edits of a prompt that say the same in all steps, as they are written."""
    tokens = _TOKENS.findall(prompt)
    return [
        "".join(tokens[edit.opening : edit.closing + 1])
        for edit in _edits(tokens)
        if edit.last_step(steps) in (0, steps)
    ]


def has_alternatives(prompt: str) -> bool:
    """Whether a prompt has `[a|b]`, which AUTOMATIC1111 changes at every step."""
    opened: list[str] = []
    for token in _TOKENS.findall(prompt):
        if token in _CLOSING:
            opened.append(token)
        elif token in _CLOSING.values() and opened:
            opened.pop()
        elif token == "|" and opened and opened[-1] == "[":
            return True
    return False


def _edits(tokens: list[str]) -> Iterator[_Edit]:
    """The edits, inner ones before those around them."""
    opened: list[_Bracket] = []
    for position, token in enumerate(tokens):
        if token in _CLOSING:
            opened.append(_Bracket(position, []))
        elif not opened:
            continue
        elif token == ":":
            opened[-1].colons.append(position)
        elif token == "|":
            opened[-1].bar = True
        elif token in _CLOSING.values():
            inner = opened.pop()
            matches = _CLOSING[tokens[inner.opening]] == token
            edit = _edit(tokens, inner, position) if matches and token == "]" else None
            if edit is not None:
                yield edit
            elif opened:
                most = 1 if token == ")" else 0
                plain = inner.plain and len(inner.colons) <= most
                opened[-1].plain &= matches and plain and (token == "]" or not inner.bar)


def _edit(tokens: list[str], inner: _Bracket, closing: int) -> _Edit | None:
    """What a pair of square brackets is as an edit, if it is one."""
    if inner.bar or not inner.plain or len(inner.colons) not in (1, 2):
        return None
    when = "".join(tokens[inner.colons[-1] + 1 : closing]).strip()
    if _NUMBER.fullmatch(when) is None:
        return None
    return _Edit(inner.opening, inner.colons, closing, when)


def _text_at(tokens: list[str], edits: list[_Edit], step: int, steps: int) -> str:
    # From where in the tokens to go on elsewhere.
    jumps: dict[int, int] = {}
    for edit in edits:
        first, last = edit.colons[0], edit.colons[-1]
        begins, ends = edit.opening + 1, last
        if step > edit.last_step(steps):
            begins = first + 1 if len(edit.colons) == 2 else begins
        else:
            ends = first if len(edit.colons) == 2 else begins
        if begins == ends:
            jumps[edit.opening] = edit.closing + 1
        else:
            jumps[edit.opening], jumps[ends] = begins, edit.closing + 1
    text: list[str] = []
    position = 0
    while position < len(tokens):
        if position in jumps:
            position = jumps[position]
        else:
            text.append(tokens[position])
            position += 1
    return "".join(text)
