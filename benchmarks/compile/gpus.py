"""NVIDIA GPUs by name, and what their data sheets tell the compiler that has none at hand."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from benchmarks.compile.topologies import GIB, Chip
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.training.resources import PEAK_FLOPS


@dataclasses.dataclass(frozen=True)
class _Cores:
    """The streaming multiprocessors of a generation.

    Attributes:
        threads: at once.
        lanes: float32 operations that start in a cycle.
        shared: fast memory, in bytes.
    """

    threads: int
    lanes: int
    shared: int


@dataclasses.dataclass(frozen=True)
class Gpu:
    """One kind of GPU, with the peaks of its data sheet and what CUDA tells of it.

    Attributes:
        chip: its name and peaks; `ici_bandwidth` is what it sends to others of a host, over NVLink,
            or PCI Express where it has none.
        kind: CUDA's name.
        capability: CUDA's compute capability.
        count: of its multiprocessors.
        cores: what they are like.
        clock: cycles a second.
        cache: second-level cache, in bytes.
    """

    chip: Chip
    kind: str
    capability: tuple[int, int]
    count: int
    cores: _Cores
    clock: float
    cache: int

    def target(self) -> str:
        """What XLA calls a target configuration, as text of its protocol buffer."""
        major, minor = self.capability
        # Kernels written for exactly this generation have instructions of their own.
        feature = "ACCELERATED_FEATURES" if major in (9, 10) else "NONE"
        return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: {self.cores.shared - 1024}
  shared_memory_per_core: {self.cores.shared}
  threads_per_core_limit: {self.cores.threads}
  core_count: {self.count}
  fpus_per_core: {self.cores.lanes}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  memory_bandwidth: {int(self.chip.hbm_bandwidth)}
  l2_cache_size: {self.cache}
  clock_rate_ghz: {self.clock / 1e9}
  device_memory_size: {self.chip.hbm_bytes}
  cuda_compute_capability {{ major: {major} minor: {minor} feature_extension: {feature} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: {_CUDNN[0]} minor: {_CUDNN[1]} }}
device_description_str: "{self.kind}"
"""


# The oldest that XLA takes for all of these.
_CUDNN = (9, 8)
_MIB, _KIB = 2**20, 2**10


def _chip(
    name: str, flops: float, float32_flops: float, gib: float, bandwidth: float, sent: float
) -> Chip:
    memory = int(gib * GIB)
    return Chip(name, name, flops, memory, bandwidth, sent, float32_passes=flops / float32_flops)


_A100 = _chip("a100", PEAK_FLOPS["NVIDIA A100"], 19.5e12, 79.25, 2039e9, 300e9)
_H100 = _chip("h100", PEAK_FLOPS["NVIDIA H100"], 66.9e12, 79.11, 3352e9, 450e9)
_H200 = _chip("h200", PEAK_FLOPS["NVIDIA H200"], 66.9e12, 141.0, 4800e9, 450e9)
_B200 = _chip("b200", 2250e12, 75e12, 178.4, 7672e9, 900e9)
_L4 = _chip("l4", 121e12, 30.3e12, 22.5, 300e9, 32e9)
_RTX4090 = _chip("rtx4090", 165.2e12, 82.6e12, 23.99, 1008e9, 32e9)

_AMPERE = _Cores(2048, 64, 164 * _KIB)
_HOPPER = _Cores(2048, 128, 228 * _KIB)
_ADA = _Cores(1536, 128, 100 * _KIB)

GPUS = {
    gpu.chip.name: gpu
    for gpu in (
        Gpu(_A100, "NVIDIA A100-SXM4-80GB", (8, 0), 108, _AMPERE, 1.41e9, 40 * _MIB),
        Gpu(_H100, "NVIDIA H100 80GB HBM3", (9, 0), 132, _HOPPER, 1.98e9, 50 * _MIB),
        Gpu(_H200, "NVIDIA H200", (9, 0), 132, _HOPPER, 1.98e9, 50 * _MIB),
        Gpu(_B200, "NVIDIA B200", (10, 0), 148, _HOPPER, 1.965e9, 126 * _MIB),
        Gpu(_L4, "NVIDIA L4", (8, 9), 58, _ADA, 2.04e9, 48 * _MIB),
        Gpu(_RTX4090, "NVIDIA GeForce RTX 4090", (8, 9), 128, _ADA, 2.52e9, 72 * _MIB),
    )
}


@dataclasses.dataclass(frozen=True)
class GpuSystem:
    """GPUs of one host.

    Attributes:
        gpu: their kind.
        count: how many.
    """

    gpu: Gpu
    count: int = 1
    platform = "gpu"

    def __str__(self) -> str:
        return f"{self.chip.name}-{self.count}" if self.count > 1 else self.chip.name

    @property
    def chip(self) -> Chip:
        """Name and peaks of one GPU."""
        return self.gpu.chip

    @classmethod
    def parse(cls, text: str) -> "GpuSystem":
        """Reads `h100` or `h100-8`.

        Raises:
            UsageError: the name is unknown.
        """
        match = re.fullmatch(r"(?P<name>\w+)(-(?P<count>[1-9]\d*))?", text)
        if match is None or match["name"] not in GPUS:
            raise UsageError(
                f"GPU {text!r} is unknown; expected one of {', '.join(GPUS)}, with the number of "
                "them if there are several, like h100-8."
            )
        return cls(GPUS[match["name"]], int(match["count"] or 1))

    def devices(self) -> Sequence[Any]:
        """The devices, which can be compiled for though they are not here.

        Raises:
            HotshotError: JAX's CUDA plugin or CUDA's libraries are not installed.
        """
        from jax.experimental import topologies

        try:
            return topologies.get_topology_desc(
                "",
                platform="cuda",
                target_config=self.gpu.target(),
                topology=f"1x1x{self.count}",
            ).devices
        except Exception as error:
            raise HotshotError(
                f"cannot compile for {self}: {str(error).splitlines()[0][:300]}\n"
                'The compiler for GPUs comes with pip install "hotshot-jax[cuda]", which needs no '
                "GPU."
            ) from error
