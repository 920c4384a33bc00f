"""What is written after --mesh, and the mesh made of it."""

import types
from unittest import mock

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from hotshot_jax.errors import UsageError
from hotshot_jax.parallel import mesh
from hotshot_jax.parallel.mesh import AXES, MeshConfig, create_mesh, mesh_config


def test_axes_are_read_and_missing_ones_have_one_device() -> None:
    assert MeshConfig.parse("data=2, frames=4") == MeshConfig(data=2, frames=4)


def test_minus_one_takes_what_is_left() -> None:
    assert MeshConfig.parse("data=2,frames=-1").resolve(8) == MeshConfig(data=2, frames=4)


def test_text_form_can_be_read_again() -> None:
    for config in (MeshConfig(), MeshConfig(data=2, tensor=4), MeshConfig(fsdp=-1)):
        assert MeshConfig.parse(str(config)) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frame=4", "unknown axis 'frame'.*did you mean frames"),
        ("pipeline=4", "unknown axis 'pipeline', expected one of data, fsdp, frames, tensor"),
        ("", "expected AXIS=SIZE"),
        ("8", "expected AXIS=SIZE"),
        ("data=2,,frames=4", "expected AXIS=SIZE"),
        ("data=two", "data=two is not a whole number"),
        ("data=2.5", "data=2.5 is not a whole number"),
        ("data=2,data=4", "data is given twice"),
        ("data=0", "expected a positive number"),
        ("data=-2", "expected a positive number"),
        ("data=-1,frames=-1", "only one axis may be -1"),
    ],
)
def test_unreadable_meshes_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MeshConfig.parse(text)


@pytest.mark.parametrize("text", ["data=3", "data=16", "data=3,frames=-1", "data=2,frames=2"])
def test_axes_must_multiply_to_the_number_of_devices(text: str) -> None:
    with pytest.raises(UsageError, match="there are 8 devices"):
        MeshConfig.parse(text).resolve(8)


def test_frames_must_divide() -> None:
    with pytest.raises(UsageError, match=r"12 frames do not divide.*`mesh` frames=4"):
        mesh_config("frames=8", "infer", 8, frames=12)
    assert mesh_config("frames=4,data=2", "infer", 8, frames=12).frames == 4


@pytest.mark.parametrize(
    ("task", "devices", "frames", "videos", "expected"),
    [
        ("infer", 1, 8, 1, MeshConfig()),
        ("infer", 8, 8, 1, MeshConfig(frames=8)),
        ("infer", 8, 8, 8, MeshConfig(data=8)),
        ("infer", 8, 1, 1, MeshConfig(data=2, tensor=4)),
        ("infer", 16, 8, 1, MeshConfig(data=2, frames=8)),
        ("infer", 32, 8, 1, MeshConfig(data=2, frames=8, tensor=2)),
        ("infer", 8, 12, 1, MeshConfig(data=2, frames=4)),
        ("decode", 4, 8, 1, MeshConfig(frames=4)),
        ("train", 1, 8, 1, MeshConfig()),
        ("train", 8, 8, 1, MeshConfig(fsdp=8)),
        ("train", 12, 8, 1, MeshConfig(fsdp=12)),
        ("train", 24, 8, 1, MeshConfig(data=2, fsdp=12)),
        ("train", 64, 8, 1, MeshConfig(data=4, fsdp=16)),
    ],
)
def test_auto(task: str, devices: int, frames: int, videos: int, expected: MeshConfig) -> None:
    config = mesh_config("auto", task, devices, frames=frames, videos=videos)
    assert config == expected
    assert config.resolve(devices) == config


def test_auto_without_guidance_does_not_split_its_halves() -> None:
    config = mesh_config("auto", "infer", 16, frames=8, guidance=False)
    assert config == MeshConfig(frames=8, tensor=2)


def test_auto_splits_what_may_cross_slices_first() -> None:
    assert mesh_config("auto", "infer", 8, slices=2) == MeshConfig(data=2, frames=4)
    assert mesh_config("auto", "infer", 8, videos=2, slices=2) == MeshConfig(data=2, frames=4)
    assert mesh_config("auto", "infer", 16, slices=2) == MeshConfig(data=2, frames=8)
    assert mesh_config("auto", "train", 16, slices=2) == MeshConfig(data=2, fsdp=8)


def test_unknown_task_is_refused() -> None:
    with pytest.raises(UsageError, match="expected one of infer, decode, train"):
        mesh_config("auto", "sample", 8)


def test_mesh_has_all_axes_of_type_auto() -> None:
    made = create_mesh(MeshConfig(), jax.devices()[:1])
    assert made.axis_names == AXES
    assert made.axis_types == (AxisType.Auto,) * len(AXES)
    assert made.size == 1


def _devices(slices: int, each: int) -> list[types.SimpleNamespace]:
    return [
        types.SimpleNamespace(id=index, slice_index=index // each) for index in range(slices * each)
    ]


@pytest.mark.parametrize(
    ("config", "within", "across"),
    [
        (MeshConfig(data=2, frames=4), [1, 1, 4, 1], [2, 1, 1, 1]),
        (MeshConfig(data=4, frames=2), [2, 1, 2, 1], [2, 1, 1, 1]),
        (MeshConfig(fsdp=8), [1, 4, 1, 1], [1, 2, 1, 1]),
    ],
)
def test_only_data_and_fsdp_cross_slices(
    config: MeshConfig, within: list[int], across: list[int]
) -> None:
    shape = [getattr(config, axis) for axis in AXES]
    with (
        mock.patch.object(mesh, "Mesh"),
        mock.patch.object(mesh.mesh_utils, "create_hybrid_device_mesh") as create,
    ):
        create.return_value = np.empty(shape)
        create_mesh(config, _devices(2, 4))
    assert create.call_args.args[:2] == (within, across)


def test_frames_may_not_cross_slices() -> None:
    with pytest.raises(UsageError, match="data or fsdp must be a multiple of 2"):
        create_mesh(MeshConfig(frames=8), _devices(2, 4))
