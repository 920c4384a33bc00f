"""Updates on 8 simulated devices against those on one, and a state saved on 8 that goes on on 4.

A program of its own, because the number of simulated devices is fixed once JAX has started:
`python tests/parallel/sharded_optimizers.py FOLDER OPTIMIZER ...` prints one JSON object, by
optimiser: relative errors, and whether the state came back as it was. "prodigy with factors" has
learning rates by group of layers.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hotshot_jax.parallel.mesh import MeshConfig, create_mesh
from hotshot_jax.schedulers import make_scheduler
from hotshot_jax.training.optimizer import OptimizerConfig, learning_rate_schedule
from hotshot_jax.training.running.checkpoint import Checkpoints, Saved, restore
from hotshot_jax.training.running.step import StepConfig, Trainer, TrainState, on_mesh

STEPS = 3
SPLIT = {
    "in/kernel": PartitionSpec("fsdp", None),
    "blocks/kernel": PartitionSpec(None, None, "fsdp"),
    "conv/kernel": PartitionSpec(None, None, None, "fsdp"),
    "in/bias": PartitionSpec(),
}
FACTORS = {"in/kernel": 0.3, "blocks/*": 2.0, "in/bias": 0.0}
SHAPES = {
    "in/kernel": (64, 128),
    "blocks/kernel": (2, 12, 16),
    "conv/kernel": (3, 3, 4, 8),
    "in/bias": (8,),
}


def drawn(seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}


def placed(arrays: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    return {k: jax.device_put(v, NamedSharding(mesh, SPLIT[k])) for k, v in arrays.items()}


def updated(trainer: Trainer, state: TrainState, mesh: Mesh, steps: range) -> TrainState:
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    apply: Any = jax.jit(trainer.apply, out_shardings=(shardings, None), donate_argnums=0)
    with jax.set_mesh(mesh), jax.default_matmul_precision("highest"):
        for step in steps:
            state, _ = apply(state, placed(drawn(step + 1), mesh), {})
    return state


class Held:
    """What a trainer trains, where only its updates are looked at."""

    trained = frozenset(SHAPES)


def compare(name: str, folder: Path) -> dict[str, Any]:
    optimizer, _, factors = name.partition(" with ")
    groups = FACTORS if factors else {}
    trainer = Trainer(
        Held(),  # type: ignore[arg-type]
        make_scheduler("DDPMScheduler", {}),
        StepConfig(optimizer=OptimizerConfig(name=optimizer, learning_rate_factors=groups)),
        # Prodigy's first steps are of a millionth, and would drown in the digits of parameters.
        learning_rate_schedule("constant", 1e4 if optimizer == "prodigy" else 0.01, 0, STEPS),
    )
    one, four, eight = (
        create_mesh(MeshConfig(fsdp=size), jax.devices()[:size]) for size in (1, 4, 8)
    )

    def begin(mesh: Mesh) -> TrainState:
        return on_mesh(trainer.init(placed(drawn(0), mesh), 0), mesh)

    expected = jax.device_get(updated(trainer, begin(one), one, range(STEPS)))
    state = updated(trainer, begin(eight), eight, range(STEPS))
    checkpoints = Checkpoints(folder / name, keep=1)
    checkpoints.save(state, STEPS, {})
    checkpoints.close()
    back = restore(Saved(folder / name, STEPS), begin(four))
    before, after = jax.device_get((state, back))
    same = jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), before, after)
    one_more = range(STEPS, STEPS + 1)
    result = jax.device_get(trainer.result(updated(trainer, back, four, one_more)))
    alone = jax.device_put(expected, jax.tree.map(lambda leaf: leaf.sharding, begin(one)))
    further = updated(trainer, alone, one, one_more)
    return {
        "error": _error(jax.device_get(trainer.result(state)), trainer.result(expected)),
        "error_on_four": _error(result, jax.device_get(trainer.result(further))),
        "restored": all(jax.tree.leaves(same)),
    }


def _error(found: Any, wanted: Any) -> float:
    start = drawn(0)
    moved = {name: np.abs(leaf - start[name]).max() for name, leaf in wanted.items()}
    # What stands still does so on every mesh.
    moved = {name: most or np.finfo(np.float32).tiny for name, most in moved.items()}
    return max(
        float(np.abs(found[name] - leaf).max() / moved[name]) for name, leaf in wanted.items()
    )


if __name__ == "__main__":
    assert jax.device_count() == 8
    folder, *names = sys.argv[1:]
    print(json.dumps({name: compare(name, Path(folder)) for name in names}))
