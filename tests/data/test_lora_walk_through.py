"""The pictures of `docs/lora_walk_through.md`, drawn as the page draws them."""

import re
from pathlib import Path

import numpy as np
import pytest

from hotshot_jax.cli.train.settings import parse_train_settings
from hotshot_jax.data.mixing.joined import open_joined
from hotshot_jax.data.open_data import open_data
from hotshot_jax.data.shapes import is_held_out, parse_prompt

ROOT = Path(__file__).parents[2]


def test_the_files_are_the_pictures_that_the_recipe_trains_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "lora_walk_through.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "lora_walk_through.md", "exec"), {})
    recipe = ROOT / "configs" / "tiny" / "lora.yaml"
    settings = parse_train_settings(["--config", str(recipe)], "train.py")
    assert settings.cache_dir is not None and settings.resolution == 128
    drawn = open_joined(settings.data_dirs, settings.video_length).opened.source
    # By name: the folder lists those of cyan first, as the recipe does.
    files = open_data("data/cyan", settings.video_length).source
    assert len(files) == len(drawn) == 500
    for index in range(0, 500, 7):
        assert files[index].prompt == drawn[index].prompt
        np.testing.assert_array_equal(files[index].frame(0), drawn[index].frame(0))
    prompts = [parse_prompt(drawn[index].prompt) for index in range(len(drawn))]
    assert sum(prompt.colour == "cyan" for prompt in prompts) == 250
    assert not any(is_held_out(str(prompt)) for prompt in prompts)
    assert drawn[0].frame(0).shape == (settings.resolution, settings.resolution, 3)
