"""What becomes of captions while they are read for training: words added, tags shuffled."""

import dataclasses
import re

import numpy as np

from hotshot_jax.errors import UsageError

_SEPARATOR = ","


@dataclasses.dataclass(frozen=True)
class CaptionEdits:
    """How captions are changed.

    Attributes:
        trigger_words: stand first, before a comma, in captions that do not hold them.
        prefix: stands before everything, after a blank.
        suffix: stands behind everything, after a blank.
        shuffle_tags: put what commas separate into another order each time.
        keep_tags: how many of the first tags stay where they are, and are never left out.
        tag_dropout: how probably each of the others is left out, 0 to 1.
    """

    trigger_words: str = ""
    prefix: str = ""
    suffix: str = ""
    shuffle_tags: bool = False
    keep_tags: int = 0
    tag_dropout: float = 0.0

    @property
    def by_chance(self) -> bool:
        """Whether a caption differs from time to time."""
        return self.shuffle_tags or self.tag_dropout > 0

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            UsageError: names the setting.
        """
        if self.keep_tags < 0:
            raise UsageError(f"`keep_tags` is {self.keep_tags}; expected 0 or more.")
        if not 0 <= self.tag_dropout <= 1:
            raise UsageError(f"`tag_dropout` is {self.tag_dropout}; expected 0 to 1.")
        for name in ("trigger_words", "prefix", "suffix"):
            text = getattr(self, name)
            spelled = name if name == "trigger_words" else f"caption_{name}"
            if "\0" in text or (text and not text.strip()):
                raise UsageError(f"`{spelled}` is {text!r}; expected some words.")

    def fixed(self, caption: str) -> str:
        """A caption with the words that are added, its tags as they are."""
        words = self.trigger_words.strip()
        if words and not _holds(caption, words):
            caption = f"{words}, {caption}" if caption else words
        parts = (self.prefix.strip(), caption, self.suffix.strip())
        return " ".join(part for part in parts if part)

    def drawn(self, caption: str, seed: tuple[int, ...]) -> str:
        """A caption as it is this time.

        Args:
            caption: of the clip.
            seed: the same seed gives the same order.
        """
        if self.by_chance:
            caption = self._drawn_tags(caption, np.random.default_rng(seed))
        return self.fixed(caption)

    def _drawn_tags(self, caption: str, random: np.random.Generator) -> str:
        tags = [tag.strip() for tag in caption.split(_SEPARATOR)]
        tags = [tag for tag in tags if tag]
        kept, others = tags[: self.keep_tags], tags[self.keep_tags :]
        if self.shuffle_tags:
            others = [others[place] for place in random.permutation(len(others))]
        if self.tag_dropout:
            stay = random.random(len(others)) >= self.tag_dropout
            others = [tag for tag, stays in zip(others, stay, strict=True) if stays]
        return f"{_SEPARATOR} ".join([*kept, *others])


def _holds(caption: str, words: str) -> bool:
    """Whether a caption has some words, not only as parts of others."""
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", caption, re.IGNORECASE) is not None


AS_THEY_ARE = CaptionEdits()
