"""One device mesh with named axes, from what is written after `mesh`."""

import dataclasses
import difflib
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from hotshot_jax.errors import UsageError

AXES = ("data", "fsdp", "frames", "tensor")
TASKS = ("infer", "decode", "train")

# Axes that may run over the slow network between slices, best first: they communicate once a step
# (data) or overlap with computing (fsdp), the others within every layer.
_ACROSS_SLICES = ("data", "fsdp")

# Of weights cut into more parts, the compiler no longer gathers those of a layer but adds up
# partial products, and sends more (docs/scaling.md).
_MOST_FSDP = 16


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How many devices each axis has; -1 for one axis at most, which takes what is left.

    Attributes:
        data: splits prompts, samples and the two halves of guidance.
        fsdp: splits parameters and optimiser state, and samples like `data`.
        frames: splits the frames of a video.
        tensor: splits heads and feed-forward layers.
    """

    data: int = 1
    fsdp: int = 1
    frames: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        for axis in AXES:
            size = getattr(self, axis)
            if size != -1 and size < 1:
                raise UsageError(
                    f"mesh axis {axis}={size}: expected a positive number of devices, or -1 for "
                    "all that are left."
                )
        if sum(getattr(self, axis) == -1 for axis in AXES) > 1:
            raise UsageError(f"mesh {self}: only one axis may be -1 (all devices that are left).")

    def __str__(self) -> str:
        sizes = {axis: getattr(self, axis) for axis in AXES}
        return ",".join(f"{axis}={size}" for axis, size in sizes.items() if size != 1) or "data=1"

    @classmethod
    def parse(cls, text: str) -> "MeshConfig":
        """Reads `data=2,frames=4`; axes that are not named have one device.

        Raises:
            UsageError: an axis is unknown or given twice, or a size is no number that makes sense.
        """
        sizes: dict[str, int] = {}
        for part in text.split(","):
            axis, equals, size = (piece.strip() for piece in part.partition("="))
            if not equals:
                raise UsageError(
                    f"mesh {text!r}: expected AXIS=SIZE, separated by commas, got {part!r} "
                    "(for example data=2,frames=4, or auto)."
                )
            if axis not in AXES:
                near = difflib.get_close_matches(axis, AXES, n=1)
                hint = f"; did you mean {near[0]}?" if near else "."
                raise UsageError(
                    f"mesh {text!r}: unknown axis {axis!r}, expected one of {', '.join(AXES)}{hint}"
                )
            if axis in sizes:
                raise UsageError(f"mesh {text!r}: axis {axis} is given twice.")
            try:
                sizes[axis] = int(size)
            except ValueError:
                raise UsageError(f"mesh {text!r}: {axis}={size} is not a whole number.") from None
        return cls(**sizes)

    @classmethod
    def auto(
        cls,
        task: str,
        devices: int,
        *,
        frames: int = 8,
        videos: int = 1,
        guidance: bool = True,
        slices: int = 1,
    ) -> "MeshConfig":
        """A mesh for `task` that uses all devices with little communication.

        Sampling splits prompts first, which needs no communication, then frames, then the two
        halves of guidance, and heads with what is left. Training splits samples and, over at most
        16 devices of a slice, parameters and optimiser state with them.

        Args:
            task: one of `TASKS`.
            devices: how many there are.
            frames: frames of a video.
            videos: prompts sampled together.
            guidance: whether each prompt is a batch of two.
            slices: how many slices the devices are on, between which only `data` may run.
        """
        if task not in TASKS:
            raise UsageError(f"task {task!r} is unknown; expected one of {', '.join(TASKS)}.")
        if task == "train":
            fsdp = _largest_divisor(devices // slices, _MOST_FSDP)
            return cls(data=devices // fsdp, fsdp=fsdp)
        data = math.gcd(devices, videos)
        halves = 2 if guidance else 1
        if data % slices:
            across = math.gcd(devices // data, halves)
            data, halves = data * across, halves // across
        along_frames = math.gcd(devices // data, frames)
        data *= math.gcd(devices // (data * along_frames), halves)
        return cls(data=data, frames=along_frames, tensor=devices // (data * along_frames))

    @property
    def size(self) -> int:
        """Number of devices; meaningless while an axis is -1."""
        return math.prod(getattr(self, axis) for axis in AXES)

    def resolve(self, devices: int) -> "MeshConfig":
        """This configuration with -1 filled in for `devices` devices.

        Raises:
            UsageError: the axes do not multiply to the number of devices.
        """
        named = math.prod(getattr(self, axis) for axis in AXES if getattr(self, axis) != -1)
        free = [axis for axis in AXES if getattr(self, axis) == -1]
        if devices % named or (not free and named != devices):
            there = "is 1 device" if devices == 1 else f"are {devices} devices"
            raise UsageError(
                f"mesh {self} does not fit: its axes multiply to {named}, but there {there}. "
                "Change `mesh` so that the product is the number of devices, or write -1 for one "
                "axis."
            )
        return dataclasses.replace(self, **dict.fromkeys(free, devices // named))

    def check_frames(self, frames: int) -> None:
        """Refuses videos whose frames cannot be split evenly.

        Raises:
            UsageError: the axis `frames` does not divide `frames`.
        """
        if frames % self.frames:
            raise UsageError(
                f"{frames} frames do not divide over the mesh axis frames={self.frames}. "
                f"Use a number of frames that is a multiple of {self.frames}, or "
                f"`mesh` frames={math.gcd(frames, self.frames)}."
            )


def mesh_config(
    text: str,
    task: str,
    devices: int,
    *,
    frames: int = 8,
    videos: int = 1,
    guidance: bool = True,
    slices: int = 1,
) -> MeshConfig:
    """Reads the value of `mesh`, `auto` included, for a number of devices.

    Args:
        text: `auto`, or axes and sizes as `MeshConfig.parse` takes them.
        task: one of `TASKS`; what `auto` is chosen for.
        devices: how many there are.
        frames: frames of a video.
        videos: prompts sampled together.
        guidance: whether each prompt is a batch of two.
        slices: how many slices the devices are on.

    Raises:
        UsageError: the text is not a mesh, or the mesh does not fit the devices or the frames.
    """
    if text.strip() == "auto":
        return MeshConfig.auto(
            task, devices, frames=frames, videos=videos, guidance=guidance, slices=slices
        )
    config = MeshConfig.parse(text).resolve(devices)
    config.check_frames(frames)
    return config


def create_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh, with neighbours along an axis near one another on the interconnect.

    All axes are of type Auto: the compiler propagates shardings. Between the slices of a
    multi-slice system run only `data` and, if it does not divide, `fsdp`.

    Args:
        config: sizes of the axes; a -1 is filled in.
        devices: all devices of all hosts by default.

    Raises:
        UsageError: the axes do not multiply to the number of devices, or neither `data` nor `fsdp`
            divides by the number of slices.
    """
    devices = jax.devices() if devices is None else list(devices)
    config = config.resolve(len(devices))
    shape = [getattr(config, axis) for axis in AXES]
    slices = slice_count(devices)
    if slices > 1:
        array = _across_slices(config, slices, devices)
    elif len(devices) == 1:
        array = np.array(devices).reshape(shape)
    else:
        array = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(array, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def slice_count(devices: Sequence[Any]) -> int:
    """On how many slices, joined by a slower network, devices are."""
    return len({getattr(device, "slice_index", 0) or 0 for device in devices})


def _largest_divisor(number: int, most: int) -> int:
    return max(divisor for divisor in range(1, most + 1) if number % divisor == 0)


def _across_slices(config: MeshConfig, slices: int, devices: Sequence[Any]) -> np.ndarray:
    sizes = {axis: getattr(config, axis) for axis in AXES}
    outer = next((axis for axis in _ACROSS_SLICES if sizes[axis] % slices == 0), None)
    if outer is None:
        raise UsageError(
            f"mesh {config} on {slices} slices: data or fsdp must be a multiple of {slices}, "
            "because only these may cross from slice to slice."
        )
    within = [size // slices if axis == outer else size for axis, size in sizes.items()]
    across = [slices if axis == outer else 1 for axis in AXES]
    return mesh_utils.create_hybrid_device_mesh(
        within, across, devices, allow_split_physical_axes=True
    )
