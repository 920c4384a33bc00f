"""`--sample_prompts`: what its files say, and what is wrong with them."""

from pathlib import Path

import pytest

from hotshot_jax.cli.train.checks import check_settings
from hotshot_jax.cli.train.samples import read_samples
from hotshot_jax.cli.train.settings import TrainSettings
from hotshot_jax.errors import UsageError
from hotshot_jax.training.running.validation import Sample

LINES = """# Comments and empty lines are none.

a red fox
a (blue:1.2) star -- spinning --d 7 --w 128 --h 64 --f 16 --s 20 --l 6.5 --n blurry, bad --x-ray
"""
YAML = """
- a red fox
- prompt: a blue star
  seed: 7
  width: 128
  height: 64
  video_length: 16
  steps: 20
  guidance_scale: 6
  negative_prompt: blurry
"""
STAR = Sample("a blue star", "blurry", 7, 128, 64, 16, 20, 6.0)


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_lines_with_the_options_of_kohya_s_scripts(tmp_path: Path) -> None:
    fox, star = read_samples(write(tmp_path, "prompts.txt", LINES))
    assert fox == Sample("a red fox")
    text, negative = "a (blue:1.2) star -- spinning", "blurry, bad --x-ray"
    assert star == Sample(text, negative, 7, 128, 64, 16, 20, 6.5)


def test_lists_of_prompts_and_mappings(tmp_path: Path) -> None:
    assert read_samples(write(tmp_path, "p.yaml", YAML)) == [Sample("a red fox"), STAR]
    text = '["a red fox", {"prompt": "b", "seed": 0, "guidance_scale": null}]'
    assert read_samples(write(tmp_path, "p.json", text)) == [
        Sample("a red fox"),
        Sample("b", seed=0),
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.txt", "# nothing\n", "holds no prompt"),
        ("p.txt", "a --q 1", "line 1: --q is unknown; expected --n, --d"),
        ("p.txt", "b\na --d seven", "line 2: --d is 'seven'; expected a number"),
        ("p.txt", "a --d -1", "seed is -1; expected 0 to 2"),
        ("p.txt", "a --w 100", "width is 100; expected a multiple of 8"),
        ("p.txt", "a --h 0", "height is 0; expected a multiple of 8"),
        ("p.txt", "a --f 0", "video_length is 0; expected at least 1"),
        ("p.txt", "a --s 0", "steps is 0; expected 1 to 1000"),
        ("p.txt", "a --l nan", "guidance_scale is nan; expected 0 or more"),
        ("p.txt", "a --w", "--w is ''; expected a number"),
        ("p.yaml", "prompt: a", "expected a list of prompts"),
        ("p.yaml", "[]", "holds no prompt"),
        ("p.yaml", "- seed: 1", "prompt 1: prompt is ''; expected some text"),
        ("p.yaml", "- prompt: a\n  cfg: 1", "prompt 1: unknown key 'cfg'"),
        ("p.yaml", "- prompt: a\n  seed: x", "prompt 1: seed is 'x'; expected a value of type int"),
        ("p.yaml", "- 3", "prompt 1: expected keys and values"),
        ("p.json", "[", "not readable as YAML or JSON"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    path = write(tmp_path, name, text)
    with pytest.raises(UsageError, match="--sample_prompts") as refused:
        read_samples(path)
    assert message in str(refused.value)


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(b"\xff\xfe\x00")
    for name, message in (
        ("none.txt", "No such file"),
        ("none.yaml", "No such file"),
        ("p.txt", "UTF-8"),
    ):
        with pytest.raises(UsageError, match=message):
            read_samples(str(tmp_path / name))


def test_flags_that_contradict_each_other(tmp_path: Path) -> None:
    path = write(tmp_path, "p.yaml", YAML)
    with pytest.raises(UsageError, match="give one"):
        check_settings(TrainSettings(data_dir="d", sample_prompts=path, test_prompts="a"))
    with pytest.raises(UsageError, match="follow those of the data"):
        check_settings(TrainSettings(data_dir="d", sample_prompts=path, train="controlnet"))
