"""`--preset`: settings that go together, for any model and for models of few steps.

`balanced` and `fast` suit any model, by measurement (docs/fewer_passes.md): a solver of second
order in half the steps; and on 30 steps of which every fifth runs the whole UNet, for which plain
steps at the same cost are no match.

The others have the numbers of the models' own pages: LCM-LoRA (https://arxiv.org/abs/2311.05556)
takes 2 to 8 steps of its own sampler and next to no guidance; SDXL-Lightning
(https://arxiv.org/abs/2402.13929) and Hyper-SD (https://arxiv.org/abs/2404.13686) begin at the last
training timestep, so their spacing has to be "trailing", and are distilled for one number of steps
each, which their files' names say.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from hotshot_jax.builtin import NAME as BUILTIN_NAME, builtin_loras
from hotshot_jax.errors import UsageError

_MOST_STEPS = 16
_STEPS = re.compile(r"(\d+)[ _-]?steps?", re.IGNORECASE)
# Hyper-SD's files whose guidance is not distilled away.
_GUIDED = re.compile(r"hyper.*cfg", re.IGNORECASE)
_GUIDED_SCALE = 5.0


@dataclasses.dataclass(frozen=True)
class Preset:
    """Settings that go together.

    Attributes:
        scheduler: diffusers' class name, or a short one.
        timestep_spacing: replaces the checkpoint's; None leaves it.
        steps: where no file's name tells.
        guidance_scale: 1 is no guidance; None leaves what is set.
        cache_interval: every how many steps the whole UNet is run.
    """

    scheduler: str
    timestep_spacing: str | None
    steps: int
    guidance_scale: float | None = 1.0
    cache_interval: int = 1

    @property
    def few_steps(self) -> bool:
        """Whether it is for models that were distilled for so many steps."""
        return self.guidance_scale is not None


PRESETS: Mapping[str, Preset] = {
    "balanced": Preset("dpmpp_2m_karras", None, 15, None),
    "fast": Preset("dpmpp_2m_karras", None, 30, None, 5),
    "lcm": Preset("LCMScheduler", None, 4),
    "lightning": Preset("EulerDiscreteScheduler", "trailing", 4),
    "hyper": Preset("DDIMScheduler", "trailing", 8),
}
"""By name."""


def preset_values(name: str, files: Iterable[str]) -> dict[str, Any]:
    """What a preset sets, by the names of the settings.

    Args:
        name: a key of `PRESETS`.
        files: paths or Hub ids of the models and LoRAs of the run.

    Raises:
        UsageError: a file is made for a single step.
    """
    preset = PRESETS[name]
    values = dataclasses.asdict(preset)
    if not preset.few_steps:
        del values["guidance_scale"], values["timestep_spacing"]
    for file in files if preset.few_steps else ():
        last = PurePath(file).name
        found = _STEPS.search(last)
        # Names of fine-tuned models may count the steps of their training.
        if found and int(found[1]) <= _MOST_STEPS:
            values["steps"] = int(found[1])
            if values["steps"] == 1 and name != "lcm":
                raise UsageError(
                    f"--preset {name}: {last} is made for a single step, which needs a sampler of "
                    "its own; take the file for 2, 4 or 8 steps."
                )
        if name == "hyper" and _GUIDED.search(last):
            values["guidance_scale"] = _GUIDED_SCALE
    return values


def preset_loras(settings: Any) -> tuple[str, ...]:
    """LoRAs that a preset brings along: where no model and no LoRA is named, the built-in one's."""
    if settings.model_files:
        return ()
    own = builtin_loras().get(settings.preset)
    return () if own is None else (str(own),)


def describe_preset(name: str, settings: Any) -> str:
    """What is in effect of a preset, and what was given in its place."""
    values = preset_values(name, settings.model_files)
    told = []
    for key, value in values.items():
        actual = getattr(settings, key)
        if actual is not None and (key != "cache_interval" or {actual, value} != {1}):
            given = "" if actual == value else " (as given)"
            shown = f"{actual:g}" if isinstance(actual, float) else str(actual)
            if isinstance(actual, tuple):
                shown = ",".join(map(str, actual))
            told.append(f"{key} {shown}{given}")
    text = f"preset {name}: {', '.join(told)}"
    if preset_loras(settings):
        text += f", with the LoRA of {BUILTIN_NAME}"
    # Not at the top: this module is read for a command's help, without JAX.
    from hotshot_jax.conditioning.key_frames import extremes

    if extremes(settings.guidance_scale)[1] <= 1:
        text += "; without guidance, negative prompts have no effect"
    return text
