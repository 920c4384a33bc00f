"""Embeddings of both halves of guidance become one batch without a program for each operation."""

import jax
import jax.numpy as jnp
import numpy as np

from hotshot_jax.cli.compilation_cache import CompilationCounter
from hotshot_jax.conditioning.text.text_embeddings import TextEmbeddings
from hotshot_jax.pipelines.conditioning import join_embeddings


def test_one_program_joins_and_moves_no_bit() -> None:
    numbers = np.random.default_rng(0)
    # Of shapes that no other test compiles.
    hidden = numbers.standard_normal((3, 17, 29), np.float32)
    pooled = numbers.standard_normal((3, 31), np.float32)
    told = TextEmbeddings(*jax.device_put((hidden, pooled)))
    counter = CompilationCounter()
    joined = join_embeddings(
        [TextEmbeddings.zeros_like(told), told], videos_per_prompt=2, dtype=jnp.bfloat16
    )
    assert counter.hits + counter.misses == 1
    for found, given in ((joined.hidden, hidden), (joined.pooled, pooled)):
        both = np.concatenate([np.zeros_like(given), given]).repeat(2, axis=0)[:, None]
        assert found.dtype == jnp.bfloat16
        np.testing.assert_array_equal(np.asarray(found), both.astype(jnp.bfloat16))
