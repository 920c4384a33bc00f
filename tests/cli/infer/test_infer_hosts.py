"""`infer.py` in two processes that share a mesh."""

import os
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from tests.cli.processes import ROOT, infer_command

pytestmark = pytest.mark.slow

FLAGS = [
    "--prompt", "a (red:1.3) fox",
    "--precision", "f32",
    "--width", "32",
    "--video_length", "4",
    "--mesh", "data=2,frames=2",
]  # fmt: skip


def start(command: list[str], devices: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def frames(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.stack([np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(image)])


def test_two_processes_make_the_gif_that_one_makes(
    tiny_checkpoint: Path, tmp_path: Path, compilation_cache: Path
) -> None:
    alone, together = tmp_path / "alone.gif", tmp_path / "together.gif"
    single = start(
        infer_command(tiny_checkpoint, compilation_cache, *FLAGS, "--output", str(alone)), 4
    )
    _, said = single.communicate(timeout=900)
    assert single.returncode == 0, said

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    flags = [*FLAGS, "--output", str(together), "--coordinator_address", address]
    flags += ["--process_count", "2", "--process_index"]
    pair = [
        start(infer_command(tiny_checkpoint, compilation_cache, *flags, str(index)), 2)
        for index in range(2)
    ]
    printed = [process.communicate(timeout=900) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], printed
    # One of them writes and tells; how the hosts of CPUs are connected is jaxlib's to say.
    told = [
        [line for line in stdout.splitlines() if not line.startswith("[Gloo]")]
        for stdout, _ in printed
    ]
    assert told == [[str(together)], []]
    assert "as data=2,frames=2" in printed[0][1]
    assert "denoising" not in printed[1][1]
    # Rounding may fall the other way where a sum was made in another order.
    difference = frames(alone).astype(int) - frames(together)
    assert np.abs(difference).max() <= 1


def test_processes_with_different_prompts_name_both(
    tiny_checkpoint: Path, tmp_path: Path, compilation_cache: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    pair = [
        start(
            infer_command(
                tiny_checkpoint, compilation_cache,
                "--prompt", prompt, "--output", str(tmp_path / "out.gif"),
                "--coordinator_address", address,
                "--process_count", "2", "--process_index", str(index),
            ),
            1,
        )
        for index, prompt in enumerate(("a fox", "a boat"))
    ]  # fmt: skip
    for process in pair:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 2, said
        assert "prompt is a fox on process 0 and a boat on 1" in said
    assert not list(tmp_path.glob("*.gif"))
