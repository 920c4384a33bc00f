"""Saves a training state on 8 simulated devices and restores it on fewer, laid out otherwise.

A program of its own, because the number of simulated devices is fixed once JAX has started:
`python tests/parallel/resharded_checkpoint.py FOLDER MESH ...` prints one JSON object, by mesh:
what is not as it was saved, or not where it should be.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from hotshot_jax.models import UNet3DConditionModel
from hotshot_jax.parallel.mesh import MeshConfig, create_mesh
from hotshot_jax.parallel.placement import place
from hotshot_jax.schedulers import make_scheduler
from hotshot_jax.training.optimizer import learning_rate_schedule
from hotshot_jax.training.running.checkpoint import Checkpoints, restore
from hotshot_jax.training.running.step import StepConfig, Trainer, TrainState, on_mesh
from hotshot_jax.training.trainees.trainee import Division
from tests.parallel.sharded_models import UNET

WRITTEN_ON = MeshConfig(fsdp=4, tensor=2)
STEP = 3


def state_on(mesh: Mesh, seed: int) -> TrainState:
    """A state in which every array has other numbers."""
    unet = nnx.eval_shape(lambda: UNet3DConditionModel(UNET, rngs=nnx.Rngs(0)))
    division = Division.of(unet, "temporal")
    trainer = Trainer(
        division,
        make_scheduler("DDPMScheduler", {"beta_schedule": "scaled_linear"}),
        StepConfig(ema_decay=0.9),
        learning_rate_schedule("constant", 1e-3, 0, 1),
    )
    shardings = division.shardings(mesh)
    shapes = {name: unet_leaf.shape for name, unet_leaf in _leaves(unet, division).items()}
    trained = {
        name: place(np.zeros(shape, np.float32), shardings[name]) for name, shape in shapes.items()
    }
    generator = np.random.default_rng(seed)

    def filled(leaf: Any) -> jax.Array:
        numbers = generator.integers(0, 1000, leaf.shape)
        return place(numbers.astype(leaf.dtype), leaf.sharding)

    state = jax.tree.map(filled, on_mesh(trainer.init(trained, 0), mesh))
    return dataclasses.replace(state, step=place(np.int32(STEP), state.step.sharding))


def _leaves(unet: Any, division: Division) -> dict[str, Any]:
    by_path = dict(nnx.to_flat_state(nnx.state(unet, nnx.Param)))
    return {name: by_path[division.paths[name]] for name in sorted(division.trained)}


def problems(restored: TrainState, saved: TrainState, like: TrainState) -> list[str]:
    listed = []
    places = jax.tree.leaves(like)
    values = jax.tree.leaves(saved)
    for (path, leaf), value, place_ in zip(
        jax.tree_util.tree_flatten_with_path(restored)[0], values, places, strict=True
    ):
        name = jax.tree_util.keystr(path)
        if not np.array_equal(np.asarray(leaf), np.asarray(value)):
            listed.append(f"{name} has other numbers")
        if leaf.sharding != place_.sharding:
            listed.append(f"{name} lies at {leaf.sharding}, not {place_.sharding}")
    return listed


def main(folder: str, arguments: list[str]) -> None:
    assert jax.device_count() == 8
    saved = state_on(create_mesh(WRITTEN_ON), 1)
    checkpoints = Checkpoints(Path(folder), 1)
    checkpoints.save(saved, STEP, {})
    checkpoints.wait()
    latest = checkpoints.latest
    assert latest is not None
    results = {}
    for text in arguments:
        config = MeshConfig.parse(text)
        like = state_on(create_mesh(config, jax.devices()[: config.size]), 2)
        assert problems(like, saved, like), "the test could not fail"
        results[text] = problems(restore(latest, like), saved, like)
    checkpoints.close()
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
