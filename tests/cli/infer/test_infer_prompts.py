"""Prompts with brackets, long ones and textual inversions, from the command line."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from hotshot_jax.cli.infer.prompts import check_prompts
from hotshot_jax.cli.infer.settings import InferSettings
from tests.cli.conftest import Infer
from tests.cli.infer.test_infer import pngs_of
from tests.cli.refusals import assert_refused_at_once


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two vectors for each text encoder of the tiny checkpoint."""
    random = np.random.default_rng(0)
    file = tmp_path_factory.mktemp("embeddings") / "style.safetensors"
    widths = {"clip_l": 24, "clip_g": 40}
    save_file(
        {key: random.standard_normal((2, width), np.float32) for key, width in widths.items()}, file
    )
    return file


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--prompt", "a (fox"), "--prompt: the '(' at character 3 has no partner"),
        (("--negative_prompt", "blurry]"), "--negative_prompt: the ']' at character 7"),
        (("--prompt_2", "[a fox"), "--prompt_2: the '[' at character 1"),
    ],
)
def test_brackets_without_partner(infer: Infer, flags: tuple[str, str], message: str) -> None:
    assert_refused_at_once(infer(*flags), 2, message, "meant literally")


def test_brackets_in_a_file_of_prompts(infer: Infer, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a fox\na (whale\n")
    run = infer("--prompts_file", prompts)
    assert_refused_at_once(run, 2, "prompt 2: the '(' at character 3")


def test_brackets_nested_without_end(infer: Infer) -> None:
    run = infer("--prompt", "(" * 8000 + "a" + ")" * 8000)
    assert_refused_at_once(run, 2, "--prompt: the '(' at character 101 is inside 100 other")


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("a cat AND a dog", "--prompt: AND in capitals is read as a word"),
        (
            "a cat <lora:pixel:0.7>",
            "--prompt: <lora:...> is read as words; name the file with --lo",
        ),
        ("a cat <hypernet:pixel:0.7>", "--prompt: <hypernet:...> is read as words"),
        ("a [cat|dog]", "--prompt: [a|b] is read as weaker words"),
        ("a [cat:dog:40]", "--prompt: [cat:dog:40] is the same text in all 30 steps."),
        ("a [cat:dog:0.5] and (dog:1.2) BREAK sand, [snow]", None),
        (r"\[cat|dog\] and so on", None),
    ],
)
def test_syntax_without_effect(
    text: str, warning: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    check_prompts(InferSettings(prompt=text), [text])
    assert len(caplog.messages) == (warning is not None)
    assert warning is None or caplog.messages[0].startswith(warning)
    caplog.clear()
    check_prompts(InferSettings(prompt=text, prompt_weights=False), [text])
    assert not caplog.messages


@pytest.mark.slow
def test_weights_change_the_picture_and_can_be_turned_off(infer: Infer, tmp_path: Path) -> None:
    runs = {
        "plain": ("--prompt", "a red fox"),
        "weighted": ("--prompt", "a (red:1.6) fox"),
        "escaped": ("--prompt", r"a \(red\) fox"),
        "text": ("--prompt", "a (red) fox", "--no-prompt_weights"),
    }
    for name, flags in runs.items():
        run = infer(*flags, "--output", tmp_path / name)
        assert run.status == 0, run.stderr
    plain, weighted, escaped, text = (pngs_of(tmp_path / name) for name in runs)
    assert (plain != weighted).any()
    np.testing.assert_array_equal(escaped, text)
    assert (plain != text).any()


@pytest.mark.slow
def test_long_prompts(infer: Infer, tmp_path: Path) -> None:
    long = "letter " * 76 + "bear"
    for name, flags in (
        ("cut", ()),
        ("whole", ("--long_prompts",)),
        ("longer", ("--long_prompts", "--prompt", long + " night")),
    ):
        run = infer("--prompt", long, *flags, "--output", tmp_path / name)
        assert run.status == 0, run.stderr
        assert ("no effect without long_prompts" in run.stderr) == (name == "cut")
    cut, whole, longer = (pngs_of(tmp_path / name) for name in ("cut", "whole", "longer"))
    assert (cut != whole).any()
    assert (whole != longer).any()


def test_embeddings_and_weights(infer: Infer, tmp_path: Path, embedding: Path) -> None:
    flags = ("--prompt", "a (<s>:1.2) fox", "--embedding", f"{embedding}:<s>")
    run = infer(*flags, "--embedding", embedding, "--json")
    assert run.status == 0, run.stderr
    assert "embedding <s>: 2 vectors for each text encoder" in run.stderr
    assert f"--embedding {embedding} has no effect: no prompt has the word style" in run.stderr
    assert "<s> has no effect" not in run.stderr
    assert run.report["settings"]["embedding"] == [f"{embedding}:<s>", str(embedding)]


def test_embeddings_that_cannot_be_used(infer: Infer, tmp_path: Path, embedding: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"emb_params": np.zeros((2, 768), np.float32)}, other)
    (tmp_path / "style.pt").write_bytes(b"\x80\x04")
    (tmp_path / "empty.safetensors").touch()
    for argument, status, expected in (
        (other, 1, "Stable Diffusion 1.x"),
        (tmp_path / "style.pt", 1, "pickle"),
        (tmp_path / "empty.safetensors", 1, "empty"),
        (tmp_path / "missing.safetensors", 2, "missing.safetensors"),
        (f"{embedding}:two words", 2, "cannot be the word"),
    ):
        assert_refused_at_once(infer("--embedding", argument), status, expected)
    run = infer("--embedding", embedding, "--embedding", embedding)
    assert_refused_at_once(run, 2, "'style' is used twice")
