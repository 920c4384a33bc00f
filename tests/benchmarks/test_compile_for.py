"""Compiling for TPUs without a TPU."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compile.topologies import CHIPS, Topology, names
from hotshot_jax.errors import HotshotError, UsageError

ROOT = Path(__file__).parents[2]
needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu, the TPU compiler, is not installed"
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.compile_for", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize(
    ("text", "chip", "shape"),
    [
        ("v4-8", "v4", (2, 2, 1)),
        ("v5e-1", "v5e", (1, 1)),
        ("v5e-8", "v5e", (2, 4)),
        ("v5e:16x16", "v5e", (16, 16)),
        ("v5p-8", "v5p", (2, 2, 1)),
        ("v6e:2x4", "v6e", (2, 4)),
    ],
)
def test_names_and_shapes(text: str, chip: str, shape: tuple[int, ...]) -> None:
    assert Topology.parse(text) == Topology(CHIPS[chip], shape)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v5e-7", "v5e comes as v5e-1, v5e-4, v5e-8"),
        ("v5f-8", "expected a name like .*v5e-8"),
        ("v5e:2x2x2", "two-dimensional"),
        ("v5p:2x2", "three-dimensional"),
        ("v5e:0x4", "two-dimensional"),
        ("h100", "expected a name like"),
        ("", "expected a name like"),
    ],
)
def test_unknown_topologies_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Topology.parse(text)


def test_every_name_can_be_read() -> None:
    for name in names():
        assert Topology.parse(name).shape


def test_without_the_compiler_the_message_says_what_to_install() -> None:
    if importlib.util.find_spec("libtpu") is not None:
        pytest.skip("the compiler is installed")
    with pytest.raises(HotshotError, match="hotshot-jax\\[tpu\\]"):
        Topology.parse("v5e-8").devices()


def test_wrong_topology_ends_with_status_2() -> None:
    finished = run("v5e-7")
    assert finished.returncode == 2
    assert "v5e-7" in finished.stderr
    assert "Traceback" not in finished.stderr


@needs_compiler
def test_wrong_mesh_ends_with_status_2() -> None:
    finished = run("v5e:2x4", "--size", "tiny", "--mesh", "frames=3,data=-1")
    assert finished.returncode == 2
    assert "3, but there are 8" in finished.stderr
    assert "Traceback" not in finished.stderr


def reports_of(tasks: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    """What the command says of each task, from one process of its own: libtpu stays out of this."""
    small = "--size tiny --width 64 --height 64 --effort O1 --json".split()
    calls = [["v5e:2x4", "--task", task, *given, *small] for task, given in tasks.items()]
    finished = subprocess.run(
        [
            sys.executable,
            "-c",
            "import json, sys\n"
            "from benchmarks.compile_for import main\n"
            "sys.exit(max(main(call) for call in json.loads(sys.argv[1])))",
            json.dumps(calls),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    lines = [line for line in finished.stdout.splitlines() if line.startswith("{")]
    return dict(zip(tasks, map(json.loads, lines), strict=True))


@pytest.fixture(scope="module")
def reports() -> dict[str, dict[str, Any]]:
    return reports_of({"infer": ["--mesh", "frames=8"], "train": ["--remat", "none"]})


@needs_compiler
def test_denoising_step_compiles_for_v5e(reports: dict[str, dict[str, Any]]) -> None:
    report = reports["infer"]
    assert report["fits"]
    assert set(report["collectives"]) == {"all-reduce", "all-to-all"}
    # Two for each temporal layer: two on the way down, four on the way up.
    assert report["collectives"]["all-to-all"]["count"] == 2 * 6
    assert report["compile_seconds"] > 0
    assert report["flops_per_device"] >= 0.99 * report["ideal_flops_per_device"] > 0
    assert 0 < report["temp_bytes"] + report["argument_bytes"] < report["hbm_bytes"]
    assert report["roofline_seconds"] > 0


# On simulated devices `test_sharded_models` decodes without communication by default.
@pytest.mark.slow
@needs_compiler
def test_decoding_compiles_for_v5e() -> None:
    report = reports_of({"decode": []})["decode"]
    assert report["fits"]
    assert report["mesh"] == "frames=8"
    assert report["collectives"] == {}


@needs_compiler
def test_training_step_compiles_for_v5e(reports: dict[str, dict[str, Any]]) -> None:
    report = reports["train"]
    assert report["fits"]
    assert report["mesh"] == "fsdp=8"
    assert report["size"]["videos"] == 8
    # Weights are gathered once for a layer, not multiplied shard by shard as they arrive.
    assert set(report["collectives"]) == {"all-gather", "all-reduce"}
    # Sums over heads, which TPUs alone make, are some more operations where these have 4 channels.
    assert report["flops_per_device"] <= 1.1 * report["ideal_flops_per_device"]
