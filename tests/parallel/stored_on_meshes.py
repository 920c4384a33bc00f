"""Stores programs on meshes of simulated devices in several orders, and runs what is loaded again.

A program of its own, because the number of simulated devices is fixed once JAX has started, and
because a program that is loaded for other devices ends the process:

    python tests/parallel/stored_on_meshes.py FOLDER 0,1,3,2

Prints for each order whether the program was loaded, and the largest difference of its results.
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hotshot_jax.runtime.program_folder import ProgramFolder
from hotshot_jax.runtime.stored_programs import StoredPrograms, _devices_of


def difference(stored: StoredPrograms, order: tuple[int, ...]) -> tuple[bool, float]:
    """Whether a program for devices in an order is loaded, and how far off its results are."""
    devices = jax.devices()
    mesh = Mesh(np.array([devices[place] for place in order]), ("x",))
    split = NamedSharding(mesh, PartitionSpec("x"))
    array = jax.device_put(jnp.arange(16.0).reshape(8, 2), split)
    jitted = jax.jit(lambda x: (x + jnp.arange(8.0)[:, None], x.sum(), jnp.cumsum(x, 0)))
    compiled = jitted.lower(array).compile()
    stored.get_or_compile(order, lambda: compiled)
    assert [each.id for each in _devices_of(compiled)] == list(order)
    executable = compiled.runtime_executable()
    assert executable is not None and executable.local_devices() == _devices_of(compiled)
    found = stored.get(stored.key(order) or "")
    if found is None:
        return False, 0.0
    pairs = zip(found[0](array), compiled(array), strict=True)
    return True, max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)


def main() -> None:
    """Prints one JSON object."""
    assert jax.device_count() == 8
    # What comes from there is not stored on a CPU.
    jax.config.update("jax_enable_compilation_cache", False)
    stored = StoredPrograms(ProgramFolder(Path(sys.argv[1])).with_secret(b"s" * 32), "m")
    orders = [tuple(map(int, text.split(","))) for text in sys.argv[2:]]
    print(json.dumps({",".join(map(str, each)): difference(stored, each) for each in orders}))


if __name__ == "__main__":
    main()
