"""Prompts that change during a run: the texts that AUTOMATIC1111 gives."""

import time

import pytest

from hotshot_jax.conditioning.text.prompt_editing import (
    edited_texts,
    edits_without_effect,
    has_alternatives,
    text_of_each_step,
)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("test", [(10, "test")]),
        ("a [b:3]", [(3, "a "), (10, "a b")]),
        ("a [b: 3 ]", [(3, "a "), (10, "a b")]),
        ("a [b::3]", [(3, "a b"), (10, "a ")]),
        ("a [[[b]]:2]", [(2, "a "), (10, "a [[b]]")]),
        ("[(a:2):3]", [(3, ""), (10, "(a:2)")]),
        ("a [b : c : 1] d", [(1, "a b  d"), (10, "a  c  d")]),
        ("a[b:[c:d:2]:1]e", [(1, "abe"), (2, "ace"), (10, "ade")]),
        ("a[[b:c:2]:d:1]e", [(1, "abe"), (2, "ade"), (10, "ade")]),
        ("([a:b:5] c:1.3)", [(5, "(a c:1.3)"), (10, "(b c:1.3)")]),
        ("a [unbalanced", [(10, "a [unbalanced")]),
        ("[a:b:3) [c:d:3]", [(3, "[a:b:3) c"), (10, "[a:b:3) d")]),
        ("a [b:.5] c", [(5, "a  c"), (10, "a b c")]),
        ("[a:b:0.29]", [(2, "a"), (10, "b")]),
        # With a decimal point a number is a fraction, of which more than all is all.
        ("[a:b:1.0]", [(10, "a")]),
        ("[a:b:1]", [(1, "a"), (10, "b")]),
        ("[red:1.3]", [(10, "")]),
        ("[a:b:12]", [(10, "a")]),
        ("[a:b:0]", [(10, "b")]),
        ("[a:b:-2]", [(10, "b")]),
        ("[a:b:1e999]", [(10, "a")]),
        ("[a:b:+2e0]", [(2, "a"), (10, "b")]),
        # None of these is an edit.
        ("[a:b]", [(10, "[a:b]")]),
        ("[a:b:c:3]", [(10, "[a:b:c:3]")]),
        ("[a|b:3]", [(10, "[a|b:3]")]),
        ("[a [b:c] d:3]", [(10, "[a [b:c] d:3]")]),
        (r"[a:b\:3]", [(10, r"[a:b\:3]")]),
        (r"\[a:b:3\]", [(10, r"\[a:b:3\]")]),
        (r"[a\:b:c:3]", [(3, r"a\:b"), (10, "c")]),
        ("[]", [(10, "[]")]),
        ("", [(10, "")]),
    ],
)
def test_texts_of_a_run_of_ten_steps(prompt: str, expected: list[tuple[int, str]]) -> None:
    assert edited_texts(prompt, 10) == expected


def test_the_example_of_its_wiki() -> None:
    prompt = (
        "fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75]"
        "[ in foreground::0.6][ in background:0.25] [shoddy:masterful:0.5]"
    )
    start = "fantasy landscape with a "
    assert edited_texts(prompt, 100) == [
        (25, f"{start}mountain and an oak in foreground shoddy"),
        (50, f"{start}lake and an oak in foreground in background shoddy"),
        (60, f"{start}lake and an oak in foreground in background masterful"),
        (75, f"{start}lake and an oak in background masterful"),
        (100, f"{start}lake and a christmas tree in background masterful"),
    ]


def test_each_step_has_its_text() -> None:
    assert text_of_each_step("[a:b:2]", 4) == ["a", "a", "b", "b"]
    assert text_of_each_step("a", 2) == ["a", "a"]


def test_edits_that_never_change_anything() -> None:
    prompt = "[a:b:50] [c:0.5] [(d):0] [e:1.5]"
    assert edits_without_effect(prompt, 30) == ["[a:b:50]", "[(d):0]", "[e:1.5]"]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("[a|b]", True), ("[(a)|b]", True), ("a|b (a|b)", False), (r"[a\|b]", False), ("[a", False)],
)
def test_alternatives(prompt: str, expected: bool) -> None:
    assert has_alternatives(prompt) == expected


@pytest.mark.parametrize(
    "prompt",
    [
        "[a:" * 50_000 + "b" + ":3]" * 50_000,
        "[a:b:3]" * 50_000,
        "(" * 200_000,
        "[" * 200_000 + "]" * 200_000,
        "[a:" + "1" * 400_000 + "x]",
        ":" * 400_000,
    ],
    ids=range(6),
)
def test_reading_takes_as_long_as_the_prompt_is(prompt: str) -> None:
    begun = time.process_time()
    edited_texts(prompt, 30)
    edits_without_effect(prompt, 30)
    assert time.process_time() - begun < 10
