"""The loaded models: LoRAs at the strengths and ControlNets that a clip asks for."""

import contextlib
import copy
import dataclasses
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from hotshot_jax.jobs.maker import ClipMaker
from hotshot_jax.pipelines.hotshot_xl import HotshotXLPipeline
from hotshot_jax.runtime.program_folder import ProgramFolder


class Models(Protocol):
    """What the worker makes clips with, in several threads."""

    positions: int
    """Frames that the temporal layers know."""

    def lent(
        self,
        batch_size: int = 1,
        loras: Iterable[tuple[str, float]] = (),
        controlnets: Sequence[str] = (),
    ) -> contextlib.AbstractContextManager[ClipMaker]:
        """A maker of clips, for one thread and as long as the context lasts.

        Who needs LoRAs at other strengths than those that are in use waits until nobody uses them.

        Args:
            batch_size: clips of one call.
            loras: strengths by name; the others of those that can be named are off.
            controlnets: names of those that act.
        """
        ...


class LoadedModels:
    """Models that are loaded once.

    Args:
        loaded: a maker whose pipeline has all LoRAs and ControlNets.
        loras: names that can be asked for, and what each was loaded as.
        controlnets: names that can be asked for, in the order of the pipeline.
        compile_effort: that the pipeline was made with.
        programs: where compiled programs are kept, if anywhere.
    """

    def __init__(
        self,
        loaded: ClipMaker,
        loras: Mapping[str, str] | None = None,
        controlnets: Sequence[str] = (),
        compile_effort: str | None = None,
        programs: ProgramFolder | None = None,
    ):
        self._whole = loaded.pipeline
        self._loras = dict(loras or {})
        self._strengths = dict.fromkeys(self._loras, 0.0)
        self._controlnets = list(controlnets)
        self._effort = compile_effort
        self._programs = programs
        self._pipelines: dict[tuple[str, ...], HotshotXLPipeline] = {}
        self._turn = threading.Lock()
        self._unused = threading.Condition()
        self._users = 0
        self.positions = self._whole.components.unet.config.temporal_positions

    @contextlib.contextmanager
    def lent(
        self,
        batch_size: int = 1,
        loras: Iterable[tuple[str, float]] = (),
        controlnets: Sequence[str] = (),
    ) -> Iterator[ClipMaker]:
        """See `Models`.

        Raises:
            HotshotError: the files of a LoRA or of the checkpoint are gone.
        """
        given = dict(loras)
        wanted = {name: given.get(name, 0.0) for name in self._loras}
        # Who comes later waits behind whom the strengths make wait.
        with self._turn:
            if wanted != self._strengths:
                with self._unused:
                    self._unused.wait_for(lambda: not self._users)
                self._set(wanted)
            pipeline = copy.copy(self._pipeline(tuple(controlnets)))
            pipeline.runtime = pipeline.runtime.beside()
            with self._unused:
                self._users += 1
        try:
            yield ClipMaker(pipeline, batch_size)
        finally:
            with self._unused:
                self._users -= 1
                self._unused.notify_all()

    def _set(self, wanted: Mapping[str, float]) -> None:
        changed = False
        for name, strength in wanted.items():
            if strength != self._strengths[name]:
                self._whole.set_lora(self._loras[name], strength)
                self._strengths[name] = strength
                changed = True
        if changed:
            for names, pipeline in self._pipelines.items():
                pipeline.components = self._components(names)
                pipeline.runtime.components = pipeline.components
                pipeline.runtime.reload()

    def _pipeline(self, names: tuple[str, ...]) -> HotshotXLPipeline:
        if names not in self._pipelines:
            whole, runtime = self._whole, self._whole.runtime
            made = HotshotXLPipeline(
                self._components(names),
                precision=whole.precision,
                scheduler=whole.scheduler,
                low_vram_mode=runtime.low_vram_mode,
                decode_frames=whole.decode_frames,
                mesh=runtime.mesh,
                compile_effort=self._effort,
                context_batch=whole.context_batch,
            )
            if self._programs is not None:
                made.runtime.keep_programs(self._programs)
            self._pipelines[names] = made
        return self._pipelines[names]

    def _components(self, names: tuple[str, ...]) -> Any:
        whole = self._whole.components
        chosen = tuple(whole.controlnets[self._controlnets.index(name)] for name in names)
        return dataclasses.replace(whole, controlnets=chosen)
