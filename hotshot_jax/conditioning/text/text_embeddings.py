"""Embeddings of prompts, as the UNet takes them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from hotshot_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class TextEmbeddings:
    """Embeddings of prompts.

    Attributes:
        hidden: `[prompts, tokens, channels]`, both encoders side by side; or with an axis of frames
            or keys behind the prompts.
        pooled: `[prompts, text_channels]`, of the second encoder; likewise.
        keys: for each prompt the frames at which its keys hold, if that axis is one of keys; it is
            as long as the longest needs.
    """

    hidden: jax.Array
    pooled: jax.Array
    keys: tuple[tuple[int, ...], ...] | None = None

    @classmethod
    def zeros_like(cls, other: "TextEmbeddings") -> "TextEmbeddings":
        """What stands for no negative prompt at all."""
        # Of the host, since a program for zeros would be compiled, and such arrays go to any mesh.
        zeros = (np.zeros(each.shape, each.dtype) for each in (other.hidden, other.pooled))
        hidden, pooled = cast(tuple[jax.Array, jax.Array], tuple(zeros))
        return cls(hidden, pooled, other.keys)

    def at_keys(self, keys: Sequence[Sequence[int]] | None) -> "TextEmbeddings":
        """Embeddings of single prompts as those of keys, with an axis of keys.

        Args:
            keys: for each of the prompts with keys the frames at which they hold; these follow one
                another in the embeddings. None where every prompt holds for all frames.
        """
        if keys is None:
            return self
        most = max(map(len, keys))
        starts = np.cumsum([0, *map(len, keys)])
        places = np.array(
            [
                [start + min(place, len(each) - 1) for place in range(most)]
                for start, each in zip(starts, keys, strict=False)
            ]
        )
        return TextEmbeddings(
            self.hidden[places], self.pooled[places], tuple(tuple(each) for each in keys)
        )


def given_embeddings(hidden: Any, pooled: Any, text: Any, name: str) -> TextEmbeddings | None:
    """Embeddings that a caller gave instead of a text, if he did.

    Args:
        hidden: `[prompts, tokens, channels]`, `[prompts, frames, tokens, channels]`, a mapping of
            key frames to the former, or None.
        pooled: `[prompts, text_channels]`, `[prompts, frames, text_channels]`, such a mapping, or
            None.
        text: the text, or None.
        name: what messages call the text.

    Raises:
        UsageError: only one of the two is given, or a text as well; their keys differ.
    """
    if hidden is None and pooled is None:
        return None
    if hidden is None or pooled is None:
        raise UsageError(f"{name}_embeds and its pooled twin have to be given together.")
    if text is not None:
        raise UsageError(f"{name} and {name}_embeds are both given; one of them is enough.")
    if not isinstance(hidden, Mapping) and not isinstance(pooled, Mapping):
        return TextEmbeddings(jnp.asarray(hidden), jnp.asarray(pooled))
    if not (isinstance(hidden, Mapping) and isinstance(pooled, Mapping) and [*hidden] == [*pooled]):
        raise UsageError(f"{name}_embeds and its pooled twin need the same key frames.")
    if not hidden:
        raise UsageError(f"{name}_embeds has no key frame; give at least one.")
    by_key = TextEmbeddings(
        jnp.stack([*hidden.values()], axis=1), jnp.stack([*pooled.values()], axis=1)
    )
    return dataclasses.replace(by_key, keys=(tuple(hidden),) * len(by_key.pooled))
