"""CLIP's tokenizer against that of transformers."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import CLIPTokenizer

from hotshot_jax.builtin import builtin_checkpoint
from hotshot_jax.conditioning.text.clip_tokenizer import ClipTokenizer

GOLDEN = Path(__file__).parents[1] / "golden" / "e2e"
WORDS = (
    "a photo of the cat DOG über naïve don't it's we'll 3d 8k, (red:1.2) [x] BREAK <|endoftext|> "
    "<|startoftext|> !! ... é 日本 🙂 \t \n ﬁ İ ß 1234 hello-world foo_bar <lora> \xa0 \u200b Å"
).split(" ")
BLOCKS = ((32, 127), (160, 0x2FFF), (0x1F300, 0x1F600))


def prompts(count: int) -> Iterator[str]:
    drawn = random.Random(0)

    def word() -> str:
        if drawn.random() < 0.8:
            return drawn.choice(WORDS)
        return "".join(chr(drawn.randrange(*drawn.choice(BLOCKS))) for _ in range(4))

    for _ in range(count):
        yield drawn.choice(["", " ", "  "]).join(word() for _ in range(drawn.randrange(15)))


def assert_equal(folder: Path, count: int, padding: str | None = None) -> None:
    theirs, ours = CLIPTokenizer.from_pretrained(folder), ClipTokenizer(folder, padding)
    if padding is not None:
        theirs.pad_token = padding
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert getattr(ours, name) == getattr(theirs, name)
    # Without a configuration theirs is endless, which no model can read.
    assert ours.model_max_length == min(theirs.model_max_length, 77)
    assert ours.get_vocab() == theirs.get_vocab() and len(ours) == len(theirs)
    for prompt in prompts(count):
        ids = theirs.encode(prompt, add_special_tokens=False, verbose=False)
        assert ours.encode(prompt) == ids, prompt
        assert ours.decode(ids) == theirs.decode(ids)
    ids = theirs.encode("a fox", verbose=False)
    assert ours.encode("a fox", add_special_tokens=True) == ids


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_2"])
@pytest.mark.parametrize("folder", [GOLDEN, builtin_checkpoint()], ids=["golden", "builtin"])
def test_ids_of_many_prompts(folder: Path, name: str) -> None:
    assert_equal(folder / name, 5_000)


@pytest.mark.parametrize("padding", ["!", "no such token"])
def test_other_padding(padding: str) -> None:
    assert_equal(GOLDEN / "tokenizer", 10, padding)


def change(folder: Path, **values: Any) -> None:
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text()) | values
    file.write_text(json.dumps({name: each for name, each in config.items() if each is not None}))


def as_one_file(folder: Path) -> None:
    CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json"):
        (folder / name).unlink(missing_ok=True)
    assert (folder / "tokenizer.json").exists()


PADDING = {
    "__type": "AddedToken", "content": "<pad>", "lstrip": False, "rstrip": False,
    "normalized": True, "single_word": False,
}  # fmt: skip
FORMS: dict[str, Callable[[Path], Any]] = {
    "older release": lambda folder: change(folder, added_tokens_decoder=None),
    "one file": as_one_file,
    "one file, older release": lambda folder: (
        as_one_file(folder),
        change(folder, added_tokens_decoder=None),
    ),
    "no configuration": lambda folder: (folder / "tokenizer_config.json").unlink(),
    "further token": lambda folder: (
        change(folder, added_tokens_decoder=None, pad_token=PADDING),
        (folder / "special_tokens_map.json").unlink(),
    ),
    "files of words alone": lambda folder: [
        (folder / f"{name}.json").unlink()
        for name in ("tokenizer_config", "special_tokens_map", "added_tokens")
    ],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_files(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "tokenizer"
    shutil.copytree(GOLDEN / "tokenizer", folder)
    FORMS[form](folder)
    assert_equal(folder, 200)
