"""`infer.py` given what it cannot use: each refusal says what is wrong, where, and what to do.

In the order in which a run meets them: the numbers, the output, the model's folder, the device, the
cache of compiled programs. What can be wrong with a model's files is in `test_infer_bad_models.py`.
Prompts that are empty or too long are legal and among the tests of good input.
"""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np
import pytest
from huggingface_hub import constants

from hotshot_jax.convert import load
from hotshot_jax.media import write
from hotshot_jax.media.write import write_video
from hotshot_jax.runtime.runtime import Runtime
from tests.cli.checkpoints import (
    everything,
    write_hub_cache,
)
from tests.cli.conftest import Infer
from tests.cli.processes import ROOT, infer_command
from tests.cli.refusals import assert_refused, assert_refused_at_once

NUMBERS = {
    "width not a multiple of 8": (["--width", "100"], "--width is 100; expected a multiple of 8"),
    "height not a multiple of 8": (["--height", "20"], "--height is 20; expected a multiple of 8"),
    "width zero": (["--width", "0"], "--width is 0"),
    "height negative": (["--height", "-8"], "--height is -8"),
    "width absurdly large": (["--width", "800000"], "to 4096"),
    "height past any integer": (["--height", str(2**70)], "to 4096"),
    "width no number": (["--width", "wide"], "--width: invalid int value: 'wide'"),
    "aspect ratio unknown": (["--aspect_ratio", "7"], "--aspect_ratio"),
    "aspect ratio and size": (
        ["--aspect_ratio", "1.75", "--width", "16"],
        "--aspect_ratio sets width and height",
    ),
    "video_length 0": (["--video_length", "0"], "--video_length is 0; expected 1 to 1024"),
    "video_length -1": (["--video_length", "-1"], "--video_length is -1; expected 1 to 1024"),
    "video_length 1025": (
        ["--video_length", "1025"],
        "--video_length is 1025; expected 1 to 1024",
    ),
    "a loop of one frame": (["--loop", "--video_length", "1"], "--loop needs at least 2 frames"),
    "a loop back and forth": (["--loop", "--ping_pong"], "give one of them"),
    "two frames back and forth": (["--ping_pong", "--video_length", "2"], "at least 3 frames"),
    "a window past the positions": (
        ["--video_length", "40", "--context_length", "25"],
        "--context_length is 25; the temporal layers know 24 positions",
    ),
    "windows that overlap whole": (
        ["--video_length", "40", "--context_overlap", "8"],
        "--context_overlap is 8; expected 0 to 7, less than --context_length (8)",
    ),
    "windows without frames": (["--context_length", "0"], "--context_length is 0"),
    "a schedule that closes no loop": (
        ["--loop", "--context_schedule", "batched"],
        "--context_schedule is batched, which closes no loop",
    ),
    "weights for neighbours alone": (
        ["--loop", "--context_fuse", "relative"],
        "--context_fuse relative is for windows of neighbouring frames",
    ),
    "a frame in no window": (
        "--video_length 50 --context_length 23 --context_overlap 16 --context_stride 2 "
        "--context_schedule standard_uniform --steps 40".split(),
        "Frame 1 is in no window of step 22",
    ),
    "no windows at once": (["--context_batch", "0"], "--context_batch is 0; expected 1 or more"),
    "a key past the clip": (
        ["--prompt_at", "8: a star"],
        "--prompt_at names frame 8; the frames of this clip are 0 to 7",
    ),
    "a key before the clip": (["--negative_prompt_at", "-1: dull"], "frame -1"),
    "a key twice": (
        ["--prompt_at", "3: a star", "--prompt_at", "3: a cross"],
        "--prompt_at is given twice for frame 3",
    ),
    "a key without a frame": (["--prompt_at", "a star"], 'expected "FRAME: PROMPT"'),
    "guidance NaN at a frame": (["--guidance_scale", "0:5,4:nan"], "--guidance_scale is nan"),
    "guidance that crosses 1": (
        ["--guidance_scale", "0:5,4:1"],
        "--guidance_scale goes from 1 to 5 over the frames",
    ),
    "guidance past the clip": (["--guidance_scale", "0:5,9:6"], "--guidance_scale names frame 9"),
    "guidance no number": (["--guidance_scale", "much"], "'much': expected a number"),
    "motion negative": (["--motion_scale", "-1"], "--motion_scale is -1.0"),
    "motion of no block": (["--motion_scale", "dwn1=2"], "Did you mean down1?"),
    "motion NaN in a block": (["--motion_scale", "up0=0:1,3:nan"], "nan; expected a number from 0"),
    "video_duration 0": (["--video_duration", "0"], "--video_duration is 0"),
    "video_duration too short": (["--video_duration", "159"], "from 160 (20 a frame)"),
    "video_duration negative": (["--video_duration", "-1000"], "--video_duration is -1000"),
    "video_duration of a clip of one frame": (
        ["--video_length", "1", "--video_duration", "0"],
        "--video_duration is 0",
    ),
    "video_duration too long": (["--video_duration", "10000000"], "to 5242800"),
    "steps 0": (["--steps", "0"], "--steps is 0; expected 1 to 1000"),
    "steps -1": (["--steps", "-1"], "--steps is -1; expected 1 to 1000"),
    "steps 1001": (["--steps", "1001"], "--steps is 1001; expected 1 to 1000"),
    "guidance NaN": (["--guidance_scale", "nan"], "--guidance_scale is nan; expected a number"),
    "guidance inf": (["--guidance_scale", "inf"], "--guidance_scale is inf; expected a number"),
    "guidance negative": (["--guidance_scale", "-1"], "--guidance_scale is -1.0"),
    "cache_interval 0": (["--cache_interval", "0"], "--cache_interval is 0; expected a whole"),
    "cache_interval negative": (["--cache_interval", "-2"], "--cache_interval is -2"),
    "cache_interval no number": (["--cache_interval", "nan"], "'nan': expected a number of steps"),
    "cache_interval no whole number": (["--cache_interval", "2.5"], "'2.5': expected a number of"),
    "cache_interval without a start": (["--cache_interval", "1,2"], "[1, 2], without step 0"),
    "cache_interval past the steps": (
        ["--cache_interval", "0,30"],
        "--cache_interval names step 30; 2 steps are counted from 0 to 1",
    ),
    "cache_interval twice": (["--cache_interval", "0,1,1"], "names step 1 twice"),
    "guidance_interval turned round": (
        ["--guidance_interval", "0.8:0.2"],
        "--guidance_interval goes from 0.8 to 0.2",
    ),
    "guidance_interval past 1": (["--guidance_interval", "0:1.5"], "--guidance_interval has 1.5"),
    "guidance_interval negative": (["--guidance_interval=-1:1"], "--guidance_interval has -1.0"),
    "guidance_interval NaN": (["--guidance_interval", "nan:1"], "--guidance_interval has nan"),
    "guidance_interval of one": (["--guidance_interval", "0.8"], "'0.8': expected LOW:HIGH"),
    "guidance_rescale past 1": (["--guidance_rescale", "1.5"], "--guidance_rescale is 1.5"),
    "eta past 1": (["--eta", "2"], "--eta is 2.0; expected a number from 0 to 1"),
    "compile_effort unknown": (
        ["--compile_effort", "O4"],
        "--compile_effort: invalid choice: 'O4'",
    ),
    "compile_effort on a CPU": (["--compile_effort", "O1"], "O1 is for TPUs, and this run is on"),
    "clip_skip negative": (["--clip_skip", "-1"], "--clip_skip is -1"),
    "clip_skip past the encoder": (["--clip_skip", "12"], "--clip_skip is 12; expected 0 to 11"),
    "original size": (["--og_width", "-5"], "--og_width or --og_height is -5"),
    "target size": (["--target_height", "-5"], "--target_width or --target_height is -5"),
    "seed negative": (["--seed", "-1"], "--seed is -1; expected a whole number from 0 to 2**64"),
    "seed past 64 bits": (["--seed", str(2**64)], "--seed is 18446744073709551616"),
    "seed text": (["--seed", "lucky"], "--seed: invalid int value: 'lucky'"),
    "num_videos 0": (["--num_videos", "0"], "--num_videos is 0; expected 1 to 1000"),
    "num_videos absurd": (["--num_videos", "1000000000"], "expected 1 to 1000"),
    "precision unknown": (["--precision", "f8"], "--precision: invalid choice: 'f8'"),
    "vae_precision unknown": (
        ["--vae_precision", "f16"],
        "--vae_precision: invalid choice: 'f16'",
    ),
    "flag unknown": (["--step", "5"], "unrecognized arguments: --step 5; did you mean --steps?"),
    "flag without a value": (["--prompt"], "--prompt: expected one argument"),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers(infer: Infer, tmp_path: Path, case: str) -> None:
    flags, expected = NUMBERS[case]
    assert_refused_at_once(infer(*flags), 2, expected)
    assert everything(tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("eulr", "euler"), ("EulerAncestrall", "euler_ancestral"), ("dpm_2m", "dpm")],
)
def test_unknown_schedulers(infer: Infer, name: str, nearest: str) -> None:
    run = infer("--scheduler", name)
    assert_refused_at_once(run, 2, f"--scheduler {name}", "dpmpp_2m_karras")
    assert run.stderr.partition("nearest first: ")[2].startswith(nearest)


def test_prompts_files(infer: Infer, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    for content, expected in (
        (None, "No such file"),
        (b"", "holds no prompt"),
        (b" \n\n", "holds no prompt"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
    ):
        if content is not None:
            prompts.write_bytes(content)
        run = infer("--prompts_file", prompts)
        assert_refused_at_once(run, 2, f"--prompts_file {prompts}", expected)


def test_an_output_in_a_missing_folder_is_made(infer: Infer, tmp_path: Path) -> None:
    assert infer("--output", tmp_path / "new" / "deep" / "a.gif").status == 0
    assert list(everything(tmp_path)) == ["new", "new/deep", "new/deep/a.gif"]


def test_an_output_that_is_not_writable(
    infer: Infer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    # The superuser, as whom tests often run, may write everywhere.
    monkeypatch.setattr(write.os, "open", refuse)
    path = tmp_path / "a.gif"
    assert_refused_at_once(infer("--output", path), 2, f"--output {path}", "Permission denied")
    monkeypatch.undo()
    assert everything(tmp_path) == {}


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs Linux's /proc")
def test_an_output_on_a_file_system_that_refuses_files(infer: Infer) -> None:
    assert_refused_at_once(infer("--output", "/proc/a.gif"), 2, "--output /proc/a.gif")


def test_outputs_that_are_something_else(infer: Infer, tmp_path: Path) -> None:
    (tmp_path / "folder.gif").mkdir()
    (tmp_path / "file").write_bytes(b"before")
    (tmp_path / "old.gif").write_bytes(b"before")
    before = everything(tmp_path)
    for name, expected in (
        ("folder.gif", "is a folder"),
        ("file", "is a file"),
        ("file/a.gif", "is a file"),
        ("old.gif", "--overwrite to replace it"),
        ("a.avi", "unknown ending .avi. Give .gif, .mp4, .webp"),
        ("a.png", "holds one frame, but --video_length is 8"),
        (f"{'a' * 300}.gif", "File name too long"),
    ):
        assert_refused_at_once(infer("--output", tmp_path / name), 2, "--output", name, expected)
    assert_refused_at_once(infer("--output", ""), 2, "--output is ''")
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", ["a.gif", "a/"])
def test_a_disk_that_is_full_while_writing(
    infer: Infer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    write_video(path, np.zeros((1, 8, 8, 3), np.uint8), 1000, {})
    before = everything(tmp_path)

    def half_written(file: Path, data: bytes) -> int:
        with file.open("wb") as stream:
            stream.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def half_streamed(file: IO[bytes], *_: Any, **__: Any) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", half_written)
    monkeypatch.setattr(write, "_write", half_streamed)
    run = infer("--output", f"{tmp_path}/{name}", "--overwrite")
    monkeypatch.undo()
    assert_refused(run, 1, f"{path} could not be written: No space left on device", "is unchanged")
    assert everything(tmp_path) == before


def test_mp4_without_ffmpeg(infer: Infer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")
    run = infer("--output", tmp_path / "a.mp4")
    assert_refused_at_once(run, 1, "ffmpeg", "was not found")
    assert everything(tmp_path) == {}


def test_models_that_are_not_there(infer: Infer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_bytes(b"x")
    before = everything(tmp_path)
    for path, status, expected in (
        (tmp_path / "missing", 2, "does not exist; expected a path on this machine, or a repos"),
        ("", 2, "is empty; expected a path"),
        ("~nobody-of-this-name/model", 2, "does not exist"),
        ("a" * 5000, 2, "does not exist"),
        (f"{'a' * 300}/b", 2, "is neither an existing path nor a valid Hub id"),
        (tmp_path / "file", 2, "is a file; expected a Hotshot-XL checkpoint"),
        (tmp_path / "empty", 1, "is an empty folder; expected a Hotshot-XL checkpoint"),
        (tmp_path / "other", 1, "has no model_index.json (it holds notes.txt)"),
    ):
        run = infer("--pretrained_path", path, "--output", tmp_path / "a.gif")
        assert_refused_at_once(run, status, expected)
    assert everything(tmp_path) == before


def test_a_hub_id_offline_and_not_cached(
    infer: Infer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    run = infer("--pretrained_path", "hotshotco/Hotshot-XL")
    assert_refused_at_once(
        run, 1, "hotshotco/Hotshot-XL is not in the cache", "HF_HUB_OFFLINE is set; unset it"
    )


def test_a_hub_id_that_is_cached_works(
    infer: Infer, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = write_hub_cache(tiny_checkpoint, tmp_path / "hub", "hotshotco/tiny")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert infer("--pretrained_path", "hotshotco/tiny").status == 0
    (snapshot / "vae" / "config.json").unlink()
    run = infer("--pretrained_path", "hotshotco/tiny", "--overwrite")
    assert_refused_at_once(run, 1, "vae/config.json does not exist; download the model again")


def test_an_accelerator_that_is_not_there() -> None:
    # In a process of its own: a platform that was tried stays tried.
    script = (
        "from hotshot_jax.cli.infer.command import main\n"
        "for device in ('tpu', 'gpu'):\n"
        "    print(main(['--device', device, '--output', 'never.gif']))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    finished = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    for device in ("tpu", "gpu"):
        if any(each.platform == device for each in jax.local_devices()):
            pytest.skip(f"this machine has a {device}")
    assert finished.stdout.split() == ["1", "1"], finished.stderr
    assert "Traceback" not in finished.stderr
    for device in ("tpu", "gpu"):
        assert f"--device {device} cannot be used: it is not there" in finished.stderr
    assert "--device cpu always works" in finished.stderr
    assert not (ROOT / "never.gif").exists()


def _out_of_memory(*_: object, **__: object) -> Any:
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")


def test_out_of_device_memory(
    infer: Infer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways_out = "--low_vram_mode; a smaller --width, --height or --video_length; --precision"
    monkeypatch.setattr(Runtime, "program", lambda *_, **__: _out_of_memory)
    assert_refused(infer(), 1, "out of memory: weights 9 MiB (text_encoder 0 MiB", ways_out)
    monkeypatch.setattr(load, "_place", _out_of_memory)
    assert_refused(infer(), 1, "out of memory: weights 9 MiB.", ways_out)
    assert everything(tmp_path) == {}


def test_out_of_main_memory(infer: Infer, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object, **__: object) -> Any:
        raise MemoryError

    monkeypatch.setattr(Runtime, "program", no_memory)
    assert_refused(infer(), 1, "Out of main memory")


def test_other_errors_of_jax_are_not_hidden(infer: Infer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise jax.errors.JaxRuntimeError("INTERNAL: something broke")

    monkeypatch.setattr(Runtime, "program", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something broke"):
        infer()


def test_a_cache_of_compiled_programs_that_cannot_be_written(infer: Infer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"before")
    run = infer("--compilation_cache", tmp_path / "file")
    assert run.status == 0
    assert f"cannot be kept in {tmp_path / 'file'}" in run.stderr
    assert "--compilation_cache names another folder" in run.stderr
    assert (tmp_path / "file").read_bytes() == b"before"
    assert_refused_at_once(infer("--compilation_cache", "", "--overwrite"), 2, "is empty")


def test_a_corrupt_cache_of_compiled_programs(
    infer: Infer, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    cache = tmp_path / "compiled"
    assert infer("--compilation_cache", cache, "--output", tmp_path / "before").status == 0
    # In place, since the names of compiled programs depend on where they lie. The two large ones
    # are left whole for the sake of time.
    executables = sorted(cache.glob("executable-*"), key=lambda file: file.stat().st_size)
    assert len(executables) > 2
    for file in (*cache.glob("jit_[!ds]*"), *executables[:-2]):
        file.write_bytes(b"garbage")
    command = infer_command(tiny_checkpoint, cache, "--output", str(tmp_path / "after"))
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    # JAX's own cache and what is loaded without being traced tell of it once each.
    assert finished.stderr.count("compiled anew") == 2
    assert str(cache) in finished.stderr
    encoders = [file.read_bytes() for file in cache.glob("jit_encode-*.program")]
    assert encoders and all(content != b"garbage" for content in encoders)
    assert everything(tmp_path / "before") == everything(tmp_path / "after")
