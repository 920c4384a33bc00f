"""Validation clips: what each sample asks of the pipeline, and the sheet of all steps."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hotshot_jax.media.metadata import read_metadata
from hotshot_jax.training.running import validation
from hotshot_jax.training.running.metrics import Report, Reports
from hotshot_jax.training.running.step_sheet import write_sheet_of_steps
from hotshot_jax.training.running.validation import ClipConfig, ClipValidation, Sample

PLAIN = Sample("a fox")
SAMPLE = Sample("a star", "blurry", 7, 24, 8, 3, 20, 6.5)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the pipeline is called with."""
    calls: list[dict[str, Any]] = []

    class Pipeline:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def __call__(self, prompt: str, **given: Any) -> Any:
            calls.append({"prompt": prompt, **given})
            shape = (1, given["video_length"], given["height"], given["width"], 3)
            return SimpleNamespace(videos=np.full(shape, len(calls) / 8, np.float32))

    monkeypatch.setattr(validation, "HotshotXLPipeline", Pipeline)
    monkeypatch.setattr(validation, "on_host", lambda tree: tree)
    monkeypatch.setattr(validation.dataclasses, "replace", lambda parts, **_: parts)
    return calls


def clips(folder: Path, *samples: Sample) -> ClipValidation:
    division: Any = SimpleNamespace(components=lambda trained, frozen: {})
    config = ClipConfig(samples, (16, 8), 512, frames=4, steps=30)
    return ClipValidation(SimpleNamespace(), division, config, folder)  # type: ignore[arg-type]


def test_each_sample_has_its_settings(asked: list[dict[str, Any]], tmp_path: Path) -> None:
    reports = Reports([Report()])
    assert clips(tmp_path, PLAIN, SAMPLE).run(5, {}, {}, reports) == 0
    both = {"original_size": (1920, 1080), "target_size": (512, 512), "controls": []}
    assert asked == [
        {
            "prompt": "a fox", "negative_prompt": None, "seed": 111, "width": 16, "height": 8,
            "video_length": 4, "num_inference_steps": 30, "guidance_scale": 5.0, **both,
        },
        {
            "prompt": "a star", "negative_prompt": "blurry", "seed": 7, "width": 24, "height": 8,
            "video_length": 3, "num_inference_steps": 20, "guidance_scale": 6.5, **both,
        },
    ]  # fmt: skip
    files = sorted((tmp_path / "step-0000005").iterdir())
    assert [file.name for file in files] == ["00-a-fox.gif", "01-a-star.gif"]
    assert read_metadata(files[1])["prompt"] == "a star"
    with Image.open(files[1]) as image:
        # A second has four frames of the run.
        assert image.n_frames == 3 and image.info["duration"] == 250


def test_the_sheet_has_a_row_a_step(asked: list[dict[str, Any]], tmp_path: Path) -> None:
    made = clips(tmp_path, PLAIN, SAMPLE)
    heights = []
    for step in (0, 10, 20):
        made.run(step, {}, {}, Reports([Report()]))
        with Image.open(tmp_path / "sheet.png") as sheet:
            heights.append(sheet.height)
            shown = np.asarray(sheet)
    row = heights[1] - heights[0]
    assert row > 0 and heights[2] - heights[1] == row
    # The rows are in the order of the steps, and the clips get brighter.
    means = [shown[number * row : (number + 1) * row, 20:60].min() for number in range(3)]
    assert len(asked) == 6 and means == sorted(means)


def test_without_clips_there_is_no_sheet(tmp_path: Path) -> None:
    write_sheet_of_steps(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_clip_is_told(
    asked: list[dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "step-0000001").mkdir()
    (tmp_path / "step-0000001" / "00-a.gif").write_bytes(b"GIF89a")
    assert clips(tmp_path, PLAIN).run(2, {}, {}, Reports([Report()])) == 0
    assert "There is no sheet of the validation clips" in caplog.text
    assert len(asked) == 1
