"""The films of `docs/film_walk_through.md`, drawn as the page draws them and built as it says."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hotshot_jax.cli.data.command import build
from hotshot_jax.cli.train.settings import parse_train_settings
from hotshot_jax.data.open_data import open_data

ROOT = Path(__file__).parents[2]
FILMS = 12


def test_the_films_are_what_the_recipe_trains_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "film_walk_through.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    few = program.replace("length=800", f"length={FILMS}")
    # The package that writes films forks, which a process that uses JAX should not.
    subprocess.run([sys.executable, "-c", few], check=True)
    recipe = ROOT / "configs" / "tiny" / "motion.yaml"
    settings = parse_train_settings(["--config", str(recipe)], "train.py")
    assert build(["--source", "films", "--output", str(settings.data_dir)]) == 0
    clips = open_data(str(settings.data_dir), settings.video_length).source
    assert len(clips) == FILMS
    kinds = set()
    for clip in (clips[index] for index in range(FILMS)):
        first, middle, last = (clip.frame(each).astype(int) for each in (0, 4, 7))
        moves = np.abs(middle - first).mean()
        if "bouncing" in clip.prompt:
            kinds.add("bouncing")
            assert np.abs(last - first).mean() < 0.5 * moves
        elif "moving" in clip.prompt:
            kinds.add("moving")
            assert np.abs(last - first).mean() > moves
    assert kinds == {"bouncing", "moving"}
