"""From the fields to a request, and from settings to the fields."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hotshot_jax.errors import HotshotError
from hotshot_jax.media.metadata import SETTINGS_KEY, read_metadata
from hotshot_jax.media.write import write_video
from hotshot_jax.server.page.asked import asked_for, taken_up
from hotshot_jax.server.page.following import difference
from tests.server.fakes import Serving

USUAL: dict[str, Any] = {
    "prompt": "a star",
    "size": "64x64",
    "seed": "",
    "num_frames": 4,
    "num_inference_steps": 3,
    "loop": False,
    "negative_prompt": "blurry",
    "guidance_scale": 5,
    "guidance_rescale": 0,
    "motion_scale": 1,
    "fps": 8,
    "ping_pong": False,
    "first_frame": None,
    "last_frame": None,
    "prompt_at": "",
    "lora style": 0,
}


def test_fields_become_settings_of_the_api() -> None:
    given = USUAL | {"size": " 64 X 32", "seed": str(2**64 - 1), "loop": True, "lora style": 0.5}
    given |= {"prompt_at": "2: a moon\n\n 3 : a sun: red ", "last_frame": "/somewhere/a.png"}
    asked = asked_for(given)
    assert asked.values == {
        "prompt": "a star",
        "negative_prompt": "blurry",
        "width": 64,
        "height": 32,
        "video_length": 4,
        "steps": 3,
        "seed": 2**64 - 1,
        "loop": True,
        "guidance_scale": 5,
        "guidance_rescale": 0,
        "motion_scale": 1,
        "frame_ms": 125,
        "prompt_at": {"2": "a moon", "3": "a sun: red"},
        "lora": [["style", 0.5]],
    }
    assert asked.pictures == {"last_frame": Path("/somewhere/a.png")}
    assert asked_for(USUAL).values["seed"] != asked_for(USUAL).values["seed"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"prompt": "  "}, "`prompt` is missing"),
        ({"prompt": None}, "`prompt` is missing"),
        ({"size": "large"}, "`size` is to be WIDTHxHEIGHT"),
        ({"size": None}, "`size` is to be WIDTHxHEIGHT"),
        ({"size": "٣x٣"}, "`size` is to be WIDTHxHEIGHT"),
        ({"seed": "-1"}, "`seed` is no whole number"),
        ({"seed": "1e3"}, "`seed` is no whole number"),
        ({"seed": str(2**64)}, "seed: Input should be less than"),
        ({"seed": "9" * 50}, "`seed` is no whole number"),
        ({"prompt_at": "a moon"}, "a frame and a prompt in each line"),
        ({"num_frames": 0}, "num_frames: Input should be greater"),
        ({"num_frames": "many"}, "num_frames: Input should be a valid"),
        ({"num_inference_steps": {"a": 1}}, "num_inference_steps"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"prompt": "a" * (1 << 17)}, "prompt: String should have at most"),
    ],
)
def test_what_is_wrong_is_told_in_words(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(HotshotError, match=told) as error:
        asked_for(USUAL | wrong)
    assert len(str(error.value)) < 200


def test_settings_go_round(tmp_path: Path) -> None:
    given = USUAL | {"seed": "9", "ping_pong": True, "prompt_at": "2: a moon", "fps": 5}
    with Serving(tmp_path) as serving:
        job = serving.service.submit("video", asked_for(given).values)
        serving.ended(job.id)
        for form in ("gif", "mp4", "webp"):
            found = taken_up(serving.service.result(job.id, form))
            assert not found.left_out
            assert asked_for(given | found.fields).values == asked_for(given).values
        job = serving.service.submit("video", {"prompt": "a", "seed": 1, "cache_interval": 2})
        other = serving.service.submit("video", {"prompt": "a", "seed": 2, "guidance_scale": 2.5})
        serving.ended(job.id)
        found = taken_up(serving.service.result(job.id, "gif"))
    assert found.left_out == ["cache_interval"]
    assert found.fields["size"] == "128x128" and found.fields["fps"] == 8
    assert difference(job, [job, other]) == "seed 1, cache_interval 2"
    assert difference(other, [job, other]) == "seed 2, guidance 2.5"
    assert difference(job, [job]) == ""


@pytest.mark.parametrize(
    "stored",
    [
        None,
        "{",
        "[1]",
        '{"width": "a", "height": 3}',
        '{"seed": [1]}',
        '{"seed": 1e999}',
        '{"lora": 7}',
        '{"lora": ["a:b"]}',
        '{"prompt_at": [[]]}',
        '{"video_duration": 1000}',
        '{"video_duration": 0, "video_length": 8}',
    ],
)
def test_damaged_settings_are_told(tmp_path: Path, stored: str | None) -> None:
    path = tmp_path / "upload.gif"
    metadata = {} if stored is None else {SETTINGS_KEY: stored}
    write_video(path, np.zeros((2, 8, 8, 3), np.uint8), 1000, metadata)
    with pytest.raises(HotshotError, match="holds no settings"):
        taken_up(path)
    path.write_bytes(b"GIF89a")
    with pytest.raises(HotshotError, match="holds no settings"):
        taken_up(path)


def test_loras_are_known_by_their_names(tmp_path: Path) -> None:
    path = tmp_path / "upload.gif"
    kept = {"prompt": "a", "lora": ["style.safetensors:0.5", "folder"], "scheduler": "DDIM"}
    kept |= {"guidance_scale": {"0": 5, "3": 2}, "video": "walk.gif", "clip_skip": 0}
    write_video(path, np.zeros((2, 8, 8, 3), np.uint8), 1000, {SETTINGS_KEY: json.dumps(kept)})
    assert SETTINGS_KEY in read_metadata(path)
    found = taken_up(path)
    assert (found.fields["lora style"], found.fields["lora folder"]) == (0.5, 1)
    assert found.left_out == ["guidance_scale", "video"]
