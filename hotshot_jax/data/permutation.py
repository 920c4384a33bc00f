"""A pseudo-random permutation of any length that needs no memory.

A Feistel network over the next even number of bits, repeated until it lands inside the length
(Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). It is for shuffling, not for
secrets.
"""

from functools import lru_cache

import numpy as np

_ROUNDS = 6
_WORD = (1 << 64) - 1


def permuted(index: int, length: int, seed: tuple[int, ...]) -> int:
    """Where the permutation of `range(length)` that belongs to a seed takes an index.

    Args:
        index: from 0 to `length` - 1.
        length: at least 1.
        seed: non-negative integers.

    Raises:
        IndexError: the index lies outside.
    """
    if not 0 <= index < length:
        raise IndexError(f"index {index} of a permutation of {length}")
    half = max(1, ((length - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    keys = _round_keys(seed)
    while True:
        left, right = index >> half, index & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        index = left << half | right
        if index < length:
            return index


def _mixed(word: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): each bit in moves each bit out."""
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    word = (word ^ word >> 27) * 0x94D049BB133111EB & _WORD
    return word ^ word >> 31


@lru_cache(maxsize=256)
def _round_keys(seed: tuple[int, ...]) -> tuple[int, ...]:
    words = np.random.SeedSequence(seed).generate_state(_ROUNDS, np.uint64)
    return tuple(int(word) for word in words)
