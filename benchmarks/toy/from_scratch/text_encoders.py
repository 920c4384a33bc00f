"""Training text encoders on prompts alone, before a UNet learns from what they say.

Two tasks make the hidden states carry a prompt's words: to foretell the next token (which a causal
encoder can, as in Radford et al. 2018, "Improving language understanding by generative
pre-training") and, wherever the prompt has ended, to name all words that stood in it. The heads
for that are thrown away.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.toy.from_scratch.fit import FitConfig, Report, fit
from hotshot_jax.models import CLIPTextModel

Tokenize = Callable[[Sequence[str]], np.ndarray]
"""From prompts to token ids int32 `[prompts, tokens]`."""


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """How text encoders are trained.

    Attributes:
        fit: steps and learning rate.
        batch_size: prompts a step.
        dropped: fraction of words left out, so that prompts may say less.
        replaced: fraction of words replaced by `other_words`, so that prompts may say other things.
        other_words: words that the prompts do not have.
    """

    fit: FitConfig
    batch_size: int
    dropped: float
    replaced: float
    other_words: tuple[str, ...]


def train_text_encoders(
    encoders: Sequence[CLIPTextModel],
    tokenize: Sequence[Tokenize],
    prompts: Sequence[str],
    config: TextConfig,
    report: Report,
) -> list[CLIPTextModel]:
    """Trains encoders on prompts.

    Args:
        encoders: where to start.
        tokenize: of each encoder.
        prompts: the data; each step takes random ones.
        config: how.
        report: takes the numbers of each step.

    Returns:
        The trained encoders.

    Raises:
        HotshotError: the loss is not finite.
    """
    graphs, states = zip(*(nnx.split(encoder) for encoder in encoders), strict=True)
    key = jax.random.key(config.fit.seed)
    heads = [_heads(jax.random.fold_in(key, i), e.config) for i, e in enumerate(encoders)]

    def batch_of(number: int) -> list[np.ndarray]:
        texts = vary_prompts(prompts, config, number)
        return [each(texts) for each in tokenize]

    def loss(parameters: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        total = jnp.zeros(())
        numbers: dict[str, jax.Array] = {}
        for index, (graph, ids) in enumerate(zip(graphs, batch, strict=True)):
            state, head = parameters[index]
            next_token, words = prompt_losses(nnx.merge(graph, state), head, ids)
            numbers |= {f"next_token_{index + 1}": next_token, f"words_{index + 1}": words}
            total += next_token + words
        return total, numbers

    start = list(zip(states, heads, strict=True))
    fitted = fit(loss, start, batch_of, config.fit, report)
    return [nnx.merge(graph, state) for graph, (state, _) in zip(graphs, fitted, strict=True)]


def vary_prompts(prompts: Sequence[str], config: TextConfig, number: int) -> list[str]:
    """The prompts of a batch, some of their words left out or replaced."""
    generator = np.random.default_rng([config.fit.seed, number])
    texts = []
    for index in generator.integers(len(prompts), size=config.batch_size):
        words = prompts[index].split()
        # Half of the prompts stay whole.
        if generator.random() < 0.5:
            chance = generator.random(len(words))
            others = generator.choice(np.asarray(config.other_words), len(words))
            words = [
                str(other) if draw < config.replaced else word
                for word, other, draw in zip(words, others, chance, strict=True)
                if draw < 1 - config.dropped
            ]
        texts.append(" ".join(words))
    return texts


def prompt_losses(
    encoder: CLIPTextModel, heads: dict[str, jax.Array], ids: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The cross-entropies of the next token and of the prompt's words.

    Args:
        encoder: the model.
        heads: `next` `[channels, vocabulary]`, `hidden` likewise, for the hidden states that SDXL
            reads, and `pooled` `[pooled_channels, vocabulary]`.
        ids: `[batch, tokens]`; what follows the first end-of-text token is padding.
    """
    output = encoder(ids)
    vocabulary = encoder.config.vocab_size
    end = encoder.config.eos_token_id
    ended = jnp.cumsum(ids == end, axis=1) > 0
    inside = ~ended[:, :-1]
    logits = jax.nn.log_softmax(output.last_hidden_state[:, :-1] @ heads["next"])
    found = jnp.take_along_axis(logits, ids[:, 1:, None], axis=2)[..., 0]
    next_token = -jnp.sum(found * inside) / jnp.sum(inside)

    # The words as a distribution: each as likely as the others; start and end tell nothing.
    present = jax.nn.one_hot(ids, vocabulary) * (~ended)[..., None]
    bag = jnp.minimum(present[:, 1:].sum(axis=1), 1.0)
    bag = bag / jnp.maximum(bag.sum(axis=1, keepdims=True), 1.0)
    entropy = -jnp.sum(jnp.where(bag > 0, bag * jnp.log(jnp.maximum(bag, 1e-9)), 0.0), axis=1)
    hidden = jax.nn.log_softmax(output.hidden_states[-2] @ heads["hidden"])
    each = -jnp.einsum("btv,bv->bt", hidden, bag) - entropy[:, None]
    words = jnp.sum(each * ended) / jnp.sum(ended)
    pooled = jax.nn.log_softmax(output.pooled @ heads["pooled"])
    return next_token, words + jnp.mean(-jnp.sum(pooled * bag, axis=1) - entropy)


def _heads(key: jax.Array, config: Any) -> dict[str, jax.Array]:
    pooled = config.projection_dim if config.with_projection else config.hidden_size
    widths = {"next": config.hidden_size, "hidden": config.hidden_size, "pooled": pooled}
    return {
        name: jax.random.normal(jax.random.fold_in(key, index), (width, config.vocab_size))
        / np.sqrt(width)
        for index, (name, width) in enumerate(widths.items())
    }
