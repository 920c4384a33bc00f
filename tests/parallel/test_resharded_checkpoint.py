"""A training checkpoint that 8 devices have written goes on, on fewer and divided otherwise."""

from pathlib import Path

from tests.parallel.simulated_devices import run

MESHES = ["data=2,fsdp=2", "frames=2", "data=1"]


def test_every_array_comes_back_where_the_new_mesh_wants_it(tmp_path: Path) -> None:
    results = run("resharded_checkpoint.py", [str(tmp_path / "checkpoints"), *MESHES])
    assert results == {mesh: [] for mesh in MESHES}
