"""Stored programs run on the devices that they were compiled for, in their order."""

from pathlib import Path

from tests.parallel.simulated_devices import run

# As meshes of four and eight chips of v5e lie, and one device that is not the first.
ORDERS = ["0,1,3,2", "0,1,2,3,7,6,5,4", "3"]


def test_devices_in_any_order(tmp_path: Path) -> None:
    results = run("stored_on_meshes.py", [str(tmp_path / "programs"), *ORDERS])
    assert results == {order: [True, 0.0] for order in ORDERS}
