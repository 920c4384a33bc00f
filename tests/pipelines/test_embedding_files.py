"""Textual inversions from their files to the text encoders' output."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from hotshot_jax.conditioning.text.embedding_files import open_embeddings, select_embedding_files
from hotshot_jax.conditioning.text.prompt import PromptEncoder
from hotshot_jax.conditioning.text.text_embeddings import TextEmbeddings
from hotshot_jax.convert.tensors.tensor_source import open_file
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.pipelines import HotshotXLPipeline

WIDTHS = {"text_encoder": 24, "text_encoder_2": 40}
TABLE = "text_model.embeddings.token_embedding.weight"


def tables(checkpoint: Path) -> dict[str, np.ndarray]:
    """The token tables of both encoders, by the keys of a textual inversion."""
    return {
        key: np.array(open_file(checkpoint / folder / "model.safetensors")[TABLE].read())
        for key, folder in (("clip_l", "text_encoder"), ("clip_g", "text_encoder_2"))
    }


@pytest.fixture(scope="module")
def plain(tiny_checkpoint: Path) -> PromptEncoder:
    return PromptEncoder(
        HotshotXLPipeline.from_pretrained(str(tiny_checkpoint), precision="f32").runtime
    )


@pytest.fixture(scope="module")
def files(
    tiny_checkpoint: Path, plain: PromptEncoder, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Words that mean what words of the vocabulary mean: "<two>" is "bear night", "one" "snow"."""
    folder = tmp_path_factory.mktemp("embeddings")
    vocabulary = plain.runtime.components.vocabulary("text_encoder")
    for name, words in (("two", "bear night"), ("one", "snow")):
        ids = list(vocabulary.encode(words))
        vectors = {key: table[ids] for key, table in tables(tiny_checkpoint).items()}
        save_file(vectors, folder / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def extended(tiny_checkpoint: Path, files: Path) -> PromptEncoder:
    embeddings = [(str(files / "two.safetensors"), "<two>"), (str(files / "one.safetensors"), "un")]
    pipeline = HotshotXLPipeline.from_pretrained(
        str(tiny_checkpoint), precision="f32", embeddings=embeddings
    )
    return PromptEncoder(pipeline.runtime)


def assert_equal(one: TextEmbeddings, other: TextEmbeddings) -> None:
    np.testing.assert_array_equal(one.hidden, other.hidden)
    np.testing.assert_array_equal(one.pooled, other.pooled)


@pytest.mark.parametrize(
    ("prompt", "meaning"),
    [
        ("a <two> in the un", "a bear night in the snow"),
        ("un <two>", "snow bear night"),
        ("a (<two>:1.3) cat", "a (bear night:1.3) cat"),
        ("a cat, unseen", "a cat, unseen"),
        ("", ""),
    ],
)
def test_words_mean_what_their_vectors_mean(
    plain: PromptEncoder, extended: PromptEncoder, prompt: str, meaning: str
) -> None:
    """Pooled text too: its place is that of the end, though new words have larger ids."""
    assert_equal(extended.prompts(prompt, None), plain.prompts(meaning, None))


def test_the_published_rule_for_the_end_is_what_new_words_would_break(
    tiny_checkpoint: Path,
) -> None:
    config = json.loads((tiny_checkpoint / "text_encoder_2" / "config.json").read_text())
    assert config["eos_token_id"] == 2


def test_what_is_cut_is_told_in_words(
    extended: PromptEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    extended.prompts("letter " * 75 + "<two> snow", None)
    assert "no effect without long_prompts: <two> snow" in caplog.text


def test_folders_and_files(tmp_path: Path, files: Path) -> None:
    (alone,) = open_embeddings([(str(files / "one.safetensors"), "x")], WIDTHS)
    assert len(alone) == 1
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "learned_embeds.safetensors").write_bytes((files / "two.safetensors").read_bytes())
    (folder / "other.safetensors").write_bytes(b"")
    (usual,) = open_embeddings([(str(folder), "x")], WIDTHS)
    assert len(usual) == 2
    with pytest.raises(HotshotError, match=r"2 files \(one.safetensors, two.safetensors\)"):
        open_embeddings([(str(files), "x")], WIDTHS)


@pytest.mark.parametrize("steps", ["", "-steps-500"])
@pytest.mark.parametrize(
    "given", ["", "learned_embeds{}.safetensors", "learned_embeds_2{}.safetensors"]
)
def test_the_two_files_of_diffusers_trainer(tmp_path: Path, steps: str, given: str) -> None:
    expected = {
        name: np.random.default_rng(width).normal(size=(2, width)).astype(np.float32)
        for name, width in WIDTHS.items()
    }
    for part, vectors in zip(("", "_2"), expected.values(), strict=True):
        save_file({"<cat>": vectors}, tmp_path / f"learned_embeds{part}{steps}.safetensors")
    (word,) = open_embeddings([(str(tmp_path / given.format(steps)), "<cat>")], WIDTHS)
    for name, vectors in expected.items():
        np.testing.assert_array_equal(word.vectors[name], vectors)


def test_what_cannot_be_used(tmp_path: Path, files: Path) -> None:
    (tmp_path / "style.pt").write_bytes(b"\x80\x04")
    with pytest.raises(HotshotError, match="pickle"):
        open_embeddings([(str(tmp_path / "style.pt"), "x")], WIDTHS)
    with pytest.raises(UsageError, match=r"missing\.safetensors"):
        open_embeddings([(str(tmp_path / "missing.safetensors"), "x")], WIDTHS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(HotshotError, match=r"no \.safetensors file"):
        open_embeddings([(str(tmp_path / "empty"), "x")], WIDTHS)
    one = str(files / "one.safetensors")
    with pytest.raises(UsageError, match="the word 'x' is used twice"):
        open_embeddings([(one, "x"), (one, "x")], WIDTHS)


def test_files_of_a_repository() -> None:
    assert select_embedding_files(["README.md", "style.safetensors", "images/a.png"]) == [
        "style.safetensors"
    ]
    with pytest.raises(HotshotError, match="2 files"):
        select_embedding_files(["a.safetensors", "b.safetensors"])
    both = ["learned_embeds.safetensors", "learned_embeds_2.safetensors"]
    assert select_embedding_files([*reversed(both), "a.safetensors", "README.md"]) == both
    with pytest.raises(HotshotError, match="4 files"):
        select_embedding_files(
            [f"learned_embeds{part}-steps-{n}.safetensors" for part in ("", "_2") for n in (1, 2)]
        )
