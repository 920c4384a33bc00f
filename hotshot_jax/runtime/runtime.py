"""Where a pipeline's models lie and how their programs are run."""

import copy
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from hotshot_jax.parallel.placement import place, place_missing, place_module
from hotshot_jax.runtime.precision import Precision
from hotshot_jax.runtime.program_folder import ProgramFolder
from hotshot_jax.runtime.programs import Programs, flattened
from hotshot_jax.runtime.progress import Progress
from hotshot_jax.runtime.stored_programs import StoredPrograms

Build = Callable[[list[jax.Array]], Any]
"""Puts the arrays of a model together again."""


class Runtime:
    """Models in device memory, and compiled programs over them.

    Args:
        components: gives a model by its name (`model`).
        precision: dtypes.
        progress: shows the stages of each call.
        low_vram_mode: the components lie in host memory; a model is copied to the device when it is
            used, and dropped there by `rest`.
        mesh: the devices to run on; None for the default device alone.
        compile_effort: see `Programs`.
    """

    def __init__(
        self,
        components: Any,
        precision: Precision,
        progress: Progress,
        *,
        low_vram_mode: bool = False,
        mesh: Mesh | None = None,
        compile_effort: str | None = None,
    ):
        self.components = components
        self.precision = precision
        self.progress = progress
        self.low_vram_mode = low_vram_mode
        # A mesh of one device is no mesh: everything stays as it is compiled without.
        self.mesh = None if mesh is None or mesh.size == 1 else mesh
        self._programs = Programs(self.mesh, compile_effort)
        self._arrays: dict[str, tuple[list[jax.Array], Build]] = {}

    def model(self, name: str) -> tuple[list[jax.Array], Build]:
        """The arrays of a model, in device memory, and how to put it together again.

        Walking through the thousand modules of a UNet takes milliseconds; a list of arrays does
        not, and is what a program called at every step should be given.
        """
        if name not in self._arrays:
            model = self.components.model(name)
            if self.mesh is not None:
                model = place_module(model, self.mesh)
            arrays, build = flattened(model)
            if self.low_vram_mode and self.mesh is None:
                arrays = jax.device_put(arrays, jax.local_devices()[0])
            self._arrays[name] = arrays, build
        return self._arrays[name]

    def keep_programs(self, folder: ProgramFolder) -> None:
        """Loads programs from a folder, and keeps there what it lacks.

        The models have to be those that are loaded, with nothing of them exchanged: a program is
        found by their configurations.

        Args:
            folder: with a secret.
        """
        if jax.process_count() == 1:
            models = repr((self.components.structure, self.precision, self.low_vram_mode))
            self._programs.stored = StoredPrograms(folder, models)

    def beside(self) -> "Runtime":
        """The same models and programs for another thread, with a progress of its own."""
        return copy.copy(self)

    def start_job(self) -> None:
        """Tells that another call begins, which may need other programs than the last one."""
        self._programs.start_job()

    def rest(self, *names: str) -> None:
        """Tells that these models are not needed for now."""
        if self.low_vram_mode:
            for name in names:
                self._arrays.pop(name, None)

    def reload(self) -> None:
        """Tells that the components' parameters have changed."""
        self._arrays.clear()

    def program(
        self,
        name: str,
        key: Any,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        *,
        donate: tuple[int, ...] = (),
        matmul: str | None = None,
        out_shardings: Any = None,
    ) -> Callable[..., Any]:
        """A compiled program; the arguments are those of `Programs.get`.

        On a mesh, whatever among its arguments is not there yet is copied to every device.
        """
        mesh = self.mesh
        if mesh is not None:
            arguments = place_missing(arguments, mesh)
        program = self._programs.get(
            name,
            key,
            function,
            arguments,
            self.progress,
            donate=donate,
            matmul=matmul or self.precision.matmul,
            out_shardings=out_shardings,
        )
        if mesh is None:
            return program
        return lambda *given: program(*place_missing(given, mesh))

    def place(self, array: Any, sharding: Callable[[Mesh, tuple[int, ...]], Any]) -> jax.Array:
        """An array where a program wants it: on a mesh by `sharding(mesh, shape)`.

        Args:
            array: the same on all hosts; a JAX array is left as it is where there is no mesh.
            sharding: such as `parallel.placement.video_sharding`.
        """
        if self.mesh is None:
            return jnp.asarray(array)
        return place(array, sharding(self.mesh, array.shape))
