"""Text from files and servers, before it reaches a terminal."""

import re
from typing import Final

# Control characters can move the cursor, set the window's title or type for the user; those that
# change the direction of writing, and invisible ones, make a text look like another. Lone
# surrogates, which stand for bytes that are no UTF-8, cannot be encoded.
_UNPRINTABLE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: str, most_characters: int | None = None) -> str:
    r"""Spell what is not to be printed as an escape, such as `\x1b`; line ends and tabs stay.

    Args:
        text: as it was found.
        most_characters: a longer text is cut in its middle; None for any length.
    """
    if most_characters is not None and len(text) > most_characters:
        half = most_characters // 2
        text = f"{text[:half]} … {text[-half:]}"
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
