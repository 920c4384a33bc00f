"""From prompts to embeddings: plain, weighted, long, and with words of textual inversions."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers import CLIPTokenizer

from hotshot_jax.conditioning.text.prompt import (
    PromptEncoder,
    Text,
    TextsOfRun,
    embed_prompts,
    encode_tokens,
)
from hotshot_jax.conditioning.text.text_embeddings import TextEmbeddings, given_embeddings
from hotshot_jax.errors import UsageError
from hotshot_jax.pipelines import HotshotXLPipeline

PROMPT = "a red panda, dancing in the rain"
WORD = "letter "
"""One token."""


@pytest.fixture(scope="module")
def pipeline(tiny_checkpoint: Path) -> HotshotXLPipeline:
    return HotshotXLPipeline.from_pretrained(str(tiny_checkpoint), precision="f32")


@pytest.fixture(scope="module")
def encoder(pipeline: HotshotXLPipeline) -> PromptEncoder:
    return PromptEncoder(pipeline.runtime, long_prompts=True)


def assert_equal(one: TextEmbeddings, other: TextEmbeddings) -> None:
    np.testing.assert_array_equal(one.hidden, other.hidden)
    np.testing.assert_array_equal(one.pooled, other.pooled)


def oracle(pipeline: HotshotXLPipeline) -> Callable[[str], Any]:
    """The tokenizers of transformers, by name."""
    return lambda name: CLIPTokenizer.from_pretrained(Path(pipeline.components.name) / name)


def reference(pipeline: HotshotXLPipeline, prompt: str) -> TextEmbeddings:
    """By the tokenizers' own padding and cutting."""
    components = pipeline.components
    ids = [
        np.asarray(
            tokenizer([prompt], padding="max_length", max_length=77, truncation=True).input_ids
        )
        for tokenizer in map(oracle(pipeline), ("tokenizer", "tokenizer_2"))
    ]
    with jax.default_matmul_precision(pipeline.precision.matmul):
        encoded = jax.jit(encode_tokens)(components.text_encoder, components.text_encoder_2, *ids)
    return TextEmbeddings(*encoded)


@pytest.mark.parametrize("prompt", [PROMPT, "", "   ", WORD * 75])
def test_plain_prompts_are_read_as_ever(
    pipeline: HotshotXLPipeline, encoder: PromptEncoder, prompt: str
) -> None:
    expected = reference(pipeline, prompt)
    assert_equal(encoder.prompts(prompt, None), expected)
    assert_equal(PromptEncoder(pipeline.runtime).prompts(prompt, None), expected)


def test_weights_move_words_away_from_the_empty_prompt(encoder: PromptEncoder) -> None:
    plain = encoder.prompts("a red panda , dancing", None)
    empty = encoder.prompts("", None)
    weighted = encoder.prompts("a (red panda:1.5) , [dancing]", None)
    vocabulary = encoder.runtime.components.vocabulary("text_encoder")
    weights = np.ones(77)
    position = 1
    for text, weight in (("a", 1.0), ("red panda", 1.5), (",", 1.0), ("dancing", 1 / 1.1)):
        count = len(vocabulary.encode(text))
        weights[position : position + count] = weight
        position += count
    origin = np.asarray(empty.hidden, np.float64)
    expected = origin + weights[:, None] * (np.asarray(plain.hidden, np.float64) - origin)
    # float32
    np.testing.assert_allclose(weighted.hidden, expected, atol=1e-5)
    untouched = weights == 1
    np.testing.assert_array_equal(weighted.hidden[0][untouched], plain.hidden[0][untouched])
    np.testing.assert_array_equal(weighted.pooled, plain.pooled)


def test_the_second_prompt_has_weights_of_its_own(encoder: PromptEncoder) -> None:
    plain = encoder.prompts("a fox", None)
    weighted = encoder.prompts("a fox", "a (fox:1.4)")
    border = encoder.runtime.components.text_encoder.config.hidden_size
    same = np.asarray(plain.hidden == weighted.hidden)
    assert same[..., :border].all()
    assert not same[..., border:].all()


def test_brackets_can_be_text(pipeline: HotshotXLPipeline) -> None:
    encoder = PromptEncoder(pipeline.runtime, prompt_weights=False)
    assert_equal(encoder.prompts("a (fox:1.4", None), reference(pipeline, "a (fox:1.4"))


def test_a_bracket_without_partner(encoder: PromptEncoder) -> None:
    with pytest.raises(UsageError, match=r"'\(' at character 3 has no partner"):
        encoder.prompts("a (fox", None)


def test_long_prompts_are_read_piece_by_piece(encoder: PromptEncoder) -> None:
    first, second = WORD * 75, "a red panda"
    together = encoder.prompts(first + second, None)
    assert together.hidden.shape[1] == 154
    parts = [encoder.prompts(text, None) for text in (first, second)]
    joined = jnp.concatenate([each.hidden for each in parts], axis=1)
    # float32, in batches of two and of one.
    np.testing.assert_allclose(together.hidden, joined, atol=1e-5)
    np.testing.assert_allclose(together.pooled, parts[0].pooled, atol=1e-5)


def test_weights_reach_the_second_piece(encoder: PromptEncoder) -> None:
    plain = encoder.prompts(WORD * 75 + "bear night", None)
    weighted = encoder.prompts(WORD * 75 + "(bear night:1.5)", None)
    same = np.asarray(plain.hidden == weighted.hidden).all(-1)[0]
    assert same[:78].all()
    assert not same[78:80].any()
    assert same[80:].all()


@pytest.mark.parametrize("longer", ["positive", "negative"])
def test_positive_and_negative_are_padded_alike(encoder: PromptEncoder, longer: str) -> None:
    texts = {"positive": "a fox", "negative": "blurry", longer: WORD * 100}
    given = (encoder, (texts["positive"], None), (texts["negative"], None), None, None)
    ((negative, positive),) = embed_prompts(*given, guided=True).texts
    assert negative.hidden.shape == positive.hidden.shape == (1, 154, positive.hidden.shape[-1])
    shorter = negative if longer == "positive" else positive
    empty = encoder.prompts("", None)
    np.testing.assert_allclose(shorter.hidden[:, 77:], empty.hidden, atol=1e-5)
    # Without guidance the negative prompt does not count.
    ((alone,),) = embed_prompts(*given, guided=False).texts
    assert alone.hidden.shape[1] == (154 if longer == "positive" else 77)


def test_a_batch_is_padded_to_its_longest(encoder: PromptEncoder) -> None:
    both = encoder.prompts(["a fox", WORD * 76], None)
    assert both.hidden.shape[:2] == (2, 154)
    assert both.pooled.shape[0] == 2
    alone = encoder.prompts("a fox", None)
    np.testing.assert_allclose(both.hidden[0, :77], alone.hidden[0], atol=1e-5)
    np.testing.assert_allclose(both.pooled[0], alone.pooled[0], atol=1e-5)


def test_what_is_cut_is_said_once(
    pipeline: HotshotXLPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = PromptEncoder(pipeline.runtime)
    cut = encoder.prompts(WORD * 75 + "writing of night", None)
    assert caplog.text.count("The prompt has 78 tokens, 75 fit") == 1
    assert "no effect without long_prompts: writing of night" in caplog.text
    assert_equal(cut, encoder.prompts(WORD * 75, None))


def test_embeddings_of_another_length_than_the_negative_prompt(encoder: PromptEncoder) -> None:
    positive = encoder.prompts("a fox", None)
    with pytest.raises(UsageError, match="negative_prompt_embeds has the shape"):
        embed_prompts(encoder, (None, None), (WORD * 100, None), positive, None, guided=True)
    long = encoder.prompts(WORD * 100, None)
    told = embed_prompts(encoder, (None, None), ("blurry", None), long, None, guided=True)
    ((negative, _),) = told.texts
    assert negative.hidden.shape == long.hidden.shape


def test_embeddings_come_in_pairs_and_instead_of_text() -> None:
    hidden, pooled = np.zeros((1, 77, 4)), np.zeros((1, 3))
    assert given_embeddings(None, None, "a fox", "prompt") is None
    given = given_embeddings(hidden, pooled, None, "prompt")
    assert given is not None and given.pooled.shape == (1, 3)
    with pytest.raises(UsageError, match="given together"):
        given_embeddings(hidden, None, None, "prompt")
    with pytest.raises(UsageError, match="both given"):
        given_embeddings(hidden, pooled, "a fox", "prompt")


def embedded(encoder: PromptEncoder, prompt: Text, negative: str, steps: int) -> TextsOfRun:
    return embed_prompts(
        encoder, (prompt, None), (negative, None), None, None, guided=True, steps=steps
    )


def test_a_break_begins_a_chunk_also_without_long_prompts(
    pipeline: HotshotXLPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = PromptEncoder(pipeline.runtime)
    ((negative, positive),) = embedded(encoder, "a fox BREAK (snow:1.3)", "blurry", 1).texts
    assert positive.hidden.shape[1] == negative.hidden.shape[1] == 154
    parts = [encoder.prompts(text) for text in ("a fox", "(snow:1.3)")]
    joined = jnp.concatenate([each.hidden for each in parts], axis=1)
    # float32, in batches of two and of one.
    np.testing.assert_allclose(positive.hidden, joined, atol=1e-5)
    np.testing.assert_allclose(positive.pooled, parts[0].pooled, atol=1e-5)
    assert not caplog.text
    # What is too long for its own chunk is cut all the same.
    long = encoder.prompts(WORD * 76 + "BREAK a fox")
    assert long.hidden.shape[1] == 154
    assert "The prompt has 76 tokens" in caplog.text


def test_the_tokens_of_a_break(pipeline: HotshotXLPipeline) -> None:
    """By hand: AUTOMATIC1111 fills the chunk up with padding, and begins another."""
    texts = (("a fox BREAK snow",), ("a fox BREAK snow",))
    for read, name in zip(
        PromptEncoder(pipeline.runtime).read(texts), ("tokenizer", "tokenizer_2"), strict=True
    ):
        tokenizer = oracle(pipeline)(name)
        padded = tokenizer(["a fox", "snow"], padding="max_length", max_length=77).input_ids
        np.testing.assert_array_equal(read[0].ids, padded)


def test_an_edit_gives_each_step_its_text(encoder: PromptEncoder) -> None:
    told = embedded(encoder, "a [fox:bear:0.5] in (snow:1.2)", "[blurry:3]", 4)
    assert told.of_step == [0, 0, 1, 2]
    for (negative, positive), (away, prompt) in zip(
        told.texts,
        [
            ("", "a fox in (snow:1.2)"),
            ("", "a bear in (snow:1.2)"),
            ("blurry", "a bear in (snow:1.2)"),
        ],
        strict=True,
    ):
        assert_equal(positive, encoder.prompts(prompt))
        assert_equal(negative, encoder.prompts(away))


def test_all_texts_of_an_edit_are_equally_long(encoder: PromptEncoder) -> None:
    told = embedded(encoder, ["a [fox:" + WORD * 80 + ":2]", "a fox"], "blurry", 4)
    assert told.of_step == [0, 0, 1, 1]
    assert {each.hidden.shape[:2] for text in told.texts for each in text} == {(2, 154)}


def test_edits_are_text_where_brackets_are(pipeline: HotshotXLPipeline) -> None:
    encoder = PromptEncoder(pipeline.runtime, prompt_weights=False)
    prompt = "a [fox:bear:0.5] BREAK snow"
    told = embedded(encoder, prompt, "blurry", 4)
    assert told.of_step == [0, 0, 0, 0]
    assert_equal(told.texts[0][1], reference(pipeline, prompt))


def test_embeddings_beside_a_negative_prompt_with_an_edit(encoder: PromptEncoder) -> None:
    given = encoder.prompts("a fox")
    told = embed_prompts(
        encoder, (None, None), ("[dark:bright:1]", None), given, None, guided=True, steps=2
    )
    assert told.of_step == [0, 1]
    assert all(positive is given for _, positive in told.texts)


def test_a_bracket_in_an_edit_is_named_where_it_was_written(encoder: PromptEncoder) -> None:
    with pytest.raises(UsageError, match=r"'\(' at character 13 has no partner"):
        embedded(encoder, "[fox:bear:2](", "", 4)


@pytest.mark.parametrize("prompt", ["a cat, " * 57_000, "a" * 400_000, "(a:1.2) " * 5_000])
def test_a_long_prompt_takes_no_longer_than_it_is(encoder: PromptEncoder, prompt: str) -> None:
    begun = time.process_time()
    PromptEncoder(encoder.runtime).prompts(prompt)
    assert time.process_time() - begun < 20
