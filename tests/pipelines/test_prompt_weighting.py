import contextlib
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st
from transformers import CLIPTokenizer

from hotshot_jax.conditioning.text.prompt_weighting import (
    PromptChunks,
    Vocabulary,
    WeightedText,
    chunk_prompt,
    pad_chunks,
    parse_weights,
    split_at_breaks,
    weigh_embeddings,
)
from hotshot_jax.errors import UsageError

TOKENIZERS = Path(__file__).parents[1] / "golden" / "e2e"
PROMPT = "a photo of a red panda, dancing in the rain, 4k"


@pytest.fixture(scope="module", params=["tokenizer", "tokenizer_2"])
def tokenizer(request):
    return CLIPTokenizer.from_pretrained(TOKENIZERS / request.param)


def parsed(prompt):
    return [(part.text, round(part.weight, 4)) for part in parse_weights(prompt)]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", []),
        ("a cat", [("a cat", 1)]),
        ("a (red) cat", [("a ", 1), ("red", 1.1), (" cat", 1)]),
        ("a (red:1.3) cat", [("a ", 1), ("red", 1.3), (" cat", 1)]),
        ("a [red] cat", [("a ", 1), ("red", 0.9091), (" cat", 1)]),
        ("((red))", [("red", 1.21)]),
        ("[[red]]", [("red", 0.8264)]),
        ("(a (b:2) c:0.5)", [("a ", 0.5), ("b", 1.0), (" c", 0.5)]),
        ("(a [b]:2)", [("a ", 2), ("b", 1.8182)]),
        ("(red:-0.5)", [("red", -0.5)]),
        ("(red: .5 )", [("red", 0.5)]),
        ("(note: this)", [("note: this", 1.1)]),
        ("(a:b:1.5)", [("a:b", 1.5)]),
        ("[red:1.3]", [("red:1.3", 0.9091)]),
        (r"a \(red\) cat", [("a (red) cat", 1)]),
        (r"\[a\] \\ b", [(r"[a] \ b", 1)]),
        (r"(a \(b\):1.2)", [("a (b)", 1.2)]),
        (r"a\b", [(r"a\b", 1)]),
        (r"a\:b [c\|d]", [("a:b ", 1), ("c|d", 0.9091)]),
        ("a (:1.3) b", [("a  b", 1)]),
        ("()", []),
        ("(red:1) cat", [("red cat", 1)]),
    ],
)
def test_syntax(prompt, expected):
    assert parsed(prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a (red cat", r"'\(' at character 3"),
        ("a red) cat", r"'\)' at character 6"),
        ("[red", r"'\[' at character 1"),
        ("(red]", r"'\]' at character 5"),
        ("(a [b)", r"'\)' at character 6"),
        ("(" + "x" * 200, r"'\(' at character 1 "),
    ],
)
def test_unbalanced_brackets(prompt, message):
    with pytest.raises(UsageError, match=message) as caught:
        parse_weights(prompt)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("(" * 8000 + "a" + ")" * 8000, "'\\(' at character 101 is inside 100 other brackets"),
        ("[" * 101 + "]" * 101, "'\\[' at character 101 is inside"),
        ("a (b:" + "9" * 40 + ")", "a weight is too large a number"),
    ],
)
def test_more_than_weights_can_be(prompt, message):
    with pytest.raises(UsageError, match=message):
        parse_weights(prompt)


def test_deep_brackets_multiply():
    ((text, weight),) = parsed("(" * 100 + "a" + ")" * 100)
    assert (text, weight) == ("a", pytest.approx(1.1**100))


@pytest.mark.parametrize(
    "prompt",
    [
        "a cat, " * 57_000,
        "(a)" * 40_000,
        "((a:1.2) b)" * 10_000,
        " " * 400_000,
        "(a:" + "1" * 400_000 + "x)",
        "(a" + ": " * 200_000 + ")",
        ":" * 400_000,
        "BREAK " * 20_000,
        " " * 200_000 + "BREAK" + " " * 200_000,
        "\\" * 400_000,
        "a)" * 200_000,
    ],
    ids=range(11),
)
def test_reading_takes_as_long_as_the_prompt_is(prompt):
    # Each took minutes where the time grew with the square.
    begun = time.process_time()
    with contextlib.suppress(UsageError):
        split_at_breaks(parse_weights(prompt))
    assert time.process_time() - begun < 10


@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [
        ("a BREAK b", ["a ", " b"]),
        ("a BREAK", ["a "]),
        ("a BREAK  ", ["a "]),
        ("BREAK a", ["", " a"]),
        ("a BREAK BREAK b", ["a ", " ", " b"]),
        ("BREAK", [""]),
        ("", [""]),
        ("a break, BREAKING aBREAK", ["a break, BREAKING aBREAK"]),
        ("a,BREAK,b", ["a,", ",b"]),
        ("(a BREAK b:1.5)", ["a ", " b"]),
        ("a (BREAK) b", ["a ", " b"]),
    ],
)
def test_breaks(prompt, pieces):
    read = split_at_breaks(parse_weights(prompt))
    assert ["".join(part.text for part in piece) for piece in read] == pieces


def test_weights_on_both_sides_of_a_break():
    first, second = split_at_breaks(parse_weights("(a BREAK b:1.5) c"))
    assert first == [WeightedText("a ", 1.5)]
    assert second == [WeightedText(" b", 1.5), WeightedText(" c", 1.0)]


@given(st.text(alphabet="ab :1.()[]\\", max_size=20))
def test_any_text_is_parsed_or_refused(prompt):
    try:
        parts = parse_weights(prompt)
    except UsageError:
        return
    assert all(part.text for part in parts)
    if not set(prompt) & set("()[]\\"):
        assert parts == ([WeightedText(prompt)] if prompt else [])


@pytest.mark.parametrize("prompt", ["", "   ", PROMPT, "a " * 75, " ".join(["panda"] * 200)])
def test_plain_prompts_give_the_tokens_that_they_always_gave(tokenizer, prompt):
    expected = tokenizer(prompt, padding="max_length", max_length=77, truncation=True).input_ids
    vocabulary = Vocabulary.of(tokenizer)
    chunks = chunk_prompt(parse_weights(prompt), vocabulary)
    np.testing.assert_array_equal(chunks.ids[0], expected)
    np.testing.assert_array_equal(chunk_prompt(prompt, vocabulary, chunks=1).ids, [expected])
    assert not chunks.is_weighted


def test_weights_lie_on_their_tokens(tokenizer):
    vocabulary = Vocabulary.of(tokenizer)
    chunks = chunk_prompt(parse_weights("a photo of a (red panda:1.5), dancing"), vocabulary)
    plain = chunk_prompt("a photo of a red panda, dancing", vocabulary)
    np.testing.assert_array_equal(chunks.ids, plain.ids)
    before = len(vocabulary.encode("a photo of a"))
    inside = len(vocabulary.encode("red panda"))
    expected = np.ones((1, 77), np.float32)
    expected[0, 1 + before : 1 + before + inside] = 1.5
    np.testing.assert_array_equal(chunks.weights, expected)
    assert chunks.is_weighted and chunks.weights.dtype == np.float32


@pytest.mark.parametrize(
    ("tokens", "count"), [(0, 1), (1, 1), (75, 1), (76, 2), (150, 2), (151, 3)]
)
def test_chunks_hold_75_tokens_each(tokens, count):
    vocabulary = Vocabulary(lambda text: list(range(len(text))), 900, 901, 902)
    chunks = chunk_prompt("x" * tokens, vocabulary)
    assert chunks.ids.shape == chunks.weights.shape == (count, 77)
    assert (chunks.ids[:, 0] == 900).all()
    inside = [each for each in chunks.ids.ravel().tolist() if each < 900]
    assert inside == list(range(tokens))
    assert (chunks.ids == 901).sum() == count
    assert chunks.ids[-1, -1] == (901 if tokens and tokens % 75 == 0 else 902)


def test_a_limit_of_chunks(tokenizer):
    vocabulary = Vocabulary.of(tokenizer)
    long = " ".join(["panda"] * 200)
    assert len(chunk_prompt(long, vocabulary, chunks=2)) == 2
    assert len(chunk_prompt("a", vocabulary, chunks=2)) == 1


def test_positive_and_negative_become_equally_long(tokenizer):
    vocabulary = Vocabulary.of(tokenizer)
    empty = chunk_prompt("", vocabulary)
    padded = pad_chunks(chunk_prompt(PROMPT, vocabulary), 3, vocabulary)
    assert len(padded) == 3
    np.testing.assert_array_equal(padded.ids[1:], np.repeat(empty.ids, 2, axis=0))
    assert not padded.is_weighted
    same = pad_chunks(padded, 3, vocabulary)
    np.testing.assert_array_equal(same.ids, padded.ids)
    with pytest.raises(ValueError, match="3 chunks"):
        pad_chunks(padded, 2, vocabulary)


@pytest.mark.parametrize("count", [0, 1, 75, 76, 200])
def test_the_tokens_of_a_prompt(tokenizer, count):
    vocabulary = Vocabulary.of(tokenizer)
    prompt = " ".join(["panda"] * count)
    encoded = list(vocabulary.encode(prompt)) if prompt else []
    assert chunk_prompt(prompt, vocabulary).tokens(vocabulary) == encoded
    assert vocabulary.decode(encoded).split() == prompt.split()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_weighing_embeddings(dtype):
    random = np.random.default_rng(0)
    hidden = jnp.asarray(random.normal(size=(2, 4, 8)), dtype)
    empty = jnp.asarray(random.normal(size=(4, 8)), dtype)
    weights = np.float32([[1, 1.5, 1, 0], [1, 1, -0.5, 1]])
    moved = weigh_embeddings(hidden, empty, jnp.asarray(weights))
    assert moved.dtype == dtype
    expected = np.asarray(hidden, np.float64) - np.asarray(empty, np.float64)
    expected = np.asarray(empty, np.float64) + weights[..., None] * expected
    # bfloat16 has 8 bits.
    tolerance = 1e-6 if dtype == jnp.float32 else 2e-2
    np.testing.assert_allclose(np.asarray(moved, np.float64), expected, atol=tolerance)
    neutral = np.asarray(weights == 1)
    np.testing.assert_array_equal(np.asarray(moved)[neutral], np.asarray(hidden)[neutral])


def test_chunks_are_counted():
    ones = np.ones((2, 77))
    assert len(PromptChunks(ones, ones)) == 2
