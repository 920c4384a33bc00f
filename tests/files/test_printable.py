import pytest

from hotshot_jax.files.printable import printable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, é, 日本, 😀\n\tand more", "plain, é, 日本, 😀\n\tand more"),
        ("\x1b]0;title\x07\x1b[2J", r"\x1b]0;title\x07\x1b[2J"),
        ("over\rwritten \x9b31m", r"over\rwritten \x9b31m"),
        ("exe\u202egpj", r"exe\u202egpj"),
        ("bytes \udcff", r"bytes \udcff"),
        ("hidden\U000e0041", r"hidden\U000e0041"),
    ],
)
def test_what_moves_the_cursor_or_deceives_is_escaped(text: str, expected: str) -> None:
    assert printable(text) == expected
    assert printable(printable(text)) == expected


def test_a_long_text_is_cut_in_its_middle() -> None:
    assert printable("a" * 60 + "b" * 60, 10) == "aaaaa … bbbbb"
