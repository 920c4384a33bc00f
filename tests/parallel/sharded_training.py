"""Trains one step on meshes of 8 simulated devices and prints how far it is from one device.

A program of its own, because the number of simulated devices is fixed once JAX has started:
`python tests/parallel/sharded_training.py MESH ...` prints one JSON object, by mesh: relative
errors, what does not lie where it should, and the share of the moments that a device holds. All of
a UNet trains, or, with `text` before the meshes, factors for it and for both text encoders.
"""

import dataclasses
import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hotshot_jax.models import CLIPTextModel, UNet3DConditionModel
from hotshot_jax.models.clip import CLIPTextConfig
from hotshot_jax.parallel.mesh import MeshConfig, create_mesh
from hotshot_jax.parallel.placement import batch_sharding, place, video_sharding, whole
from hotshot_jax.schedulers import make_scheduler
from hotshot_jax.training.optimizer import OptimizerConfig, learning_rate_schedule
from hotshot_jax.training.running.step import (
    StepConfig,
    Trainer,
    TrainState,
    compile_step,
    on_mesh,
    trace_step,
)
from hotshot_jax.training.trainees.lora import TEXT_ENCODERS, LoraTrainee
from hotshot_jax.training.trainees.trainee import Division
from tests.parallel.sharded_models import (
    BATCH,
    FRAMES,
    HEIGHT,
    UNET,
    WIDTH,
    normal,
    random_state,
    relative_error,
)

# Adam divides by the root of the second moment. Where a gradient is nothing but rounding errors,
# the first update would be a full step in whatever direction they have.
EPSILON = 1e-4
STEPS = 2
TEXT = "text"
# As wide together as the text that the UNet takes.
FIRST = CLIPTextConfig(8, 16, 2, 2, vocab_size=32, max_position_embeddings=7, eos_token_id=31)
SECOND = dataclasses.replace(
    FIRST, hidden_size=16, num_attention_heads=4, projection_dim=16, with_projection=True
)


class Case:
    """A trainer, and the state, numbers and parameters after some steps on one device."""

    def __init__(self, *, text: bool) -> None:
        unet = nnx.eval_shape(lambda: UNet3DConditionModel(UNET, rngs=nnx.Rngs(0)))
        state = jax.device_get(random_state(unet))
        self.division: Division | LoraTrainee = Division.of(unet, "unet")
        values = {path: leaf[...] for path, leaf in nnx.to_flat_state(state)}
        self.values = {"/".join(map(str, path)): leaf for path, leaf in values.items()}
        self.frozen: dict[str, Any] = {}
        if text:
            self.division, self.values, self.frozen = _factors(unet, values)
        self.trainer = Trainer(
            self.division,
            make_scheduler("DDPMScheduler", {"beta_schedule": "scaled_linear"}),
            StepConfig(
                optimizer=OptimizerConfig(epsilon=EPSILON),
                ema_decay=0.9,
                text_dropout=0.25 if text else 0.0,
            ),
            learning_rate_schedule("constant", 1e-3, 0, STEPS),
        )
        self.batch = {
            "mean": normal(1, BATCH, FRAMES, HEIGHT, WIDTH, 4),
            "deviation": jnp.abs(normal(2, BATCH, FRAMES, HEIGHT, WIDTH, 4)),
            "time_ids": jnp.abs(normal(5, BATCH, 6)) * 500,
        }
        if text:
            self.batch |= {
                f"{kind}ids{which}": _ids(10 * seed + len(which), rows)
                for seed, (kind, rows) in enumerate((("", BATCH), ("empty_", 1)))
                for which in ("", "_2")
            }
        else:
            self.batch |= {
                "hidden": normal(3, BATCH, 7, 24),
                "pooled": normal(4, BATCH, 16),
                "empty_hidden": normal(6, 7, 24),
                "empty_pooled": normal(7, 16),
            }
        self.expected = self.run(create_mesh(MeshConfig(), jax.devices()[:1]))

    def run(self, mesh: jax.sharding.Mesh) -> tuple[TrainState, list[Any], TrainState]:
        """The state, the numbers of each step, and the state before the first (as shapes)."""
        shardings = self.division.shardings(mesh)
        # Copies, since what trains is given away.
        trained = {
            name: jnp.copy(place(value, shardings[name])) for name, value in self.values.items()
        }
        frozen = {name: place(value, shardings[name]) for name, value in self.frozen.items()}
        state = on_mesh(self.trainer.init(trained, 0), mesh)
        before = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
        )
        batch = {name: place(x, self._place(name, x, mesh)) for name, x in self.batch.items()}
        with jax.set_mesh(mesh):
            program = compile_step(trace_step(self.trainer, state, frozen, batch), "cpu")
        numbers = []
        for _ in range(STEPS):
            state, metrics = program(state, frozen, batch, place(np.int32(0), whole(mesh)))
            numbers.append({name: metrics[name] for name in ("loss", "grad_norm")})
        return state, numbers, before

    @staticmethod
    def _place(name: str, x: jax.Array, mesh: jax.sharding.Mesh) -> Any:
        if name.startswith("empty"):
            return whole(mesh)
        return video_sharding(mesh, x.shape) if x.ndim == 5 else batch_sharding(mesh, x.shape)

    def compare(self, mesh: jax.sharding.Mesh) -> dict[str, Any]:
        state, numbers, before = self.run(mesh)
        expected_state, expected_numbers, _ = self.expected
        return {
            "numbers": relative_error(numbers, expected_numbers),
            "parameters": relative_error(state.trained, expected_state.trained),
            "average": relative_error(state.average, expected_state.average),
            "misplaced": self._misplaced(state, mesh) + self._moved(state, before),
            "moments_held": _held(state.optimizer),
        }

    def _misplaced(self, state: TrainState, mesh: jax.sharding.Mesh) -> list[str]:
        """Parameters, averages and moments that do not lie where the rules want the parameters."""
        shardings = self.division.shardings(mesh)
        wrong = []
        for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
            name = path[-1].key if isinstance(path[-1], jax.tree_util.DictKey) else None
            wanted = shardings[name] if name in shardings else whole(mesh)
            if not leaf.sharding.is_equivalent_to(wanted, leaf.ndim):
                wrong.append(f"{jax.tree_util.keystr(path)}: {leaf.sharding}, not {wanted}")
        return wrong

    @staticmethod
    def _moved(state: TrainState, before: TrainState) -> list[str]:
        """What a step has moved elsewhere."""
        pairs = zip(
            jax.tree_util.tree_flatten_with_path(state)[0], jax.tree.leaves(before), strict=True
        )
        return [
            f"{jax.tree_util.keystr(path)} moved"
            for (path, now), then in pairs
            if not now.sharding.is_equivalent_to(then.sharding, now.ndim)
        ]


def _held(tree: Any) -> float:
    """The share of the bytes of a tree that the first device holds."""
    leaves = jax.tree.leaves(tree)
    return sum(x.addressable_data(0).nbytes for x in leaves) / sum(x.nbytes for x in leaves)


def _factors(
    unet: Any, values: dict[Any, Any]
) -> tuple[LoraTrainee, dict[str, Any], dict[str, Any]]:
    """Factors for a UNet and two text encoders, none of them zero, and the frozen rest."""
    encoders = {}
    for name, config in zip(TEXT_ENCODERS, (FIRST, SECOND), strict=True):
        encoder = nnx.eval_shape(lambda config=config: CLIPTextModel(config, rngs=nnx.Rngs(0)))
        encoders[name] = encoder
        state = jax.device_get(random_state(encoder))
        values |= {(name, *path): leaf[...] for path, leaf in nnx.to_flat_state(state)}
    lora = LoraTrainee.of(unet, "both", 4, "all", encoders)
    trained, frozen = lora.start(values, 0)
    drawn = {
        name: 0.2 * normal(seed, *trained[name].shape) for seed, name in enumerate(sorted(trained))
    }
    return lora, drawn, frozen


def _ids(seed: int, rows: int) -> jax.Array:
    ids = np.random.default_rng(seed).integers(0, FIRST.eos_token_id, (rows, 7), np.int32)
    ids[:, 4] = FIRST.eos_token_id
    return jnp.asarray(ids)


def main(arguments: list[str]) -> None:
    assert jax.device_count() == 8
    case = Case(text=arguments[0] == TEXT)
    results = {}
    for text in arguments:
        if text == TEXT:
            continue
        config = MeshConfig.parse(text)
        results[text] = case.compare(create_mesh(config, jax.devices()[: config.size]))
        print(text, results[text], file=sys.stderr, flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1:])
