"""Where a pipeline's models lie and how their programs are run."""

from collections.abc import Callable
from typing import Any

import jax

from hotshot_jax.pipelines.components import Components
from hotshot_jax.pipelines.precision import Precision
from hotshot_jax.pipelines.programs import Programs, flattened
from hotshot_jax.pipelines.progress import Progress

Build = Callable[[list[jax.Array]], Any]
"""Puts the arrays of a model together again."""


class Runtime:
    """Models in device memory, and compiled programs over them.

    Args:
        components: the models.
        precision: dtypes.
        progress: shows the stages of each call.
        low_vram_mode: the components lie in host memory; a model is copied to the device when it is
            used, and dropped there by `rest`.
    """

    def __init__(
        self,
        components: Components,
        precision: Precision,
        progress: Progress,
        *,
        low_vram_mode: bool = False,
    ):
        self.components = components
        self.precision = precision
        self.progress = progress
        self.low_vram_mode = low_vram_mode
        self._programs = Programs()
        self._arrays: dict[str, tuple[list[jax.Array], Build]] = {}

    def model(self, name: str) -> tuple[list[jax.Array], Build]:
        """The arrays of a model, in device memory, and how to put it together again.

        Walking through the thousand modules of a UNet takes milliseconds; a list of arrays does
        not, and is what a program called at every step should be given.
        """
        if name not in self._arrays:
            arrays, build = flattened(self.components.model(name))
            if self.low_vram_mode:
                arrays = jax.device_put(arrays, jax.devices()[0])
            self._arrays[name] = arrays, build
        return self._arrays[name]

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
    ) -> Callable[..., Any]:
        """A compiled program; the arguments are those of `Programs.get`."""
        return self._programs.get(
            name,
            key,
            function,
            arguments,
            self.progress,
            donate=donate,
            matmul=matmul or self.precision.matmul,
        )
