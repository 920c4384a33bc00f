"""Where inputs go."""

from typing import Any

import jax
import pytest
from jax.sharding import AbstractMesh, PartitionSpec as P

from hotshot_jax.errors import UsageError
from hotshot_jax.models.layers.sharding_points import image_axes, split_over
from hotshot_jax.parallel.mesh import AXES, MeshConfig, create_mesh
from hotshot_jax.parallel.placement import (
    batch_sharding,
    check_share,
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


def test_processes_that_would_have_to_read_the_same_samples_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mesh = create_mesh(MeshConfig(), jax.devices()[:1])
    check_share(mesh, 4)
    # As with frames=2 over two processes: both hold all samples.
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UsageError, match="each of the 2 processes needs 4 of them"):
        check_share(mesh, 4)
