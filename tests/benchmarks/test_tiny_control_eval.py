import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import tiny_control_eval
from benchmarks.toy import shape_clips
from benchmarks.toy.shapes_evaluator import read_clip
from hotshot_jax.conditioning.control.preprocess import canny_edges
from hotshot_jax.data.shapes import is_held_out, parse_prompt, render, split_prompts
from hotshot_jax.pipelines.control import ControlInput
from tests.tiny_controlnet import write_tiny_controlnet

COUNT = 20
PROMPTS = shape_clips.spread(split_prompts("held_out"), COUNT)


class Stub:
    """Stands for a model: gives the clip that it is to follow, or one that never moves."""

    components = SimpleNamespace(name="stub")
    native_size = 64

    def __init__(self, *, moves: bool):
        self.moves = moves
        self.asked: list[tuple[str, int, ControlInput]] = []

    def __call__(
        self,
        prompts: Sequence[str],
        *,
        seed: Sequence[int],
        controls: Sequence[ControlInput],
        **call: Any,
    ) -> Any:
        ((prompt,), (number,), (control,)) = prompts, seed, controls
        self.asked.append((prompt, number, control))
        clip = render(PROMPTS[number], number, 64)
        return SimpleNamespace(videos=(clip if self.moves else clip[[0] * 8])[None] / 255)


def report(
    stub: Stub,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *flags: str | Path,
) -> dict[str, Any]:
    def load(given: argparse.Namespace, path: str | None, *, controlnets: Sequence[str]) -> Stub:
        assert list(controlnets) == ["net"]
        return stub

    monkeypatch.setattr(tiny_control_eval, "load_pipeline", load)
    given = ["--controlnet", "net", "--count", COUNT, "--compilation_cache", "none", "--json"]
    assert tiny_control_eval.main([*map(str, given), *map(str, flags)]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_clips_themselves_are_all_right(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    stub = Stub(moves=True)
    found = report(stub, monkeypatch, capsys, "--save", tmp_path / "kept")
    right = {"shape": 1.0, "motion": 1.0, "all": 1.0}
    assert found["clips"] == COUNT
    assert found["scores"] == found["followed"]["scores"] == right
    assert found["prompt"]["scores"] == {"colour": 1.0, "background": 1.0, "all": 1.0}
    for number, (prompt, seed, control) in enumerate(stub.asked):
        assert is_held_out(PROMPTS[number]) and seed == number
        assert prompt == parse_prompt(PROMPTS[number]).brief
        assert control.window.scale == 0.7
        clip = read_clip(tmp_path / "kept" / "clips" / f"{number:03d}.gif")
        np.testing.assert_array_equal(control.frames, canny_edges(clip))
        edges = read_clip(tmp_path / "kept" / "edges" / f"{number:03d}.gif")
        np.testing.assert_array_equal(edges, control.frames)
    lines = (tmp_path / "kept" / "manifest.jsonl").read_text().splitlines()
    assert json.loads(lines[3]) == {
        "file": "003.gif", "prompt": stub.asked[3][0], "seed": 3, "shows": PROMPTS[3],
    }  # fmt: skip


def test_clips_that_never_move_have_the_shape_and_not_the_motion(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = report(Stub(moves=False), monkeypatch, capsys)
    standing = sum("standing still" in prompt for prompt in PROMPTS) / COUNT
    assert found["scores"] == {"shape": 1.0, "motion": standing, "all": standing}
    assert found["followed"]["scores"]["all"] == 1.0


@pytest.mark.slow
def test_a_model_makes_them(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = write_tiny_controlnet(tmp_path / "net", 1)
    given = ["--pretrained_path", tiny_checkpoint, "--controlnet", net, "--count", 2, "--json"]
    given += ["--steps", 1, "--size", 16, "--video_length", 2, "--save", tmp_path / "kept"]
    given += ["--compilation_cache", "none", "--controlnet_conditioning_scale", 0.5]
    assert tiny_control_eval.main(list(map(str, given))) == 0
    out = capsys.readouterr().out
    assert "what it followed" in out and "all at once" in out
    found = json.loads(out.splitlines()[-1])
    assert found["clips"] == 2 and found["settings"]["controlnet_conditioning_scale"] == 0.5
    assert read_clip(tmp_path / "kept" / "001.gif").shape == (2, 16, 16, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--count", "0"], "--count is 0"),
        (["--controlnet_conditioning_scale", "-1"], "--controlnet_conditioning_scale is -1"),
    ],
)
def test_wrong_arguments_of_the_control_benchmark_are_told(
    given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny_control_eval.main(["--controlnet", "net", *given]) == 2
    assert message in capsys.readouterr().err
