"""Where inputs go."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, Mesh, PartitionSpec as P

from hotshot_jax.models.layers.sharding_points import image_axes, split_over
from hotshot_jax.parallel.mesh import AXES, MeshConfig, create_mesh
from hotshot_jax.parallel.placement import (
    batch_sharding,
    held_rows,
    projected_text_shardings,
    video_sharding,
)


class FakeMesh:
    """A mesh of more devices than there are: only its shape is asked for."""

    def __init__(self, *sizes: int):
        axis_types = (jax.sharding.AxisType.Auto,) * len(AXES)
        self.abstract_mesh = AbstractMesh(sizes, AXES, axis_types=axis_types)


def spec_of(function: Any, sizes: tuple[int, ...], shape: tuple[int, ...]) -> P:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hotshot_jax.parallel.placement.NamedSharding", lambda mesh, spec: spec)
        return function(FakeMesh(*sizes), shape)


def test_samples_and_frames_are_split() -> None:
    assert spec_of(video_sharding, (2, 2, 4, 1), (8, 8, 6, 10, 4)) == P(
        ("data", "fsdp"), ("frames",)
    )
    assert spec_of(batch_sharding, (2, 2, 4, 1), (8, 77, 64)) == P(("data", "fsdp"))


@pytest.mark.parametrize(
    ("sizes", "shape", "expected"),
    [
        # One video on a mesh that splits videos: every device holds it.
        ((2, 1, 4, 1), (1, 8, 6, 10, 4), P((), ("frames",))),
        # A batch of two divides over the first axis, not over both.
        ((2, 2, 1, 1), (2, 8, 6, 10, 4), P(("data",), ())),
        # 12 frames do not divide over 8 devices.
        ((1, 1, 8, 1), (2, 12, 6, 10, 4), P((), ())),
    ],
)
def test_what_does_not_divide_stays_whole(
    sizes: tuple[int, ...], shape: tuple[int, ...], expected: P
) -> None:
    assert spec_of(video_sharding, sizes, shape) == expected


def test_projected_text_is_split_by_samples_and_heads() -> None:
    text = {"keys": jax.ShapeDtypeStruct((10, 2, 1, 77, 20, 64), "bfloat16")}
    assert spec_of(projected_text_shardings, (2, 1, 1, 4), text) == {  # type: ignore[arg-type]
        "keys": P(None, ("data",), (), None, ("tensor",))
    }


def test_without_a_mesh_nothing_is_split() -> None:
    assert split_over(8, AXES) == ()
    assert image_axes((2, 8, 6, 10, 4)) == ((), ())


def test_images_may_lie_on_any_device() -> None:
    with jax.sharding.use_abstract_mesh(FakeMesh(2, 1, 4, 2).abstract_mesh):
        assert image_axes((16, 6, 10, 4)) == (("data", "frames", "tensor"),)
        assert image_axes((6, 10, 4)) == ()


def test_axes_of_one_device_are_left_out() -> None:
    with jax.set_mesh(create_mesh(MeshConfig(), jax.devices()[:1])):
        assert split_over(8, AXES) == ()


@dataclasses.dataclass(frozen=True)
class Chip:
    """What a mesh asks of a chip of a TPU v5e, in hosts of two by two."""

    id: int
    coords: tuple[int, int, int]
    process_index: int
    device_kind: str = "TPU v5 lite"
    platform: str = "tpu"
    core_on_chip: int = 0
    client: None = None


def chips(width: int, height: int) -> list[Chip]:
    """Those of a slice, host by host."""
    places = [
        (x, y, host)
        for host, (row, column) in enumerate(np.ndindex(height // 2, width // 2))
        for y in (2 * row, 2 * row + 1)
        for x in (2 * column, 2 * column + 1)
    ]
    return [Chip(number, (x, y, 0), host) for number, (x, y, host) in enumerate(places)]


@pytest.mark.parametrize(
    ("config", "held"),
    [
        # A ring through the slice comes back to the host where it begins.
        (MeshConfig(fsdp=16), [(0, 1, 6, 15), (2, 3, 4, 5), (7, 12, 13, 14), (8, 9, 10, 11)]),
        # An axis of four reaches over two hosts, which hold the same rows.
        (MeshConfig(data=4, frames=4), [(0, 1), (0, 1), (2, 3), (2, 3)]),
        (MeshConfig(data=4, tensor=4), [(0, 1), (0, 1), (2, 3), (2, 3)]),
        (MeshConfig(data=2, frames=8), [(0,), (0,), (1,), (1,)]),
    ],
)
def test_rows_of_a_batch_lie_where_the_mesh_has_their_devices(
    config: MeshConfig, held: list[tuple[int, ...]]
) -> None:
    mesh = create_mesh(config, chips(4, 4))
    rows = config.data * config.fsdp
    assert [held_rows(mesh, rows, process) for process in range(4)] == held


def test_devices_in_the_order_of_their_hosts_hold_shares_side_by_side() -> None:
    mesh = Mesh(np.array(chips(4, 4)).reshape(4, 4, 1, 1), AXES)
    shares = [held_rows(mesh, 32, process) for process in range(4)]
    assert shares == [tuple(range(first, first + 8)) for first in range(0, 32, 8)]
    alone = create_mesh(MeshConfig(), jax.devices()[:1])
    assert held_rows(alone, 3, 0) == (0, 1, 2)
