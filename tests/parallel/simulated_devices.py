"""Programs that run on 8 simulated devices, in a process of their own.

The number of simulated devices is fixed once JAX has started.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

ONE_AXIS = [f"{axis}={size}" for axis in ("data", "fsdp", "frames", "tensor") for size in (2, 4, 8)]
MIXED = [
    "data=2,frames=4",
    "frames=4,tensor=2",
    "data=2,fsdp=2,frames=2",
    "fsdp=2,frames=2,tensor=2",
]


def run(program: str, arguments: list[str]) -> dict[str, Any]:
    """Runs a file of this folder and gives the JSON object that it prints."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "8",
        # Compiling is all of the time here, and no result depends on it.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        # Not the suite's flags: without fusion emitters, rounding errors are twice as large.
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "PYTHONPATH": str(ROOT),
    }
    finished = subprocess.run(
        [sys.executable, str(HERE / program), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    return json.loads(finished.stdout)
