"""A tokenizer in CLIP's format that knows a given list of words and spells out all others.

CLIP's tokenizer is a byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909) over visible
stand-ins for the 256 bytes, in which the last piece of a word carries `</w>`.
"""

import json
from collections.abc import Sequence
from pathlib import Path

START, END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
# Bytes that are printable stand for themselves, the others for letters beyond Latin-1, in order.
_VISIBLE = [*range(33, 127), *range(161, 173), *range(174, 256)]


def byte_letters() -> list[str]:
    """The visible stand-ins of the bytes, in the order of CLIP's vocabulary."""
    hidden = [byte for byte in range(256) if byte not in _VISIBLE]
    return [chr(byte) for byte in _VISIBLE] + [chr(256 + index) for index in range(len(hidden))]


def merges_of(words: Sequence[str]) -> list[tuple[str, str]]:
    """Merges that put each word (lower-case ASCII) together from its left to its right.

    A merge that an earlier word needs may also act within a later one; so each word is spelled with
    the merges so far before more are added.
    """
    merges: list[tuple[str, str]] = []
    for word in words:
        pieces = [*word[:-1], word[-1] + _WORD_END]
        for left, right in merges:
            pieces = _merged(pieces, left, right)
        while len(pieces) > 1:
            left, right = pieces[:2]
            merges.append((left, right))
            pieces = _merged(pieces, left, right)
    return merges


def write_tokenizer(folder: Path, words: Sequence[str], *, pad_token: str = END) -> int:
    """Writes `vocab.json`, `merges.txt` and the configuration.

    Args:
        folder: made.
        words: that are to be one token each.
        pad_token: END for SDXL's first tokenizer, "!" for its second.

    Returns:
        The number of tokens.
    """
    letters = byte_letters()
    merges = merges_of(words)
    tokens = [*letters, *(letter + _WORD_END for letter in letters)]
    tokens += dict.fromkeys(left + right for left, right in merges)
    tokens += [START, END]
    folder.mkdir(parents=True)
    _write_json(folder / "vocab.json", {token: index for index, token in enumerate(tokens)})
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "pad_token": pad_token, "unk_token": END}
    _write_json(folder / "special_tokens_map.json", special)
    _write_json(
        folder / "tokenizer_config.json",
        {
            **special,
            "add_prefix_space": False,
            "do_lower_case": True,
            "errors": "replace",
            "model_max_length": 77,
            "tokenizer_class": "CLIPTokenizer",
        },
    )
    return len(tokens)


def _merged(pieces: Sequence[str], left: str, right: str) -> list[str]:
    result: list[str] = []
    for piece in pieces:
        if result and result[-1] == left and piece == right:
            result[-1] = left + right
        else:
            result.append(piece)
    return result


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
