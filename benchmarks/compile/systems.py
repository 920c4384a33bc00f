"""TPUs and GPUs by name, to compile for."""

import re

from benchmarks.compile.gpus import GPUS, GpuSystem
from benchmarks.compile.topologies import Topology
from hotshot_jax.errors import UsageError

System = Topology | GpuSystem


def parse_system(text: str, slices: int = 1) -> System:
    """Reads `v5e-8`, `v5e:2x4`, `h100` or `h100-8`.

    Args:
        text: the name.
        slices: how many such TPU systems are joined by a network.

    Raises:
        UsageError: the name is unknown, or the slices are of GPUs.
    """
    if re.split("[-:]", text)[0] not in GPUS:
        return Topology.parse(text, slices)
    if slices != 1:
        raise UsageError(f"{slices} slices of {text}: GPUs are compiled for on one host.")
    return GpuSystem.parse(text)
