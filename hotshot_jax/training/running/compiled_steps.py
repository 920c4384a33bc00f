"""Training steps for batches of all sizes, compiled together before the first one is made."""

import concurrent.futures
import itertools
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from hotshot_jax.data.buckets import Size
from hotshot_jax.runtime.stored_programs import StoredPrograms
from hotshot_jax.training.resources import traced_flops
from hotshot_jax.training.running.step import (
    Trainer,
    TrainState,
    compile_step,
    trace_step,
)
from hotshot_jax.training.trainees.trainee import Parameters

# Each takes gigabytes of main memory for a large UNet.
_MOST_AT_ONCE = 4
# What a batch has of its pixels or latents, each with `[batch, frames, height, width, ...]`.
_SPATIAL = ("mean", "deviation", "control")


class CompiledSteps:
    """Compiled forms of `Trainer.step`, by the size of the batch and whether it ends an update.

    Args:
        trainer: whose step it is.
        mesh: of the devices.
        effort: of the compiler, see `effort_options`.
        stored: compiled steps of earlier runs, by all that `trainer` is made of.
    """

    def __init__(
        self, trainer: Trainer, mesh: Mesh, effort: str, stored: StoredPrograms | None = None
    ) -> None:
        self._trainer = trainer
        self._mesh = mesh
        self._effort = effort
        self._stored = stored
        self._tracing = threading.Lock()
        self._steps: dict[tuple[Size, bool], tuple[Any, float]] = {}

    def __contains__(self, key: tuple[Size, bool]) -> bool:
        return key in self._steps

    def __getitem__(self, key: tuple[Size, bool]) -> tuple[Any, float]:
        """The step, and the FLOPs of each device in it."""
        return self._steps[key]

    def compile(
        self,
        state: TrainState,
        frozen: Parameters,
        arrays: Mapping[str, jax.Array],
        sizes: Sequence[Size],
    ) -> None:
        """Compiles the steps of several sizes, some at a time.

        Args:
            state: of the training.
            frozen: parameters that do not train.
            arrays: of a batch of the first size.
            sizes: (width, height) of the batches.
        """
        kinds = [True] if self._trainer.config.accumulation_steps == 1 else [False, True]
        wanted = list(itertools.product(dict.fromkeys(sizes), kinds))

        def made(key: tuple[Size, bool]) -> tuple[Any, float]:
            size, last = key
            given = arrays if size == sizes[0] else _of_size(arrays, sizes[0], size)
            return self._made((state, frozen, given), last)

        # Compilers of several hosts may wait for each other, in one order.
        at_once = 1 if jax.process_count() > 1 else _MOST_AT_ONCE
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            self._steps.update(zip(wanted, pool.map(made, wanted), strict=True))

    def _made(self, given: tuple[Any, ...], last: bool) -> tuple[Any, float]:
        platform = self._mesh.devices.flat[0].platform

        def make() -> tuple[Any, float]:
            with self._tracing:
                traced = trace_step(self._trainer, *given, last=last)
            flops = traced_flops(traced.jaxpr) / self._mesh.size
            return compile_step(traced, platform, self._effort), flops

        with jax.set_mesh(self._mesh):
            if self._stored is None:
                return make()
            leaves, structure = jax.tree.flatten(given)
            shapes = [(jax.typeof(leaf), leaf.sharding) for leaf in leaves]
            made_of = ("training step", last, structure, shapes, self._mesh, platform, self._effort)
            program, flops = self._stored.get_or_make(made_of, make)
            return program, flops


def _of_size(
    arrays: Mapping[str, jax.Array], size: Size, other: Size
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a batch's arrays, had it another size."""

    def resized(name: str, array: jax.Array) -> jax.ShapeDtypeStruct:
        shape = list(array.shape)
        if name in _SPATIAL:
            (width, height), (other_width, other_height) = size, other
            shape[2] = shape[2] * other_height // height
            shape[3] = shape[3] * other_width // width
        return jax.ShapeDtypeStruct(tuple(shape), array.dtype, sharding=array.sharding)

    return {name: resized(name, array) for name, array in arrays.items()}
