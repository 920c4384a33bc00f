import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks.toy.from_scratch.fit import FitConfig
from benchmarks.toy.from_scratch.text_encoders import (
    TextConfig,
    prompt_losses,
    train_text_encoders,
    vary_prompts,
)
from hotshot_jax.data.shapes import split_prompts
from hotshot_jax.models import CLIPTextConfig, CLIPTextModel

VOCABULARY, LENGTH = 20, 10
START, END = VOCABULARY - 2, VOCABULARY - 1
CONFIG = TextConfig(
    FitConfig(steps=25, learning_rate=1e-2, warmup_steps=2), 16, 0.2, 0.3, ("cyan", "heart")
)


def tokens(prompts: Sequence[str]) -> np.ndarray:
    """A word is its length, which tells the words of these tests apart."""
    rows = [[START, *(len(word) for word in prompt.split()), END] for prompt in prompts]
    return np.array([row + [END] * (LENGTH - len(row)) for row in rows], np.int32)


@pytest.fixture(scope="module")
def encoder() -> CLIPTextModel:
    shape = CLIPTextConfig(
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=VOCABULARY,
        max_position_embeddings=LENGTH,
        projection_dim=8,
        eos_token_id=END,
        with_projection=True,
    )
    return CLIPTextModel(shape, rngs=nnx.Rngs(0))


def test_varied_prompts_never_say_what_is_held_out() -> None:
    held_out = set(split_prompts("held_out"))
    train = split_prompts("train")
    texts = [
        text
        for number in range(40)
        for text in vary_prompts(train, dataclasses.replace(CONFIG, batch_size=64), number)
    ]
    assert not held_out & set(texts)
    whole = sum(text in set(train) for text in texts) / len(texts)
    assert 0.45 < whole < 0.65
    assert any("cyan" in text for text in texts)
    assert vary_prompts(train, CONFIG, 3) == vary_prompts(train, CONFIG, 3)


def test_losses_are_those_of_a_head_that_says_nothing(encoder: CLIPTextModel) -> None:
    heads = {name: jnp.zeros((8, VOCABULARY)) for name in ("next", "hidden", "pooled")}
    ids = jnp.asarray(tokens(["a bb ccc", "dddd"]))
    next_token, words = prompt_losses(encoder, heads, ids)
    np.testing.assert_allclose(next_token, np.log(VOCABULARY), rtol=1e-5)
    # Cross-entropy with a uniform guess, less the entropy of the words: three of them, or one. The
    # hidden states count once for each position from the end on, of which the second has two more.
    first, second = np.log(VOCABULARY) - np.log(3), np.log(VOCABULARY)
    hidden = (6 * first + 8 * second) / 14
    np.testing.assert_allclose(words, hidden + (first + second) / 2, rtol=1e-5)


def test_training_lowers_both_losses_of_every_encoder(encoder: CLIPTextModel) -> None:
    seen: list[dict[str, float]] = []
    prompts = ["a bb ccc", "dddd a", "eeeee bb", "ffffff gggggggg"]
    trained = train_text_encoders(
        [encoder, encoder],
        [tokens, tokens],
        prompts,
        dataclasses.replace(CONFIG, replaced=0.0),
        lambda step, numbers: seen.append(dict(numbers)),
    )
    for name in ("next_token_1", "next_token_2", "words_1", "words_2"):
        assert np.mean([n[name] for n in seen[-3:]]) < 0.8 * np.mean([n[name] for n in seen[:3]])
    assert len(trained) == 2
    before = jax.tree.leaves(nnx.state(encoder))
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(before, jax.tree.leaves(nnx.state(trained[0])), strict=True)
    )
