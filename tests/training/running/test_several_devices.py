"""Whole runs on simulated devices, in one process and in two, against a run on one device."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts
from safetensors.numpy import load_file

from tests.data.clips import write_data
from tests.training.conftest import ROOT, Run, arguments

pytestmark = pytest.mark.slow

GLOBAL_BATCH = 8
UNET = Path("unet") / "diffusion_pytorch_model.safetensors"
# float32 sums in another order, carried through a few updates.
TOLERANCE = 1e-5
# Larger than elsewhere, and slower: with latents of 2 x 2, random weights and big steps, the
# gradients of the small checkpoint are so steep that rounding errors grow a thousandfold.
SIZE = 32
STEADY = {"--learning_rate": "1e-5", "--adam_epsilon": "1e-4", "--resolution": str(SIZE)}
# What every process of a run must have ended after, when one of them is killed.
SECONDS_TO_NOTICE = 60


class Runs:
    """Starts `train.py` on numbers of devices and processes, always with the same batches."""

    def __init__(self, flags: dict[str, str], clips: Path):
        self.flags = {**flags, **STEADY, "--data_dir": str(clips)}
        self.started: list[subprocess.Popen[str]] = []

    def start(
        self,
        output: Path,
        mesh: str,
        devices: int,
        processes: int = 1,
        more: tuple[object, ...] = (),
        program: tuple[str, ...] = ("train.py",),
        **changes: object,
    ) -> list[subprocess.Popen[str]]:
        sizes = dict(part.split("=") for part in mesh.split(","))
        shares = int(sizes.get("data", 1)) * int(sizes.get("fsdp", 1))
        given = {
            "--output_dir": output,
            "--mesh": mesh,
            "--train_batch_size": GLOBAL_BATCH // shares,
            **{f"--{name}": value for name, value in changes.items()},
        }
        if processes > 1:
            with socket.socket() as probe:
                probe.bind(("localhost", 0))
                given["--coordinator_address"] = f"localhost:{probe.getsockname()[1]}"
            given["--process_count"] = processes
        started = []
        for index in range(processes):
            own = {**given, "--process_index": index} if processes > 1 else given
            listed = (*more, *(part for pair in own.items() for part in pair))
            started.append(
                subprocess.Popen(
                    [sys.executable, *program, *arguments(self.flags, listed)],
                    cwd=ROOT,
                    env={**os.environ, "JAX_NUM_CPU_DEVICES": str(devices // processes)},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        self.started += started
        return started

    def finish(self, output: Path, *given: object, **changes: object) -> Run:
        """Runs to the end; every process has to succeed."""
        started = self.start(output, *given, **changes)  # type: ignore[arg-type]
        said = [process.communicate(timeout=1800)[1] for process in started]
        assert [process.returncode for process in started] == [0] * len(started), said
        return Run(0, said[0], output)


@pytest.fixture(scope="module")
def runs(flags: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    clips = tmp_path_factory.mktemp("clips")
    write_data(clips, [(SIZE, SIZE)] * GLOBAL_BATCH, frames=4)
    made = Runs(flags, clips)
    yield made
    for process in made.started:
        process.kill()


@pytest.fixture(scope="module")
def one_device(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return runs.finish(tmp_path_factory.mktemp("one") / "out", "data=1", 1, max_train_steps=6)


def assert_same_losses(run: Run, expected: Run, steps: int | None = None) -> None:
    first = expected.losses[:steps]
    assert [step for step, *_ in run.losses] == [step for step, *_ in first]
    for (step, *found), (_, *wanted) in zip(run.losses, first, strict=True):
        assert found == pytest.approx(wanted, rel=TOLERANCE), step


def test_a_run_goes_on_with_fewer_devices_and_the_same_losses(
    runs: Runs, one_device: Run, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    runs.finish(output, "fsdp=8", 8, max_train_steps=2)
    second = runs.finish(output, "data=2,fsdp=2", 4, max_train_steps=4)
    assert "going on from step 2 " in second.stderr
    third = runs.finish(output, "frames=2", 2, max_train_steps=6)
    assert "going on from step 4 " in third.stderr
    assert_same_losses(third, one_device)


def weights_of(checkpoint: Path) -> dict[str, np.ndarray]:
    """What trains, by PyTorch's name, as the files have it; read by none of this project's code."""
    store = {"driver": "ocdbt", "base": f"file://{checkpoint / 'state'}/"}
    weights = {}
    for key in ts.KvStore.open(store).result().list().result():
        folder, _, file = key.decode().rpartition("/")
        if folder.startswith("trained.") and file == "zarr.json":
            opened = ts.open({"driver": "zarr3", "kvstore": {**store, "path": f"{folder}/"}})
            path = re.sub("/(kernel|scale)$", "/weight", folder.removeprefix("trained."))
            # Temporal layers have vectors, and matrices that PyTorch transposes.
            weights[path.replace("/", ".")] = np.asarray(opened.result().read().result()).T
    return weights


def test_killed_on_eight_devices_it_goes_on_on_four_with_more_data(
    runs: Runs, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    (killed,) = runs.start(output, "fsdp=8", 8, max_train_steps=100_000)
    wait_for_lines(output / "metrics.jsonl", 3, killed)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    saved = max(int(p.name) for p in (output / "checkpoints").iterdir() if p.name.isdigit())
    before = Run(0, "", output).losses[:saved]
    # Of the files, before a run with other data looks at them.
    kept = tmp_path / "kept" / str(saved)
    shutil.copytree(output / "checkpoints" / str(saved), kept)
    stored = weights_of(kept)

    write_data(tmp_path / "more", [(SIZE, SIZE)] * 3, frames=6)
    data = ("--data_dir", runs.flags["--data_dir"], "--data_dir", tmp_path / "more")
    given: dict[str, Any] = {"more": data, "resume_data": "restart"}
    four = ("data=2,fsdp=2", 4)
    # With nothing left to do, what was restored is exported as it is.
    restored = runs.finish(output, *four, **given, max_train_steps=saved)
    assert f"going on from step {saved} " in restored.stderr
    assert "the data from their beginning: " in restored.stderr
    exported = load_file(output / "export" / UNET)
    temporal = {name for name in exported if "temporal_attentions" in name}
    assert set(stored) == {name for name in temporal if "pos_encoder" not in name}
    start = load_file(tiny_checkpoint / UNET)
    for name, weight in stored.items():
        np.testing.assert_array_equal(exported[name], weight, err_msg=name)
    assert any(not np.array_equal(start[name], weight) for name, weight in stored.items())

    resumed = runs.finish(output, *four, **given, max_train_steps=saved + 4)
    assert [step for step, *_ in resumed.losses] == list(range(1, saved + 5))
    assert resumed.losses[:saved] == before
    # One device goes on from the same files alike, with the same clips.
    alone = runs.finish(
        tmp_path / "alone", "data=1", 1, **given, resume=kept, max_train_steps=saved + 4
    )
    assert f"going on from step {saved} " in alone.stderr
    assert [step for step, *_ in alone.losses] == list(range(saved + 1, saved + 5))
    for (step, *found), (_, *wanted) in zip(resumed.losses[saved:], alone.losses, strict=True):
        assert found == pytest.approx(wanted, rel=TOLERANCE), step


def test_two_processes_train_together_and_when_one_is_killed_the_other_ends(
    runs: Runs, one_device: Run, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    first, second = runs.start(output, "fsdp=2", 2, 2, max_train_steps=100_000)
    wait_for_lines(output / "metrics.jsonl", 3, first, second)
    second.kill()
    killed = time.monotonic()
    said = first.communicate(timeout=SECONDS_TO_NOTICE)[1]
    assert time.monotonic() - killed < SECONDS_TO_NOTICE
    assert first.returncode != 0
    last = [line for line in said.strip().splitlines() if "train.py: error:" in line][-1]
    assert re.search(r"[Aa]nother (of its )?process", last), said[-4000:]
    assert "Start the command again on all hosts" in said
    second.communicate()

    saved = max(int(p.name) for p in (output / "checkpoints").iterdir() if p.name.isdigit())
    steps = max(6, saved + 1)
    resumed = runs.finish(output, "fsdp=2", 2, 2, max_train_steps=steps)
    assert f"going on from step {saved} " in resumed.stderr
    assert [step for step, *_ in resumed.losses] == list(range(1, steps + 1))
    for (step, *found), (_, *wanted) in zip(resumed.losses, one_device.losses, strict=False):
        assert found == pytest.approx(wanted, rel=TOLERANCE), step
    # One of them writes.
    assert len(list(output.rglob("metrics.jsonl"))) == 1


# As on slices of TPUs, where neighbours on the mesh are neighbours on the network: the first
# process has the first and the third device on it.
SHUFFLED = """
import sys
from jax.sharding import Mesh
from hotshot_jax.cli.train import train
from hotshot_jax.cli.train.command import main

create_mesh = train.create_mesh

def shuffled(config):
    mesh = create_mesh(config)
    devices = mesh.devices.reshape(-1)[[0, 2, 1, 3]].reshape(mesh.devices.shape)
    return Mesh(devices, mesh.axis_names, axis_types=mesh.axis_types)

train.create_mesh = shuffled
sys.exit(main())
"""


def test_processes_read_the_clips_of_the_rows_that_their_devices_hold(
    runs: Runs, one_device: Run, tmp_path: Path
) -> None:
    run = runs.finish(
        tmp_path / "rows", "fsdp=4", 4, 2, max_train_steps=2, program=("-c", SHUFFLED)
    )
    assert_same_losses(run, one_device, steps=2)


def test_processes_whose_devices_share_a_clip_s_frames_read_the_same_clips(
    runs: Runs, one_device: Run, tmp_path: Path
) -> None:
    run = runs.finish(tmp_path / "frames", "frames=2", 2, 2, max_train_steps=2)
    assert_same_losses(run, one_device, steps=2)
    run = runs.finish(
        tmp_path / "both", "fsdp=2,frames=2", 4, 2, max_train_steps=2, program=("-c", SHUFFLED)
    )
    assert_same_losses(run, one_device, steps=2)


def test_the_first_process_may_be_the_one_that_is_killed(runs: Runs, tmp_path: Path) -> None:
    output = tmp_path / "out"
    first, second = runs.start(output, "fsdp=2", 2, 2, max_train_steps=100_000)
    wait_for_lines(output / "metrics.jsonl", 2, first, second)
    first.kill()
    said = second.communicate(timeout=SECONDS_TO_NOTICE)[1]
    assert second.returncode != 0
    assert "train.py: error:" in said and "Start the command again on all hosts" in said
    first.communicate()


def test_sigterm_to_one_process_saves_and_stops_all(runs: Runs, tmp_path: Path) -> None:
    output = tmp_path / "out"
    started = runs.start(output, "fsdp=2", 2, 2, max_train_steps=100_000, save_n_steps=0)
    wait_for_lines(output / "metrics.jsonl", 2, *started)
    started[1].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=SECONDS_TO_NOTICE)[1] for process in started]
    assert [process.returncode for process in started] == [128 + signal.SIGTERM] * 2, said
    assert all("stopped by SIGTERM" in each for each in said)
    assert [p.name for p in (output / "checkpoints").iterdir() if p.name.isdigit()]


def test_processes_with_different_settings_name_what_differs(runs: Runs, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    said = []
    for index, rate in enumerate(("1e-3", "2e-3")):
        (process,) = runs.start(
            tmp_path / "out",
            "fsdp=2",
            1,
            learning_rate=rate,
            coordinator_address=address,
            process_count=2,
            process_index=index,
        )
        said.append(process)
    for process in said:
        message = process.communicate(timeout=300)[1]
        assert process.returncode == 2, message
        assert "learning_rate is 0.001 on process 0 and 0.002 on 1" in message


def test_two_processes_fill_one_cache_and_then_train_as_one(
    runs: Runs, one_device: Run, tmp_path: Path
) -> None:
    cached = {"cache_dir": tmp_path / "cache", "on_bad_sample": "skip", "max_train_steps": 2}
    run = runs.finish(tmp_path / "out", "fsdp=2", 2, 2, **cached)
    assert "Skipped" not in run.stderr
    for (step, *found), (_, *wanted) in zip(run.losses, one_device.losses, strict=False):
        assert found == pytest.approx(wanted, rel=TOLERANCE), step
    # What the hosts wrote to find each other is gone.
    assert {len(path.name) for path in (tmp_path / "cache").iterdir()} == {2}


def messages_of_two_folders(
    runs: Runs, folder: Path, status: int = 2, **changes: object
) -> list[str]:
    """What a run says whose two processes start in folders of their own, `0` and `1`.

    A relative path is then another folder for each, as one on each host's own disk.
    """
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    given = {
        **runs.flags,
        "--output_dir": folder / "out",
        "--mesh": "fsdp=2",
        "--train_batch_size": GLOBAL_BATCH // 2,
        "--coordinator_address": address,
        "--process_count": 2,
        **{f"--{name}": value for name, value in changes.items()},
    }
    started = []
    for index in range(2):
        (folder / str(index)).mkdir(exist_ok=True)
        listed = [part for pair in given.items() for part in pair]
        started.append(
            subprocess.Popen(
                [
                    sys.executable,
                    ROOT / "train.py",
                    *map(str, listed),
                    "--process_index",
                    f"{index}",
                ],
                cwd=folder / str(index),
                env={**os.environ, "JAX_NUM_CPU_DEVICES": "1"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    runs.started += started
    messages = [process.communicate(timeout=900)[1] for process in started]
    assert [process.returncode for process in started] == [status] * 2, messages
    return messages


def test_caches_that_are_not_shared_are_told_on_every_host(runs: Runs, tmp_path: Path) -> None:
    for said in messages_of_two_folders(runs, tmp_path, cache_dir="cache"):
        assert "--cache_dir cache is not shared by the hosts" in said


def test_an_output_that_is_not_shared_is_told_on_every_host(runs: Runs, tmp_path: Path) -> None:
    for said in messages_of_two_folders(runs, tmp_path, output_dir="out"):
        assert "--output_dir out is not shared by the hosts" in said
    # What they wrote to find each other is gone.
    assert not list(tmp_path.glob("*/out/*"))


def test_data_that_hosts_do_not_see_alike_are_told_on_every_host(
    runs: Runs, tmp_path: Path
) -> None:
    for index in range(2):
        write_data(tmp_path / str(index) / "clips", [(SIZE, SIZE)] * (2 + index), frames=4)
    for said in messages_of_two_folders(runs, tmp_path, data_dir="clips"):
        assert "The processes of this run see different data: --data_dir clips is 2 clips" in said
        assert re.search(r"on process 0 and 3 clips \([^)]+\) on 1\.", said), said
    assert not (tmp_path / "out").exists()


def test_what_one_host_cannot_read_is_passed_over_by_all(
    runs: Runs, one_device: Run, tmp_path: Path
) -> None:
    for index in range(2):
        shutil.copytree(one_device.output / "checkpoints", tmp_path / str(index) / "kept")
    metadata = tmp_path / "1" / "kept" / "6" / "_CHECKPOINT_METADATA"
    metadata.write_text(metadata.read_text().replace("next_batch", "torn"))
    said = messages_of_two_folders(runs, tmp_path, 0, resume="kept", max_train_steps=6)
    assert all("1/kept/6 cannot be restored: it is damaged" in each for each in said)
    assert "going on from step 5 " in said[0]
    assert [step for step, *_ in Run(0, "", tmp_path / "out").losses] == [6]
    # What is no reason to take another one is told by all, too.
    metadata.write_text("torn")
    changes = {"output_dir": tmp_path / "other", "resume": "kept"}
    for message in messages_of_two_folders(runs, tmp_path, 1, **changes):
        assert "1/kept/6 is no checkpoint of train.py" in message


def wait_for_lines(file: Path, lines: int, *processes: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 1200
    while not file.exists() or len(file.read_text().splitlines()) < lines:
        for process in processes:
            assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
