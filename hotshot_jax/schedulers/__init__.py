"""Samplers: immutable descriptions that make tables of numbers, and pure steps over them.

`make_scheduler` chooses by diffusers' class name or by a short name; `base` explains how a
scheduler is used. The noise is handed in by the caller, so any generator will do.
"""

import difflib
from collections.abc import Mapping
from typing import Any

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.schedulers.base import Schedule, Scheduler
from hotshot_jax.schedulers.ddim import DDIMScheduler
from hotshot_jax.schedulers.ddpm import DDPMScheduler
from hotshot_jax.schedulers.dpm_solver_multistep import DPMSolverMultistepScheduler
from hotshot_jax.schedulers.euler import EulerDiscreteScheduler
from hotshot_jax.schedulers.euler_ancestral import EulerAncestralDiscreteScheduler
from hotshot_jax.schedulers.heun import HeunDiscreteScheduler
from hotshot_jax.schedulers.lcm import LCMScheduler
from hotshot_jax.schedulers.noise_schedule import NoiseSchedule
from hotshot_jax.schedulers.pndm import PNDMScheduler
from hotshot_jax.schedulers.unipc_multistep import UniPCMultistepScheduler

__all__ = [
    "CLASSES",
    "SHORT_NAMES",
    "DDIMScheduler",
    "DDPMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LCMScheduler",
    "NoiseSchedule",
    "PNDMScheduler",
    "Schedule",
    "Scheduler",
    "UniPCMultistepScheduler",
    "make_scheduler",
]

CLASSES: Mapping[str, type[Scheduler]] = {
    cls.__name__: cls
    for cls in (
        EulerAncestralDiscreteScheduler,
        EulerDiscreteScheduler,
        DDIMScheduler,
        DDPMScheduler,
        DPMSolverMultistepScheduler,
        UniPCMultistepScheduler,
        PNDMScheduler,
        HeunDiscreteScheduler,
        LCMScheduler,
    )
}
"""diffusers' class names."""


def _second_order_dpm(algorithm_type: str, karras: bool) -> dict[str, Any]:
    return {
        "algorithm_type": algorithm_type,
        "solver_order": 2,
        "use_karras_sigmas": karras,
        "use_exponential_sigmas": False,
        "use_beta_sigmas": False,
        "use_lu_lambdas": False,
    }


SHORT_NAMES: Mapping[str, tuple[type[Scheduler], Mapping[str, Any]]] = {
    "euler_ancestral": (EulerAncestralDiscreteScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "ddim": (DDIMScheduler, {}),
    "ddpm": (DDPMScheduler, {}),
    "dpmpp_2m": (DPMSolverMultistepScheduler, _second_order_dpm("dpmsolver++", False)),
    "dpmpp_2m_karras": (DPMSolverMultistepScheduler, _second_order_dpm("dpmsolver++", True)),
    "dpmpp_2m_sde": (DPMSolverMultistepScheduler, _second_order_dpm("sde-dpmsolver++", False)),
    "dpmpp_2m_sde_karras": (
        DPMSolverMultistepScheduler,
        _second_order_dpm("sde-dpmsolver++", True),
    ),
    "unipc": (UniPCMultistepScheduler, {}),
    "pndm": (PNDMScheduler, {}),
    "heun": (HeunDiscreteScheduler, {}),
    "lcm": (LCMScheduler, {}),
}
"""Short names, with the class and the configuration values that the name implies."""


def make_scheduler(name: str | Scheduler | None, config: Mapping[str, Any]) -> Scheduler:
    """Build a scheduler from a checkpoint's `scheduler_config.json`.

    Args:
        name: a short name or a class name of diffusers; None or "default" for the configuration's
            own `_class_name`. A scheduler is taken as it is.
        config: the configuration, written by whichever scheduler class.

    Raises:
        UsageError: unknown name; the message lists the names, nearest first.
        HotshotError: the configuration's own class is not known, or one of its values is not
            supported.
    """
    if isinstance(name, Scheduler):
        return name
    if name is None or name == "default":
        own = str(config.get("_class_name"))
        if own not in CLASSES:
            raise HotshotError(
                f"scheduler_config.json has _class_name={own!r}, which is not supported.\n"
                f"Choose one with `scheduler`: {', '.join(SHORT_NAMES)}."
            )
        return CLASSES[own].from_config(config)
    if name in CLASSES:
        return CLASSES[name].from_config(config)
    if name in SHORT_NAMES:
        cls, implied = SHORT_NAMES[name]
        return cls.from_config({**config, **implied})
    raise UsageError(
        f"Unknown scheduler {name!r}. Known, nearest first: {', '.join(_nearest_first(name))}.\n"
        "The class names of diffusers are taken as well."
    )


def _nearest_first(name: str) -> list[str]:
    """Short names by likeness, preceded by class names that are nearly the one asked for."""

    def likeness(known: str) -> float:
        return difflib.SequenceMatcher(None, name.lower(), known.lower()).ratio()

    classes = [
        known
        for known in sorted(CLASSES, key=likeness, reverse=True)
        if difflib.get_close_matches(name.lower(), [known.lower()], 1, cutoff=0.75)
    ]
    return classes + sorted(SHORT_NAMES, key=likeness, reverse=True)
