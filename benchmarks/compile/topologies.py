"""TPU topologies by name, and what Google publishes about their chips."""

import dataclasses
import difflib
import os
import re
from collections.abc import Sequence
from typing import Any

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.training.resources import PEAK_FLOPS

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of chip; for TPUs, with the peaks of https://docs.cloud.google.com/tpu/docs.

    Attributes:
        name: the family, as in `v5e-8`.
        topology_name: the compiler's name for the family.
        flops: bfloat16 operations a second.
        hbm_bytes: device memory.
        hbm_bandwidth: bytes a second.
        ici_bandwidth: bytes a second out of a chip, over all its links.
        options: further arguments of the compiler's topology.
        float32_passes: bfloat16 products that an exact float32 product takes the time of.
    """

    name: str
    topology_name: str
    flops: float
    hbm_bytes: int
    hbm_bandwidth: float
    ici_bandwidth: float
    options: tuple[tuple[str, Any], ...] = ()
    float32_passes: float = 6


CHIPS = {
    chip.name: chip
    for chip in (
        # Two cores that work as one; the compiler has to be told.
        Chip(
            "v4",
            "v4",
            PEAK_FLOPS["TPU v4"],
            32 * GIB,
            1228e9,
            300e9,
            (("chip_config_name", "megacore_dense"),),
        ),
        Chip("v5e", "v5e", PEAK_FLOPS["TPU v5e"], 16 * GIB, 819e9, 200e9),
        Chip("v5p", "v5", PEAK_FLOPS["TPU v5p"], 95 * GIB, 2765e9, 600e9),
        Chip("v6e", "v6e", PEAK_FLOPS["TPU v6e"], 32 * GIB, 1638e9, 400e9),
    )
}

# v4 and v5p are sold by cores, two to a chip; the others by chips.
_FLAT_SHAPES: dict[int, tuple[int, ...]] = {
    1: (1, 1),
    4: (2, 2),
    8: (2, 4),
    16: (4, 4),
    32: (4, 8),
    64: (8, 8),
    128: (8, 16),
    256: (16, 16),
}
_DEEP_SHAPES: dict[int, tuple[int, ...]] = {
    8: (2, 2, 1),
    16: (2, 2, 2),
    32: (2, 2, 4),
    64: (2, 4, 4),
    128: (4, 4, 4),
    256: (4, 4, 8),
    512: (4, 8, 8),
    1024: (8, 8, 8),
    2048: (8, 8, 16),
}
_SHAPES = {"v4": _DEEP_SHAPES, "v5e": _FLAT_SHAPES, "v5p": _DEEP_SHAPES, "v6e": _FLAT_SHAPES}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A TPU system.

    Attributes:
        chip: its chips.
        shape: chips along each direction of a slice.
        slices: how many such slices.
    """

    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1
    platform = "tpu"

    def __str__(self) -> str:
        slices = f", {self.slices} slices" if self.slices > 1 else ""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}{slices}"

    @classmethod
    def parse(cls, text: str, slices: int = 1) -> "Topology":
        """Reads `v5e-8` or `v5e:2x4`.

        Raises:
            UsageError: the family, the size or the shape is unknown.
        """
        match = re.fullmatch(
            r"(?P<chip>[a-z0-9]+)(-(?P<size>\d+)|:(?P<shape>\d+(x\d+){1,2}))", text
        )
        if match is None or match["chip"] not in CHIPS:
            near = difflib.get_close_matches(text, names(), n=3, cutoff=0.4)
            raise UsageError(
                f"topology {text!r} is unknown; expected a name like {', '.join(near or names())}, "
                "or chips and shape like v5e:2x4."
            )
        chip = CHIPS[match["chip"]]
        if match["shape"]:
            shape = tuple(int(size) for size in match["shape"].split("x"))
            if len(shape) != len(next(iter(_SHAPES[chip.name].values()))) or 0 in shape:
                raise UsageError(
                    f"topology {text!r}: the chips of {chip.name} form a "
                    f"{'two' if _SHAPES[chip.name] is _FLAT_SHAPES else 'three'}-dimensional grid."
                )
        else:
            known = _SHAPES[chip.name]
            if int(match["size"]) not in known:
                sizes = ", ".join(f"{chip.name}-{size}" for size in known)
                raise UsageError(f"topology {text!r} is unknown; {chip.name} comes as {sizes}.")
            shape = known[int(match["size"])]
        if slices < 1:
            raise UsageError(f"{slices} slices: expected at least 1.")
        return cls(chip, shape, slices)

    def devices(self) -> Sequence[Any]:
        """The devices, which can be compiled for though they are not here.

        Raises:
            HotshotError: libtpu, which holds the compiler, is not installed, or does not know the
                topology.
        """
        from jax.experimental import topologies

        options: dict[str, Any] = dict(self.chip.options)
        if max(self.shape) == 1:
            options["chips_per_host_bounds"] = (1, 1, 1)
        if self.slices > 1:
            options["num_slices"] = self.slices
        name = f"{self.chip.topology_name}:{'x'.join(map(str, self.shape))}"
        try:
            return topologies.get_topology_desc(
                platform="tpu", topology_name=name, **options
            ).devices
        except Exception as error:
            raise HotshotError(
                f"cannot compile for {self}: {str(error).splitlines()[0][:300]}\n"
                'The TPU compiler is in libtpu: pip install "hotshot-jax[tpu]".'
            ) from error


def names() -> list[str]:
    """Names of the systems that are known by size."""
    return [f"{chip}-{size}" for chip, shapes in _SHAPES.items() for size in shapes]


def without_tpu() -> None:
    """Keeps JAX and libtpu from looking for a TPU; to be called before JAX starts."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # Compiling needs no chip, so several processes may do it.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
