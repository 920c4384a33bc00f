"""The estimate of what training needs."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from hotshot_jax.convert.builders import model_builder
from hotshot_jax.convert.load import abstract
from hotshot_jax.schedulers import make_scheduler
from hotshot_jax.training.resources import describe_training_memory, training_memory
from hotshot_jax.training.running.step import StepConfig, Trainer
from hotshot_jax.training.trainees.trainee import Division
from tests.tiny_checkpoint import tiny_configs


@pytest.mark.parametrize("ema_decay", [None, 0.99])
def test_parameters_moments_and_gradients_are_counted(ema_decay: float | None) -> None:
    unet = abstract(model_builder("unet", tiny_configs()["unet"], where="unet"))
    division = Division.of(unet, "temporal")
    trainer = Trainer(
        division,
        make_scheduler("DDPMScheduler", {}),
        StepConfig(ema_decay=ema_decay),
        lambda count: jnp.float32(1e-3),
    )
    leaves = dict(nnx.to_flat_state(nnx.state(unet, nnx.Param)))
    shapes = {
        name: jax.ShapeDtypeStruct(leaves[path].shape, jnp.float32)
        for name, path in division.paths.items()
    }
    trained = {name: leaf for name, leaf in shapes.items() if name in division.trained}
    frozen = {name: leaf for name, leaf in shapes.items() if name not in division.trained}
    state = jax.eval_shape(lambda trained: trainer.init(trained, 0), trained)
    parts = training_memory(state, frozen, unet, (2, 4, 2, 2, 4), "blocks")

    size = sum(leaf.size * 4 for leaf in trained.values())
    assert parts["trained weights"] == parts["gradients"] == size
    assert parts["frozen weights"] == sum(leaf.size * 4 for leaf in frozen.values())
    # Two moments, and counters of steps.
    assert 2 * size <= parts["optimiser"] < 2 * size + 100
    assert parts.get("moving average", 0) == (size if ema_decay else 0)
    assert parts["activations"] > 0
    assert "activations of text encoders" not in parts
    words = describe_training_memory(parts)
    assert words.startswith("memory of each device: about ") and "optimiser" in words
