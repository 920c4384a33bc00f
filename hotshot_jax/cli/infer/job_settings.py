"""From the flags of `infer.py` to the three kinds of settings of a job."""

import dataclasses
from typing import Any

from hotshot_jax.cli.infer.control import ControlPlan
from hotshot_jax.cli.infer.presets import preset_loras
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.conditioning.text.textual_inversion import parse_embedding
from hotshot_jax.jobs.settings import ClipSettings, ModelSettings, RunSettings
from hotshot_jax.lora import parse_lora
from hotshot_jax.parallel.mesh import MeshConfig


def model_settings(settings: InferSettings, control: ControlPlan | None = None) -> ModelSettings:
    """Which model the flags ask for.

    Args:
        settings: the flags.
        control: the ControlNets that they come to.

    Raises:
        UsageError: a LoRA's or an embedding's argument has the wrong form.
    """
    control = control or ControlPlan()
    return ModelSettings(
        path=settings.pretrained_path,
        loras=tuple(map(parse_lora, settings.lora or preset_loras(settings))),
        embeddings=tuple(map(parse_embedding, settings.embedding)),
        controlnets=control.controlnets,
        control_types=control.control_types,
        **_of_the_same_name(ModelSettings, settings),
    )


def clip_settings(settings: InferSettings, prompt: str) -> ClipSettings:
    """What the flags ask for, of one prompt."""
    return ClipSettings(
        **_of_the_same_name(ClipSettings, settings)
        | {
            "prompt": prompt,
            "original_size": (settings.og_width, settings.og_height),
            "target_size": (settings.target_width, settings.target_height),
        }
    )


def run_settings(settings: InferSettings, mesh: MeshConfig) -> RunSettings:
    """How to run, on a mesh that `--mesh` comes to."""
    return RunSettings(**_of_the_same_name(RunSettings, settings) | {"mesh": mesh})


def _of_the_same_name(kind: Any, settings: InferSettings) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in vars(settings).items() if name in names}
