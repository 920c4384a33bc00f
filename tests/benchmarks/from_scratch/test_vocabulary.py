import itertools
from pathlib import Path

import pytest

from benchmarks.toy.from_scratch.vocabulary import (
    END,
    START,
    byte_letters,
    merges_of,
    write_tokenizer,
)
from hotshot_jax.conditioning.text.clip_tokenizer import ClipTokenizer
from hotshot_jax.conditioning.text.prompt import tokenize
from hotshot_jax.pipelines.loading import load_tokenizer

WORDS = ["red", "green", "reed", "triangle", "a", "on", "moon", "one"]


def token(tokenizer: ClipTokenizer, number: int) -> str:
    return {value: key for key, value in tokenizer.get_vocab().items()}[number]


def pieces(tokenizer: ClipTokenizer, text: str) -> list[str]:
    tokens = [token(tokenizer, number) for number in tokenize(tokenizer, [text])[0].tolist()]
    assert tokens[0] == START
    return tokens[1 : tokens.index(END)]


@pytest.mark.parametrize(("pad_token", "pad"), [(END, END), ("!", "!")])
def test_listed_words_are_one_token_each_and_others_are_spelled(
    tmp_path: Path, pad_token: str, pad: str
) -> None:
    count = write_tokenizer(tmp_path / "tokenizer", WORDS, pad_token=pad_token)
    tokenizer = load_tokenizer(tmp_path / "tokenizer")
    assert pieces(tokenizer, "a RED triangle on moon") == [
        f"{word}</w>" for word in ("a", "red", "triangle", "on", "moon")
    ]
    spelled = pieces(tokenizer, "cyan é")
    assert len(spelled) > 2 and "".join(spelled[:-2]).replace("</w>", "").startswith("c")
    ids = tokenize(tokenizer, ["red"])[0]
    assert ids.max() == count - 1
    assert token(tokenizer, int(ids[-1])) == pad


def test_merges_spell_every_word_whatever_came_before() -> None:
    merges = merges_of(WORDS)
    assert len(merges) == len(set(merges))
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        # As CLIP does: always the earliest merge that applies.
        while len(parts) > 1:
            pairs = list(itertools.pairwise(parts))
            known = [merges.index(pair) for pair in pairs if pair in merges]
            if not known:
                break
            left, right = merges[min(known)]
            index = pairs.index((left, right))
            parts[index : index + 2] = [left + right]
        assert parts == [word + "</w>"]


def test_there_is_a_letter_for_every_byte() -> None:
    letters = byte_letters()
    assert len(set(letters)) == 256
    assert letters[:3] == ["!", '"', "#"]
