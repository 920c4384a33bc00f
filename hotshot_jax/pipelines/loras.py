"""The LoRAs of a pipeline: merged when its models are loaded, and again at other strengths."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from flax import nnx

from hotshot_jax.convert.hub import resolve
from hotshot_jax.convert.load import with_parameters
from hotshot_jax.convert.prepare import Change, PreparedComponent
from hotshot_jax.convert.tensors.rules import flat_parameters, torch_slots
from hotshot_jax.errors import UsageError
from hotshot_jax.lora import Lora, ModuleNames, changed_paths, merged_source, open_lora
from hotshot_jax.lora.read import select_lora_files

COMPONENTS = ("unet", "text_encoder", "text_encoder_2")
"""The models that a LoRA may change."""


@dataclasses.dataclass(frozen=True)
class LoadedLora:
    """A LoRA and its present strength.

    Attributes:
        name: what it was called when it was loaded: its path or Hub id.
        lora: its changes.
        scale: its strength; at 0 it is off.
    """

    name: str
    lora: Lora
    scale: float

    def __str__(self) -> str:
        return f"{self.name} at {self.scale:g}: {self.lora.report}"


@dataclasses.dataclass(frozen=True)
class Loras:
    """LoRAs, and the checkpoint that they are merged into.

    Nothing is ever subtracted from merged weights: another strength is a new merge into the
    checkpoint's own tensors, which are read again, so that strengths change without drift.

    Attributes:
        prepared: the checkpoint's models, by name.
        loaded: the LoRAs in the order in which they were given.
    """

    prepared: Mapping[str, PreparedComponent]
    loaded: tuple[LoadedLora, ...] = ()

    def change(self, component: str) -> Change | None:
        """What is to be done to the tensors of a component; None where nothing is."""
        if not any(each.scale and each.lora.names(component) for each in self.loaded):
            return None
        return lambda source: merged_source(source, component, self._scaled)

    def trained_otherwise(self, prediction_type: str) -> list[str]:
        """Sentences about LoRAs that were trained to predict something else than epsilon.

        Epsilon is what tools write where nobody chose, and such LoRAs are used with any model.

        Args:
            prediction_type: what the model is taken to predict.
        """
        return [
            f"{each.name} was trained on a model that predicts {each.lora.prediction_type}; this "
            f"one is sampled as {prediction_type}."
            for each in self.loaded
            if each.lora.prediction_type not in (None, "epsilon", prediction_type)
        ]

    def with_scale(self, name: str, scale: float) -> "Loras":
        """These LoRAs with another strength of one of them.

        Args:
            name: as it was loaded, or its file's name without the ending.
            scale: the new strength.

        Raises:
            UsageError: there is no such LoRA, more than one, or the strength is not finite.
        """
        if not math.isfinite(scale):
            raise UsageError(f"The scale of {name} is {scale}; expected a finite number.")
        exact = [each for each in self.loaded if each.name == name]
        found = exact or [each for each in self.loaded if PurePath(each.name).stem == name]
        if len(found) != 1:
            listed = ", ".join(each.name for each in self.loaded) or "none"
            problem = "is loaded more than once" if found else "is not among the LoRAs"
            raise UsageError(f"{name} {problem}; loaded are: {listed}.")
        return dataclasses.replace(
            self,
            loaded=tuple(
                dataclasses.replace(each, scale=float(scale)) if each is found[0] else each
                for each in self.loaded
            ),
        )

    def merged_again(
        self, models: Mapping[str, nnx.Module], before: "Loras"
    ) -> dict[str, nnx.Module]:
        """Models with the strengths of these LoRAs in place of earlier ones.

        Args:
            models: the models as they are, by component.
            before: the LoRAs as they were merged into them.

        Returns:
            New models for the components that differ; all other parameters are shared with the
            old ones. The old ones stay as they are.

        Raises:
            HotshotError: the checkpoint's files are gone or damaged.
        """
        changed = [
            now.lora
            for now, then in zip(self.loaded, before.loaded, strict=True)
            if now.scale != then.scale
        ]
        again: dict[str, nnx.Module] = {}
        for component, model in models.items():
            slots = torch_slots(model)
            paths = changed_paths(slots, component, [(lora, 1.0) for lora in changed])
            if not paths:
                continue
            parameters: dict[Any, Any] = dict(flat_parameters(model))
            parameters |= self.prepared[component].parameters(
                paths,
                shardings={path: parameters[path].sharding for path in paths},
                change=self.change(component) or (lambda source: source),
            )
            again[component] = with_parameters(model, parameters)
        return again

    @property
    def _scaled(self) -> list[tuple[Lora, float]]:
        return [(each.lora, each.scale) for each in self.loaded]


def open_loras(
    loras: Sequence[tuple[str, float]],
    prepared: Mapping[str, PreparedComponent],
    *,
    allow_partial: bool,
) -> Loras:
    """Opens LoRAs for a checkpoint.

    Args:
        loras: paths or Hub ids, and strengths.
        prepared: the checkpoint's models, by name.
        allow_partial: whether keys that fit nowhere are left out instead of refused.

    Raises:
        HotshotError: one is missing, damaged or of another model.
        UsageError: a strength is not finite.
    """
    if not loras:
        return Loras(prepared)
    for path, scale in loras:
        if not math.isfinite(scale):
            raise UsageError(f"The scale of {path} is {scale}; expected a finite number.")
    names = ModuleNames({name: prepared[name].shapes for name in COMPONENTS})
    return Loras(
        prepared,
        tuple(
            LoadedLora(
                path,
                open_lora(
                    resolve(path, select=select_lora_files), names, allow_partial=allow_partial
                ),
                scale,
            )
            for path, scale in loras
        ),
    )
