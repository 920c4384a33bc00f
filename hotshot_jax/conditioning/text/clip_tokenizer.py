"""CLIP's tokenizer, from the files that checkpoints have.

The ids are those of `transformers.CLIPTokenizer`, without the second that importing it takes.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from hotshot_jax.convert.tensors.file_content import read_json_object

_START, _END = "<|startoftext|>", "<|endoftext|>"
_END_OF_WORD = "</w>"
_PIECES = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
_DEFAULTS = {"unk_token": _END, "bos_token": _START, "eos_token": _END, "pad_token": _END}
_TOKENS = 77


class ClipTokenizer:
    """Byte-pair encoding of lower-case text (Radford et al., 2021).

    Args:
        folder: holds `tokenizer.json`, or `vocab.json` and `merges.txt`; and what there is of
            `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`.
        padding: what is filled up with, if not what these say.

    Attributes:
        model_max_length: tokens of a piece of text, with those of start and end.
        bos_token_id: of the start.
        eos_token_id: of the end.
        pad_token_id: of what is filled up with.

    Raises:
        Exception: what the tokenizers library raises on damaged files.
    """

    def __init__(self, folder: Path, padding: str | None = None):
        config = _read(folder / "tokenizer_config.json")
        whole = _read(folder / "tokenizer.json")
        added, named = _special_tokens(folder, config, whole)
        unknown = str(named["unk_token"])
        self._tokenizer = Tokenizer(_model(folder, whole, unknown))
        self._tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        self._tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        self._tokenizer.decoder = decoders.ByteLevel()
        self._tokenizer.add_tokens(_unique([*added, *named.values()]))
        self._unknown = int(self._tokenizer.token_to_id(unknown) or 0)
        self.bos_token_id = self._id(str(named["bos_token"]))
        self.eos_token_id = self._id(str(named["eos_token"]))
        self.pad_token_id = self._id(padding or str(named["pad_token"]))
        self.model_max_length = int(config.get("model_max_length", _TOKENS))

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Ids of a text, with those of start and end where they are asked for."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [self.bos_token_id, *ids, self.eos_token_id] if add_special_tokens else ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, in lower case."""
        text = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text.replace(_END_OF_WORD, " ").strip()

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def get_vocab(self) -> dict[str, int]:
        """All tokens and their ids."""
        return self._tokenizer.get_vocab(with_added_tokens=True)

    def _id(self, token: str) -> int:
        found: int | None = self._tokenizer.token_to_id(token)
        return self._unknown if found is None else found


def _read(file: Path) -> dict[str, Any]:
    return read_json_object(file) if file.exists() else {}


def _model(folder: Path, whole: Mapping[str, Any], unknown: str) -> BPE:
    kind = {
        "continuing_subword_prefix": "",
        "end_of_word_suffix": _END_OF_WORD,
        "fuse_unk": False,
        "unk_token": unknown,
    }
    if not whole:
        return BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"), **kind)
    model = whole["model"]
    pairs = (each.split(" ") if isinstance(each, str) else each for each in model["merges"])
    return BPE(model["vocab"], [(first, second) for first, second in pairs], **kind)


def _special_tokens(
    folder: Path, config: Mapping[str, Any], whole: Mapping[str, Any]
) -> tuple[list[AddedToken], dict[str, AddedToken]]:
    """Tokens that are no part of words, in the order of their ids, and those that have a name."""
    named: dict[str, Any] = {name: config.get(name) or token for name, token in _DEFAULTS.items()}
    by_id: dict[int, AddedToken] = {}
    if "added_tokens_decoder" in config:
        listed = config["added_tokens_decoder"].items()
        by_id = {int(number): AddedToken(**token) for number, token in listed}
    else:
        # Files of older releases.
        for name, token in _read(folder / "special_tokens_map.json").items():
            if name in named:
                named[name] = token
        contents = {_content(token) for token in named.values()}
        for content, number in _read(folder / "added_tokens.json").items():
            special = content in contents
            by_id[number] = AddedToken(content, normalized=not special, special=special)
        for token in whole.get("added_tokens", ()):
            by_id[token["id"]] = AddedToken(**{k: v for k, v in token.items() if k != "id"})
    known = {token.content: token for token in by_id.values()}
    tokens = {name: known.get(_content(token)) or _token(token) for name, token in named.items()}
    return [by_id[number] for number in sorted(by_id)], tokens


def _content(token: Any) -> str:
    return token["content"] if isinstance(token, Mapping) else token


def _token(token: Any) -> AddedToken:
    if isinstance(token, Mapping):
        options = {k: v for k, v in token.items() if k not in ("__type", "special")}
        return AddedToken(**options, special=True)
    return AddedToken(token, special=True)


def _unique(tokens: Iterable[AddedToken]) -> list[AddedToken]:
    return list({token.content: token for token in reversed([*tokens])}.values())[::-1]
