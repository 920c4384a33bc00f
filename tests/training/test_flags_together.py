"""Flags of train.py that change how a step is computed, all in one run from start to export."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from hotshot_jax.cli.data.command import build as build_data
from tests.data.clips import picture
from tests.training.conftest import Run

Train = Callable[..., Run]
UNET = Path("unet") / "diffusion_pytorch_model.safetensors"


@pytest.mark.slow
def test_all_of_them_at_once_and_resumed(
    train: Train, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_checkpoint / "unet", other / "unet")
    tensors = load_file(other / UNET)
    tensors["conv_out.bias"] = tensors["conv_out.bias"] + np.float32(0.5)
    save_file(tensors, other / UNET, {"format": "pt"})
    given: list[Any] = ["--unet_resume_path", other, "--mixed_precision", "bf16", "--vae_b16"]
    given += ["--profile_steps", "2:3", "--scale_lr", "--ema_decay", 0.5, "--use_8bit_adam"]
    given += ["--gradient_accumulation_steps", 2, "--gradient_checkpointing", "--snr_gamma"]
    given += ["--loss", "huber", "--text_dropout", 0.5, "--noise_offset", 0.1]
    given += ["--latent_nan_checking", "--max_vae_encode", 2, "--max_grad_norm", 0.5]
    run = train(*given, "--max_train_steps", 3)
    assert run.status == 0, run.stderr
    assert [m["step"] for m in run.metrics] == [1, 2, 3]
    # Two batches of two samples on one device.
    assert run.metrics[0]["learning_rate"] == pytest.approx(4e-3)
    assert all(0 < loss < 10 for _, loss, _ in run.losses)
    assert list((run.output / "profile").rglob("*.xplane.pb"))
    exported = load_file(run.output / "export" / UNET)
    temporal = {n for n in tensors if "temporal" in n and "pos_encoder" not in n}
    changed = {name for name in tensors if not np.array_equal(tensors[name], exported[name])}
    # What did not train comes from the other UNet as it was, not as bfloat16 rounded it.
    assert changed == temporal
    losses = run.losses
    resumed = train(*given, "--max_train_steps", 4)
    assert resumed.status == 0, resumed.stderr
    assert "going on from step 3 " in resumed.stderr
    assert resumed.losses[:3] == losses and len(resumed.losses) == 4


@pytest.mark.slow
def test_video_files_train_to_the_same_losses_as_their_frames(train: Train, tmp_path: Path) -> None:
    videos, folders, records = (tmp_path / name for name in ("videos", "folders", "records"))
    videos.mkdir()
    for sample in range(3):
        frames = [Image.fromarray(picture(10 * sample + frame, 16, 16)) for frame in range(4)]
        file = videos / f"sample_{sample}.gif"
        frames[0].save(file, save_all=True, append_images=frames[1:], duration=250)
        file.with_suffix(".txt").write_text(f"prompt {sample}")
        folder = folders / f"sample_{sample}"
        folder.mkdir(parents=True)
        (folder / "prompt.txt").write_text(f"prompt {sample}")
        with Image.open(file) as image:
            assert image.n_frames == 4
            for frame in range(4):
                image.seek(frame)
                image.convert("RGB").save(folder / f"{frame}.png")
    assert build_data(["--source", str(videos), "--output", str(records), "--frames", "4"]) == 0
    of_videos = train("--data_dir", records, "--output_dir", tmp_path / "a")
    of_folders = train("--data_dir", folders, "--output_dir", tmp_path / "b")
    assert of_videos.status == of_folders.status == 0, of_videos.stderr
    assert len(of_videos.losses) == 4
    assert of_videos.losses == of_folders.losses
