"""The pictures of `docs/lora_walk_through.md`, drawn as the page draws them."""

import re
from pathlib import Path

import pytest

from hotshot_jax.cli.train.settings import parse_train_settings
from hotshot_jax.data.open_data import open_data
from hotshot_jax.data.shapes import is_held_out, parse_prompt

ROOT = Path(__file__).parents[2]


def test_the_pictures_are_what_the_recipe_trains_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "lora_walk_through.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "lora_walk_through.md", "exec"), {})
    recipe = ROOT / "configs" / "tiny" / "lora.yaml"
    settings = parse_train_settings(["--config", str(recipe)], "train.py")
    clips = open_data(str(settings.data_dir), settings.video_length).source
    prompts = [parse_prompt(clips[index].prompt) for index in range(len(clips))]
    assert len(prompts) == 500 and sum(prompt.colour == "cyan" for prompt in prompts) == 250
    assert not any(is_held_out(str(prompt)) for prompt in prompts)
    assert clips[0].frame(0).shape == (settings.resolution, settings.resolution, 3)
