"""`infer.py` given ControlNets and clips to follow that it cannot use.

Each refusal comes before the model is read, says what is wrong and what to do, and writes nothing.
"""

import io
import json
import shutil
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hotshot_jax.cli.infer.control import plan_control
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.errors import UsageError
from hotshot_jax.media import ffmpeg
from hotshot_jax.media.write import write_video
from tests.cli.checkpoints import change_tensors, everything, replace
from tests.cli.conftest import Infer, Run
from tests.cli.refusals import assert_refused, assert_refused_at_once
from tests.other_models import change_json
from tests.tiny_controlnet import write_tiny_controlnet
from tests.web_server import serving

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ControlNet that fits the tiny checkpoint."""
    return write_tiny_controlnet(tmp_path_factory.mktemp("controlnet") / "net", 1)


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good clip."""
    path = tmp_path_factory.mktemp("clip") / "walk.gif"
    write_video(path, _frames(8), 1000, {})
    return path


def _frames(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 24, 3), np.uint8)


@pytest.fixture
def control(infer: Infer, net: Path, walk: Path) -> Callable[..., Run]:
    """Runs with a good ControlNet and clip, unless flags name others."""

    def run(*flags: str | Path) -> Run:
        given = list(flags)
        for name, value in (
            ("--control_type", "canny"),
            ("--gif", walk),
            ("--controlnet", net),
        ):
            if name not in given:
                given += [name, value]
        return infer(*given)

    return run


FLAGS = {
    "scale negative": (
        ["--controlnet_conditioning_scale", "-1"],
        "--controlnet_conditioning_scale is -1.0; expected a number from 0",
    ),
    "scale NaN": (["--controlnet_conditioning_scale", "nan"], "scale is nan"),
    "scale infinite": (["--controlnet_conditioning_scale", "inf"], "scale is inf"),
    "start after end": (
        ["--control_guidance_start", "0.8", "--control_guidance_end", "0.2"],
        "--control_guidance_start is 0.8 and --control_guidance_end 0.2; the start must be smaller",
    ),
    "start at end": (
        ["--control_guidance_start", "0.5", "--control_guidance_end", "0.5"],
        "the start must be smaller",
    ),
    "start below 0": (["--control_guidance_start", "-0.1"], "--control_guidance_start is -0.1"),
    "end past 1": (["--control_guidance_end", "1.5"], "--control_guidance_end is 1.5"),
    "end NaN": (["--control_guidance_end", "nan"], "--control_guidance_end is nan"),
    "kind unknown": (["--control_type", "pose"], "--control_type: invalid choice: 'pose'"),
    "preprocessing unknown": (["--control_preprocess", "some"], "invalid choice: 'some'"),
    "thresholds swapped": (
        ["--canny_low_threshold", "300"],
        "--canny_low_threshold is 300 and --canny_high_threshold 200",
    ),
    "threshold negative": (["--canny_low_threshold", "-5"], "--canny_low_threshold is -5"),
    "two scales for one": (
        ["--controlnet_conditioning_scale", "1", "--controlnet_conditioning_scale", "1"],
        "--controlnet_conditioning_scale has 2 values for 1 ControlNet",
    ),
    "two ControlNets and one scale": (
        ["--controlnet", "a", "--controlnet", "b", "--controlnet_conditioning_scale", "1"],
        "--controlnet_conditioning_scale has 1 value for 2 ControlNets; give one for each",
    ),
    "two ControlNets and one type": (
        ["--controlnet", "a", "--controlnet", "b", "--control_type_id", "1"],
        "--control_type_id has 1 value for 2 ControlNets; give one for each, or none",
    ),
    "two kinds for one": (
        ["--control_type", "canny", "--control_type", "depth"],
        "--control_type has 2 values for 1 ControlNet; give one for each, or one for all",
    ),
    "two clips for one": (
        ["--gif", "a.gif", "--gif", "b.gif"],
        "--gif has 2 values for 1 ControlNet; give one for each, or one for all",
    ),
    "an empty clip name": (["--gif", " "], "--gif is empty"),
    "a URL of a file": (["--gif", "file:///etc/passwd"], "only http:// and https://"),
    "a URL of this machine": (["--gif", "http://127.0.0.1/a.gif"], "--allow_private_urls"),
    "an unknown ending to save to": (
        ["--save_control", "control.txt"],
        "--save_control control.txt: unknown ending",
    ),
}


@pytest.mark.parametrize("case", FLAGS)
def test_flags(control: Callable[..., Run], tmp_path: Path, case: str) -> None:
    flags, expected = FLAGS[case]
    assert_refused_at_once(control(*flags), 2, expected)
    assert everything(tmp_path) == {}


def test_a_controlnet_without_a_clip(infer: Infer, net: Path, tmp_path: Path) -> None:
    assert_refused_at_once(infer("--control_type", "canny"), 2, "--control_type needs", "--gif")
    assert_refused_at_once(infer("--controlnet", net), 2, "--controlnet needs", "--gif")
    assert everything(tmp_path) == {}


def test_a_clip_without_a_controlnet_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """As in the reference; not even its existence is looked at."""
    plan = plan_control(InferSettings(gif=("none.gif",)))
    assert plan.controlnets == ()
    assert "--gif has no effect without --control_type or --controlnet" in caplog.text


def test_control_frames_to_save_without_a_controlnet(infer: Infer, walk: Path) -> None:
    run = infer("--gif", walk, "--save_control", "c.gif")
    assert_refused_at_once(run, 2, "--save_control needs")


def test_the_built_in_model_has_no_controlnet_for_depth(walk: Path) -> None:
    settings = InferSettings(control_type=("depth",), gif=(str(walk),))
    with pytest.raises(UsageError, match=r"no ControlNet for depth.*name one with --controlnet"):
        plan_control(settings)


def test_saved_control_frames_replace_nothing(control: Callable[..., Run], tmp_path: Path) -> None:
    there = tmp_path / "there.gif"
    there.write_bytes(b"mine")
    run = control("--save_control", there)
    assert_refused_at_once(run, 2, f"--save_control {there} is there already")
    both = tmp_path / "both.gif"
    run = control("--save_control", both, "--output", both)
    assert_refused_at_once(run, 2, f"--save_control {both} is also where the result goes")
    assert everything(tmp_path) == {"there.gif": b"mine"}


def _gif(count: int) -> bytes:
    first, *others = (Image.fromarray(frame) for frame in _frames(count))
    out = io.BytesIO()
    first.save(out, "GIF", save_all=True, append_images=others, duration=100)
    return out.getvalue()


def _wide_gif() -> bytes:
    return b"GIF89a" + (20_000).to_bytes(2, "little") + _gif(8)[8:]


def _sound() -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    return out.getvalue()


CLIPS: dict[str, tuple[bytes | None, int, tuple[str, ...]]] = {
    "missing.gif": (None, 2, ("does not exist",)),
    "zero.gif": (b"", 1, ("is empty", "zero bytes")),
    "cut.gif": (_gif(8)[:900], 1, ("cut",)),
    "one.gif": (_gif(1), 2, ("The clip has 1 frame", "--video_length asks for 8")),
    "few.gif": (_gif(5), 2, ("The clip has 5 frames", "Give a longer clip or ask for fewer")),
    "wide.gif": (_wide_gif(), 1, ("is 20000x16 pixels large; at most 8192",)),
    "text.gif": (b"not a GIF at all", 1, ("is not a picture or clip",)),
    "page.gif": (b"<!DOCTYPE html><html>", 1, ("is not a picture or clip",)),
    "cut.mp4": (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(200), 1, ("cut short",)),
}


@pytest.mark.parametrize("name", CLIPS)
def test_clips(control: Callable[..., Run], tmp_path: Path, name: str) -> None:
    content, status, expected = CLIPS[name]
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    before = everything(tmp_path)
    assert_refused_at_once(control("--gif", path), status, str(path), *expected)
    assert everything(tmp_path) == before


def test_an_mp4_without_a_picture(control: Callable[..., Run], tmp_path: Path) -> None:
    sound, path = tmp_path / "sound.wav", tmp_path / "sound.mp4"
    sound.write_bytes(_sound())
    ffmpeg.run_ffmpeg(["-i", str(sound), str(path)], subject="sound")
    assert_refused_at_once(control("--gif", path), 1, f"{path} has no video track")


def test_a_gif_of_too_many_frames(control: Callable[..., Run], tmp_path: Path) -> None:
    head, block, tail = _repeatable_gif()
    path = tmp_path / "long.gif"
    path.write_bytes(head + block * 100_000 + tail)
    assert_refused_at_once(control("--gif", path), 1, f"{path} has more than 10000 frames")


def _repeatable_gif() -> tuple[bytes, bytes, bytes]:
    """A GIF of one pixel: what comes first, its only frame, what comes last."""
    head = b"GIF89a\x01\0\x01\0\x80\0\0" + b"\0\0\0\xff\xff\xff"
    return head, b",\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0", b";"


def test_a_folder_without_pictures(control: Callable[..., Run], tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "notes.txt").write_text("none yet")
    assert_refused_at_once(control("--gif", folder), 1, f"{folder} holds no pictures")


def test_clips_that_look_bad_but_are_read(walk: Path, tmp_path: Path) -> None:
    """Zero delays and transparency are legal."""
    first, *others = (Image.fromarray(frame) for frame in _frames(8))
    first.save(tmp_path / "zero.gif", save_all=True, append_images=others, duration=0)
    clear = [Image.new("RGBA", (24, 16), (index * 30, 0, 0, 0)) for index in range(8)]
    for index, image in enumerate(clear):
        image.putpixel((index, 3), (10, 20, 30, 255))
    clear[0].save(tmp_path / "clear.gif", save_all=True, append_images=clear[1:], disposal=2)
    for name in ("zero.gif", "clear.gif"):
        settings = InferSettings(controlnet=("unused",), gif=(str(tmp_path / name),))
        (frames,) = plan_control(settings).sources
        assert frames.shape == (8, 16, 24, 3)
    assert (frames[0, 10, 20] == 255).all()


def test_urls(control: Callable[..., Run], tmp_path: Path) -> None:
    with serving() as server:
        server.files["/page"] = b"<html>"
        for path, expected in (
            ("/none.gif", "the server answers 404"),
            ("/page", "is not a picture or clip"),
        ):
            run = control("--gif", server.url + path, "--allow_private_urls")
            assert_refused_at_once(run, 1, server.url + path, expected)
    assert everything(tmp_path) == {}


def test_mp4_without_ffmpeg(
    control: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "walk.mp4"
    write_video(path, _frames(8), 1000, {})
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "none"))
    assert_refused_at_once(control("--gif", path), 1, "need ffmpeg", "pip install imageio-ffmpeg")


def _without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _for_sd15(folder: Path) -> None:
    change_json(folder / "config.json", cross_attention_dim=768, addition_embed_type=None)


def _of_a_unet(folder: Path) -> None:
    change_json(folder / "config.json", _class_name="UNet2DConditionModel")


def _invalid(folder: Path) -> None:
    replace(folder / "config.json", b"{")


def _truncated(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    replace(folder / WEIGHTS, content[: len(content) // 2])


def _without_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def _lacking_a_tensor(folder: Path) -> None:
    change_tensors(folder / WEIGHTS, lambda tensors: tensors.pop("controlnet_mid_block.weight"))


def _of_another_shape(folder: Path) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["controlnet_mid_block.bias"] = np.zeros(3, np.float32)

    change_tensors(folder / WEIGHTS, change)


def _not_finite(folder: Path) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["controlnet_mid_block.bias"][0] = np.nan

    change_tensors(folder / WEIGHTS, change)


NETS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "no config": (_without_config, ("config.json",)),
    "invalid config": (_invalid, ("config.json",)),
    "for SD 1.5": (_for_sd15, ("ControlNet for Stable Diffusion 1.5", "needs one for SDXL")),
    "a UNet": (_of_a_unet, ("UNet2DConditionModel", "not a ControlNet")),
    "truncated": (_truncated, (WEIGHTS,)),
    "no weights": (_without_weights, ("no .safetensors weights",)),
    "a tensor missing": (_lacking_a_tensor, ("controlnet_mid_block.weight",)),
    "a tensor of another shape": (_of_another_shape, ("controlnet_mid_block.bias",)),
    "not finite": (_not_finite, ("controlnet_mid_block.bias",)),
}


@pytest.mark.parametrize("case", NETS)
def test_controlnets(control: Callable[..., Run], net: Path, tmp_path: Path, case: str) -> None:
    change, expected = NETS[case]
    folder = shutil.copytree(net, tmp_path / "net")
    change(folder)
    before = everything(tmp_path)
    run = control("--controlnet", folder)
    # Only the numbers themselves are looked at when they are read, after those of the base model.
    refused = assert_refused if case == "not finite" else assert_refused_at_once
    refused(run, 1, str(folder), *expected)
    assert everything(tmp_path) == before


def test_a_controlnet_of_another_size(control: Callable[..., Run], tmp_path: Path) -> None:
    folder = write_tiny_controlnet(tmp_path / "net", 1, block_out_channels=(32, 128))
    run = control("--controlnet", folder)
    assert_refused_at_once(run, 1, "ControlNet 1", "block_out_channels")


def test_no_controlnet_there(control: Callable[..., Run], tmp_path: Path) -> None:
    run = control("--controlnet", tmp_path / "none")
    assert_refused_at_once(run, 2, str(tmp_path / "none"))
    assert everything(tmp_path) == {}


def test_a_type_for_a_controlnet_that_is_no_union(
    control: Callable[..., Run], tmp_path: Path
) -> None:
    run = control("--control_type_id", "3")
    assert_refused_at_once(run, 2, "control type 3, but this is not a union ControlNet")
    assert everything(tmp_path) == {}


def test_a_picture_from_elsewhere_does_not_allow_private_urls(
    infer: Infer, net: Path, tmp_path: Path
) -> None:
    """Settings inside a result say what to draw, not what this machine may be asked for."""
    settings = {
        "controlnet": [str(net)],
        "gif": ["http://127.0.0.1:1/a.gif"],
        "allow_private_urls": True,
        "overwrite": True,
    }
    write_video(tmp_path / "theirs.gif", _frames(8), 1000, {"settings": json.dumps(settings)})
    run = infer("--config", tmp_path / "theirs.gif")
    assert_refused_at_once(run, 2, "--trust_config", f"--controlnet {net}")
    for trust in (["--trust_config"], ["--gif", *settings["gif"], "--controlnet", str(net)]):
        run = infer("--config", tmp_path / "theirs.gif", *trust)
        assert_refused_at_once(run, 2, "--allow_private_urls allows it")
