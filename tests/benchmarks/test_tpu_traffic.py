"""Memory traffic of small programs that are compiled for a TPU."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compile.hlo_costs import program_costs

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu, the TPU compiler, is not installed"
)

PROGRAMS = """
import json

from benchmarks.compile.topologies import Topology, without_tpu

without_tpu()

import jax
import jax.numpy as jnp
from jax.experimental.layout import Format, Layout

place = jax.sharding.SingleDeviceSharding(Topology.parse("v5e-1").devices()[0])
found = {}


def compile(name, function, *shapes, row_major=False):
    leaves = [jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=place) for shape in shapes]
    formats = None
    if row_major:
        formats = Format(Layout(tuple(range(len(shapes[0])))), place)
    jitted = jax.jit(function, in_shardings=formats, out_shardings=formats)
    compiled = jitted.lower(*leaves).compile()
    memory = compiled.memory_analysis()
    found[name] = {
        "text": compiled.as_text(),
        "arguments": memory.argument_size_in_bytes,
        "results": memory.output_size_in_bytes,
    }


def kept(x, stack):
    return jax.lax.scan(lambda x, kernel: (jnp.tanh(x @ kernel),) * 2, x, stack)[1]


def loss(x, stack):
    return jnp.square(jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, stack)[0]).mean()


compile("logits", lambda x: jnp.exp(x), (2048, 10, 8, 8), row_major=True)
compile("heads", lambda x: jnp.exp(x), (1024, 8, 8, 40), row_major=True)
compile("kept", kept, (4096, 2048), (10, 2048, 2048))
compile("gradient", jax.grad(loss, (0, 1)), (4096, 2048), (10, 2048, 2048))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def programs() -> dict[str, Any]:
    """Programs for one chip of v5e, from a process of their own: libtpu stays out of this one."""
    environment = {key: value for key, value in os.environ.items() if "CACHE" not in key}
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAMS],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    return json.loads(finished.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("name", "padded"), [("logits", 2048 * 10 * 8 * 128), ("heads", 1024 * 8 * 8 * 128)]
)
def test_padded_arrays_count_as_the_compiler_counts_them(
    programs: dict[str, Any], name: str, padded: int
) -> None:
    program = programs[name]
    assert program["arguments"] == program["results"] == 2 * padded
    assert program_costs(program["text"]).hbm_bytes == program["arguments"] + program["results"]


def test_of_stacks_a_turn_of_a_loop_reads_and_writes_its_layer(programs: dict[str, Any]) -> None:
    layer, kernel = 2 * 4096 * 2048, 2 * 2048 * 2048
    kept, gradient = (
        program_costs(programs[name]["text"]).hbm_bytes for name in ("kept", "gradient")
    )
    # What each turn gives is written once, into a stack ten times its size; what is carried may
    # stay on the chip, or go out and in again.
    assert 10 * (kernel + layer) <= kept <= 10 * (kernel + 3 * layer) + 2 * layer
    # On the way there three stacks of layers are written at most, and read on the way back.
    assert 10 * (3 * kernel + 4 * layer) <= gradient <= 10 * (4 * kernel + 9 * layer)
