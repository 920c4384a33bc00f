"""The script of the gallery makes what the page shows, by the page's commands."""

import itertools
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.toy import gallery
from hotshot_jax.cli.infer.command import given_flags
from hotshot_jax.data.shapes import is_held_out
from hotshot_jax.media.sheet import draw_sheet

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "gallery.md").read_text()


@pytest.mark.parametrize("pictures", [gallery.BUILT_IN, gallery.PRETRAINED])
def test_every_command_is_one(pictures: dict[str, str]) -> None:
    assert list(pictures) == list(gallery.BUILT_IN)
    for flags in pictures.values():
        given_flags(shlex.split(flags))


@pytest.mark.parametrize("name", gallery.BUILT_IN)
def test_the_page_shows_each_picture_with_its_command(name: str) -> None:
    assert f"(images/{name}.gif)" in PAGE
    assert (ROOT / "docs" / "images" / f"{name}.gif").exists()
    commands = [
        given_flags(shlex.split(line)[2:])
        for line in PAGE.replace("\\\n", " ").splitlines()
        if line.startswith("python infer.py")
    ]
    places = {
        "{loop}": "loop.gif",
        "{lora}": "runs/cyan/export",
        "{quick-start.png}": "red-circle.png",
    }
    words = [places.get(word, word) for word in shlex.split(gallery.BUILT_IN[name])]
    expected = given_flags(words)
    assert any({**command, "output": None} == {**expected, "output": None} for command in commands)


def numbered(output: str, count: int) -> list[str]:
    """The files of so many prompts, as `infer.py` names them; 0: of a prompt alone."""
    stem, _, ending = output.rpartition(".")
    return [f"{stem}-{n:03}.{ending}" for n in range(1, count + 1)] or [output]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    commands: list[list[str]] = []

    def fake(command: list[str]) -> int:
        commands.append(command)
        for word, follows in itertools.pairwise(command):
            if word == "--first_frame":
                with Image.open(follows) as picture:
                    assert picture.size == (8, 8)
            if word == "--output":
                listed = dict(itertools.pairwise(command)).get("--prompts_file")
                count = len(Path(listed).read_text().splitlines()) if listed else 0
                for path in numbered(follows, count):
                    Image.new("RGB", (8, 8)).save(path)
        return 1 if "--guidance_scale" in command else 0

    monkeypatch.setattr(gallery, "infer", fake)
    return commands


def test_pictures_are_made_of_each_other(asked: list[list[str]], tmp_path: Path) -> None:
    assert gallery.main(["--output", str(tmp_path), "--steps", "2"]) == 0
    made = sorted(path.stem for path in tmp_path.iterdir())
    assert made == sorted(set(gallery.BUILT_IN) - {"lora-after"})
    follow = next(command for command in asked if "--gif" in command)
    assert follow[follow.index("--gif") + 1] == str(tmp_path / "loop.gif")
    assert all(command[-2:] == ["--steps", "2"] for command in asked)


def test_another_model_and_a_lora_are_handed_on(asked: list[list[str]], tmp_path: Path) -> None:
    flags = [
        "--pretrained_path",
        "some/model",
        "--lora",
        "style.safetensors",
        "--only",
        "lora-after",
    ]
    assert gallery.main(["--output", str(tmp_path), *flags]) == 0
    ((*words,),) = asked
    assert words[words.index("--lora") + 1] == "style.safetensors"
    assert words[words.index("--pretrained_path") + 1] == "some/model"


def test_the_sheet_has_each_prompt_without_the_lora_and_with_it(
    asked: list[list[str]], tmp_path: Path
) -> None:
    flags = ["--lora", "cyan.safetensors", "--only", gallery.SHEET]
    assert gallery.main(["--output", str(tmp_path), *flags]) == 0
    assert ["--lora" in command for command in asked] == [False, True]
    with Image.open(tmp_path / f"{gallery.SHEET}.png") as sheet:
        rows = draw_sheet([("", [np.zeros((8, 8, 3), np.uint8)])] * 2 * len(gallery.BUILT_IN_SHEET))
        assert sheet.size == rows.shape[1::-1]
    assert f"(images/{gallery.SHEET}.png)" in PAGE
    assert all(is_held_out(prompt) for prompt in gallery.BUILT_IN_SHEET)


def test_what_failed_ends_it(asked: list[list[str]], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(gallery, "BUILT_IN", {"loop": "--guidance_scale 3", "travel": ""})
    assert gallery.main(["--output", str(tmp_path)]) == 1
    assert len(asked) == 1
