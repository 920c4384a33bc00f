"""`--config`: settings from a YAML or JSON file, or from a result of an earlier run."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hotshot_jax.cli.infer.arguments import parse_settings
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.cli.infer.stored_settings import STORED
from hotshot_jax.errors import UsageError
from hotshot_jax.media.write import write_video
from tests.builtin_settings import builtin_settings
from tests.cli.conftest import Infer
from tests.cli.refusals import assert_refused_at_once

FRAMES = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)


def settings_of(*arguments: str | Path) -> InferSettings:
    return parse_settings([str(each) for each in arguments])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.yaml", "steps: 20\nprompt: ein Hündchen\nlow_vram_mode: true\nguidance_scale: 3\n"),
        ("a.yml", "{steps: 20, prompt: ein Hündchen, low_vram_mode: yes, guidance_scale: 3.0}"),
        (
            "a.JSON",
            '{\n\t"steps": 20, "prompt": "ein Hündchen",\n\t"low_vram_mode": true,'
            '\n\t"guidance_scale": 3, "seed": null}',
        ),
        (
            "bom.yaml",
            "\ufeffsteps: 20\nprompt: ein Hündchen\nlow_vram_mode: true\nguidance_scale: 3",
        ),
    ],
)
def test_files(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    settings = settings_of("--config", tmp_path / name)
    # No model is named: the settings of the built-in one come under those of the file.
    expected = InferSettings(
        **{
            **builtin_settings(),
            "steps": 20,
            "prompt": "ein Hündchen",
            "low_vram_mode": True,
            "guidance_scale": 3.0,
        }
    )
    assert settings == expected


KEYED = (
    "prompt_at: {0: a fox, 6: a whale}\nguidance_scale: {0: 5, 6: 8}\nloop: true\n"
    "motion_scale: {down1: 0.5}\ncontrolnet_conditioning_scale: {0: 1, 6: 0}\n"
    "frame_at: {3: cat.png}\nnegative_prompt_at: [{2: dull}]\n"
)


def test_what_differs_by_frame_is_the_same_from_flags_files_and_results(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(KEYED)
    by_file = settings_of("--config", tmp_path / "a.yaml")
    flags = (
        "--prompt_at=0: a fox",
        "--prompt_at=6: a whale",
        "--guidance_scale=0:5,6:8",
        "--loop",
        "--motion_scale=down1=0.5",
        "--controlnet_conditioning_scale=0:1,6:0",
        "--frame_at=3:cat.png",
        "--negative_prompt_at=2: dull",
    )
    assert settings_of(*flags) == by_file
    # The default prompt does not hold at the first frame.
    assert by_file.prompt == by_file.negative_prompt == ""
    assert by_file.controlnet_conditioning_scale == ({0: 1.0, 6: 0.0},)
    stored = by_file.stored()
    write_video(tmp_path / "a.gif", FRAMES, 1000, {STORED: json.dumps(stored)})
    again = settings_of("--config", tmp_path / "a.gif", "--frame_at=3:cat.png")
    assert again == by_file


def test_what_is_about_steps_is_the_same_from_flags_files_and_results(tmp_path: Path) -> None:
    by_flags = settings_of("--cache_interval=0,1,2,5", "--guidance_interval=0:0.8")
    assert by_flags.cache_interval == (0, 1, 2, 5)
    assert by_flags.guidance_interval == (0.0, 0.8)
    for text in (
        "cache_interval: [0, 1, 2, 5]\nguidance_interval: [0, 0.8]\n",
        "cache_interval: 0,1,2,5\nguidance_interval: '0:0.8'\n",
    ):
        (tmp_path / "a.yaml").write_text(text)
        assert settings_of("--config", tmp_path / "a.yaml") == by_flags
    stored = {STORED: json.dumps(by_flags.stored())}
    write_video(tmp_path / "a.gif", FRAMES, 1000, stored)
    assert settings_of("--config", tmp_path / "a.gif") == by_flags
    # Without quotes, YAML reads a number of base 60.
    (tmp_path / "a.yaml").write_text("guidance_interval: 0:0.8\n")
    with pytest.raises(UsageError, match="in quotes, or a list of two numbers"):
        settings_of("--config", tmp_path / "a.yaml")


def test_a_plain_result_tells_of_nothing_that_it_does_not_use() -> None:
    assert not {"loop", "motion_scale", "cache_interval", "guidance_interval"} & {
        *InferSettings().stored()
    }


def test_long_clips_last_longer() -> None:
    lengths = {1: 1000, 8: 1000, 24: 1000, 25: 3125, 64: 8000}
    for frames, duration in lengths.items():
        assert InferSettings(video_length=frames).video_duration == duration
    assert InferSettings(video_length=64, video_duration=500).video_duration == 500


def test_another_length_than_the_file_s_has_its_own_duration(tmp_path: Path) -> None:
    write_video(tmp_path / "a.gif", FRAMES, 1000, {STORED: json.dumps(InferSettings().stored())})
    longer = settings_of("--config", tmp_path / "a.gif", "--video_length", "64")
    assert longer.video_duration == 8000
    (tmp_path / "b.yaml").write_text("video_duration: 700")
    assert settings_of("--config", tmp_path / "b.yaml", "--video_length", "9").video_duration == 700


def test_flags_win(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("steps: 20\nlow_vram_mode: true\n")
    settings = settings_of("--config", tmp_path / "a.yaml", "--steps", "5", "--no-low_vram_mode")
    assert (settings.steps, settings.low_vram_mode) == (5, False)


def test_a_size_given_as_a_flag_replaces_the_size_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "size.yaml").write_text("width: 64\nheight: 64\n")
    (tmp_path / "ratio.yaml").write_text("aspect_ratio: '1.75'\n")
    ratio = settings_of("--config", tmp_path / "size.yaml", "--aspect_ratio", "1.75").sized()
    assert (ratio.width, ratio.height) == (672, 384)
    size = settings_of("--config", tmp_path / "ratio.yaml", "--width", "64", "--height", "32")
    assert (size.sized().width, size.sized().height) == (64, 32)


BAD_FILES = {
    "unknown key": ("a.yaml", "step: 20", "unknown key 'step'; did you mean 'steps'?"),
    "unknown key unlike any": ("a.yaml", "zzz: 20", "unknown key 'zzz'."),
    "key that is no text": ("a.yaml", "1: 20", "unknown key 1"),
    "text for a number": ("a.yaml", "steps: many", "steps is 'many'; expected a value of type int"),
    "fraction for a whole number": ("a.yaml", "steps: 2.5", "steps is 2.5; expected"),
    "truth for a number": ("a.yaml", "steps: true", "steps is True; expected"),
    "number for a text": ("a.json", '{"prompt": 5}', "prompt is 5; expected a value of type str"),
    "list": ("a.yaml", "prompt: [a, b]", "prompt is ['a', 'b']; expected a value of type str"),
    "unknown choice": ("a.yaml", "precision: f8", "precision is 'f8'; expected f16 or f32 or bf16"),
    "value out of range": ("a.yaml", "steps: 0", "--steps is 0; expected 1 to 1000"),
    "not a number": ("a.yaml", "guidance_scale: .nan", "--guidance_scale is nan"),
    "invalid YAML": ("a.yaml", "steps: [", "not readable as YAML or JSON"),
    "YAML that makes objects": (
        "a.yaml",
        "!!python/object/apply:os.system ['touch never']",
        "not readable as YAML or JSON",
    ),
    "invalid JSON": ("a.json", "{'steps': 5}", "not readable as YAML or JSON"),
    "deep JSON": ("a.json", "[" * 100000, "not readable as YAML or JSON"),
    "a list": ("a.yaml", "- steps\n- 20\n", "expected keys and values, such as 'steps: 20'"),
    "empty": ("a.yaml", "", "expected keys and values, such as 'steps: 20'"),
    "unknown ending": ("a.toml", "steps = 5", "expected a .yaml or .json file, or a result"),
    "no picture": ("a.gif", "steps: 5", "expected a .yaml or .json file, or a result"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files(infer: Infer, tmp_path: Path, case: str) -> None:
    name, content, expected = BAD_FILES[case]
    (tmp_path / name).write_text(content)
    run = infer("--config", tmp_path / name)
    if not expected.startswith("--"):
        assert_refused_at_once(run, 2, f"--config {tmp_path / name}")
    assert_refused_at_once(run, 2, expected)


def test_files_that_cannot_be_read(infer: Infer, tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "latin.yaml").write_bytes(b"prompt: H\xfcndchen\n")
    (tmp_path / "empty").mkdir()
    for name, expected in (
        ("missing.yaml", "there is no such file"),
        (f"{'a' * 300}.yaml", "there is no such file"),
        ("folder.yaml", "Is a directory"),
        ("latin.yaml", "not readable as YAML or JSON"),
        ("empty", "holds no frames"),
    ):
        run = infer("--config", tmp_path / name)
        assert_refused_at_once(run, 2, f"--config {tmp_path / name}", expected)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.jpg"])
def test_a_picture_without_settings(infer: Infer, tmp_path: Path, name: str) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / name)
    run = infer("--config", tmp_path / name)
    assert_refused_at_once(run, 2, f"--config {tmp_path / name}", "holds no settings")


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.mp4", "a.png", "a.jpg", "folder"])
def test_a_result_gives_its_settings_back(tmp_path: Path, name: str) -> None:
    stored = InferSettings(prompt="a fox ☃", steps=7, width=64, height=48, seed=2**64 - 1).stored()
    write_video(tmp_path / name, FRAMES, 1000, {STORED: json.dumps(stored)})
    assert settings_of("--config", tmp_path / name).stored() == stored


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, "stored settings are damaged"),
        ({STORED: "{"}, "stored settings are damaged"),
        ({STORED: "[1]"}, "expected keys and values"),
        ({STORED: '{"warp": 9}'}, "unknown key 'warp'"),
    ],
)
def test_a_result_with_damaged_settings(
    tmp_path: Path, metadata: dict[str, str], expected: str
) -> None:
    write_video(tmp_path / "a.gif", FRAMES, 1000, metadata)
    with pytest.raises(UsageError, match=expected):
        settings_of("--config", tmp_path / "a.gif")
