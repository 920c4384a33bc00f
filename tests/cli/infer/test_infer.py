"""`infer.py` on a checkpoint in the published layout, from its flags alone."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hotshot_jax.jobs.settings import ClipSettings
from hotshot_jax.media.metadata import read_metadata
from tests.cli.conftest import Infer


def frames_of(path: Path) -> list[np.ndarray]:
    """Every frame of a GIF as RGB."""
    with Image.open(path) as image:
        frames = []
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            frames.append(np.asarray(image.convert("RGB")))
    return frames


def pngs_of(folder: Path) -> np.ndarray:
    """The frames of a folder of PNGs, `[frames, height, width, 3]`."""
    return np.stack([np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))])


def test_writes_a_gif_and_prints_its_path(infer: Infer, tmp_path: Path) -> None:
    run = infer("--prompt", "a bulldog")
    assert run.status == 0
    assert run.stdout.strip() == str(tmp_path / "out.gif")
    assert "not trained on 16 x 16" in run.stderr
    frames = frames_of(tmp_path / "out.gif")
    assert len(frames) == 8
    assert frames[0].shape == (16, 16, 3)
    with Image.open(tmp_path / "out.gif") as image:
        durations = []
        for index in range(8):
            image.seek(index)
            durations.append(image.info["duration"])
    assert sum(durations) == 1000


@pytest.mark.parametrize("ending", [".mp4", ".webp"])
def test_writes_every_form(infer: Infer, tmp_path: Path, ending: str) -> None:
    run = infer("--output", f"{tmp_path}/new/clip{ending}")
    assert run.status == 0
    assert Path(run.stdout.strip()).exists()


def test_one_frame_is_a_picture(infer: Infer, tmp_path: Path) -> None:
    assert infer("--video_length", "1", "--output", tmp_path / "still.png").status == 0
    assert np.asarray(Image.open(tmp_path / "still.png")).shape == (16, 16, 3)


def test_the_same_seed_gives_the_same_picture(infer: Infer, tmp_path: Path, plain: Path) -> None:
    for name, seed in (("again", ClipSettings.seed), ("other", 2)):
        assert infer("--output", tmp_path / name, "--seed", str(seed)).status == 0
    assert (pngs_of(tmp_path / "again") == pngs_of(plain)).all()
    assert (pngs_of(tmp_path / "other") != pngs_of(plain)).any()


def test_zero_is_a_seed_and_past_32_bits_the_low_bits_count(infer: Infer, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 2**32)):
        assert infer("--output", tmp_path / name, "--seed", str(seed)).status == 0
    assert (pngs_of(tmp_path / "a") == pngs_of(tmp_path / "b")).all()


def test_the_result_holds_its_settings_and_gives_itself_again(infer: Infer, tmp_path: Path) -> None:
    first, second = tmp_path / "first.webp", tmp_path / "second.webp"
    flags = ("--prompt", "ein Hündchen ☃", "--seed", "3", "--guidance_scale", "2.5")
    assert infer("--output", first, *flags).status == 0
    metadata = read_metadata(first)
    settings = json.loads(metadata["settings"])
    assert settings["prompt"] == "ein Hündchen ☃"
    assert settings["guidance_scale"] == 2.5
    assert "hotshot-jax" in metadata["versions"]
    assert infer("--config", first, "--output", second).status == 0
    assert frames_of(first)[3].tolist() == frames_of(second)[3].tolist()


def test_flags_win_over_the_configuration(infer: Infer, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("steps: 1\nwidth: 24\nheight: 16\nseed: 9\nguidance_scale: 3\n")
    run = infer("--config", config, "--width", "16", "--json")
    assert run.status == 0
    settings = run.report["settings"]
    assert (settings["steps"], settings["width"], settings["seed"]) == (1, 16, 9)


def test_many_prompts_compile_once_and_what_is_cut_off_one_is_told(
    infer: Infer, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.txt"
    long = "cat " * 80 + "unicorn"
    prompts.write_text(f"a red fox\n\na blue whale\n{long}\n")
    run = infer("--prompts_file", prompts, "--json", "--output", tmp_path / "clip.gif")
    assert run.status == 0
    assert [Path(output).name for output in run.report["outputs"]] == [
        "clip-001.gif",
        "clip-002.gif",
        "clip-003.gif",
    ]
    assert run.stderr.count("denoising step") == 1
    assert "unicorn" in run.stderr
    prompts_stored = [
        json.loads(read_metadata(output)["settings"])["prompt"] for output in run.report["outputs"]
    ]
    assert prompts_stored == ["a red fox", "a blue whale", long]


def test_several_videos_of_a_prompt_differ(infer: Infer, tmp_path: Path) -> None:
    run = infer("--num_videos", "2", "--output", f"{tmp_path}/clip/", "--json")
    assert run.status == 0
    one, two = (pngs_of(Path(output)) for output in run.report["outputs"])
    assert (one != two).any()


def test_a_second_run_compiles_nothing(infer: Infer, plain: Path) -> None:
    again = infer("--json")
    assert again.report["compiled"] == 0
    assert "taken from the cache" in again.stderr


@pytest.mark.parametrize("prompt", ["", "   "])
def test_an_empty_prompt_is_legal(infer: Infer, prompt: str) -> None:
    assert infer("--prompt", prompt).status == 0


def test_guidance_of_one_means_none(infer: Infer, tmp_path: Path) -> None:
    for name, negative in (("a", "blurry"), ("b", "something else")):
        flags = ("--guidance_scale", "1", "--negative_prompt", negative)
        assert infer("--output", tmp_path / name, *flags).status == 0
    assert (pngs_of(tmp_path / "a") == pngs_of(tmp_path / "b")).all()


@pytest.mark.parametrize("scheduler", ["euler", "ddim", "dpmpp_2m_karras", "lcm", "default"])
def test_schedulers_by_short_name(infer: Infer, scheduler: str) -> None:
    assert infer("--scheduler", scheduler).status == 0


def test_low_vram_mode_changes_no_pixel(infer: Infer, tmp_path: Path, plain: Path) -> None:
    assert infer("--output", tmp_path / "a", "--low_vram_mode").status == 0
    assert (pngs_of(tmp_path / "a") == pngs_of(plain)).all()


def test_half_precisions_run(infer: Infer, tmp_path: Path) -> None:
    frames = {}
    for precision in ("f32", "f16", "bf16"):
        assert infer("--output", tmp_path / precision, "--precision", precision).status == 0
        frames[precision] = pngs_of(tmp_path / precision).astype(float).ravel()
    # The same picture but for rounding, which random weights amplify: with the 8 bits of bfloat16
    # the correlation is about 0.75, with another seed about 0.01.
    for precision in ("f16", "bf16"):
        assert np.corrcoef(frames["f32"], frames[precision])[0, 1] > 0.5


def test_the_precision_of_the_vae_is_told_and_travels_in_the_file(
    infer: Infer, tmp_path: Path
) -> None:
    first, again, exact = (tmp_path / name for name in ("a.webp", "b.webp", "c.webp"))
    run = infer("--output", first, "--vae_precision", "bf16")
    assert run.status == 0
    assert "; VAE bf16" in run.stderr + run.stdout
    assert json.loads(read_metadata(first)["settings"])["vae_precision"] == "bf16"
    assert infer("--config", first, "--output", again).status == 0
    assert infer("--output", exact, "--vae_precision", "f32").status == 0
    frames = [np.stack(frames_of(file)) for file in (first, again, exact)]
    assert np.array_equal(frames[0], frames[1])
    assert not np.array_equal(frames[0], frames[2])
