"""Reading `scheduler_config.json`: which keys a scheduler takes, and what their values may be.

The files in circulation were written by one scheduler class and are read by another: a pipeline
swaps its scheduler by handing the old one's configuration to the new class. So a key that belongs
to another scheduler is accepted. A key that nobody knows, a value that is out of range, and a
feature that is switched on but does not exist here are errors that name the key.
"""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any

from hotshot_jax.errors import HotshotError

# Every constructor argument of diffusers' schedulers that exchange configurations with the ones
# here. A test compares this with the installed diffusers.
KNOWN_KEYS = frozenset(
    """
    algorithm_type base_image_seq_len base_shift beta_end beta_schedule beta_start clip_sample
    clip_sample_range correct_steps corrector_order disable_corrector dynamic_thresholding_ratio
    euler_at_final final_sigmas_type flow_shift interpolation_type invert_sigmas lambda_min_clipped
    lower_order_final max_image_seq_len max_shift num_train_timesteps original_inference_steps
    predict_x0 prediction_type predictor_order rescale_betas_zero_snr rho sample_max_value
    sampling_eps set_alpha_to_one shift shift_terminal sigma_data sigma_max sigma_min
    sigma_schedule skip_prk_steps snr solver_order solver_p solver_type steps_offset
    stochastic_sampling tau_func thresholding time_shift_type timestep_scaling timestep_spacing
    timestep_type trained_betas use_beta_sigmas use_dynamic_shifting use_exponential_sigmas
    use_flow_sigmas use_karras_sigmas use_lu_lambdas variance_type
    """.split()
)


def option(
    default: Any,
    *,
    choices: tuple[Any, ...] | None = None,
    low: float | None = None,
    high: float | None = None,
    aliases: Mapping[Any, Any] | None = None,
    in_config: bool = True,
) -> Any:
    """Declare a dataclass field that `check_options` and `read_options` understand.

    Args:
        default: value when the configuration has none, as in diffusers.
        choices: the values that are supported.
        low: smallest number allowed.
        high: largest number allowed.
        aliases: spellings of other scheduler classes and what they mean here.
        in_config: False for a setting that is not part of `scheduler_config.json`.
    """
    metadata = {
        "choices": choices,
        "low": low,
        "high": high,
        "aliases": aliases or {},
        "in_config": in_config,
    }
    return dataclasses.field(default=default, metadata=metadata)


def unsupported(owner: str, key: str, value: Any, expected: str) -> HotshotError:
    """The error for a configuration value that a scheduler cannot honour."""
    return HotshotError(
        f"{owner} does not support {key}={value!r}; expected {expected}.\n"
        "Change the value in scheduler_config.json, or choose another scheduler."
    )


def read_options(
    scheduler: type, config: Mapping[str, Any], refused: Mapping[str, str]
) -> dict[str, Any]:
    """Pick a scheduler's own options out of a configuration.

    Args:
        scheduler: the dataclass whose fields are the options.
        config: contents of `scheduler_config.json`.
        refused: keys that must be off (absent, null or false), with the reason.

    Returns:
        Keyword arguments for the dataclass. A null means the default.

    Raises:
        HotshotError: an unknown key that is switched on, or a refused feature.
    """
    fields = {f.name: f for f in dataclasses.fields(scheduler) if f.metadata["in_config"]}
    options: dict[str, Any] = {}
    for key, value in config.items():
        if key.startswith("_") or value is None:
            continue
        if key in refused:
            if value is not False:
                raise unsupported(scheduler.__name__, key, value, f"null or false ({refused[key]})")
        elif key in fields:
            aliases = fields[key].metadata["aliases"]
            hashable = tuple(value) if isinstance(value, list) else value
            options[key] = aliases.get(hashable, hashable) if aliases else hashable
        elif key not in KNOWN_KEYS and value is not False:
            nearest = difflib.get_close_matches(key, KNOWN_KEYS, 1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise HotshotError(
                f"{scheduler.__name__}: scheduler_config.json has the unknown key "
                f"{key}={value!r}{hint}\nCorrect or remove it."
            )
    return options


def check_options(scheduler: Any) -> None:
    """Check every option of a scheduler against its declaration.

    Raises:
        HotshotError: wrong type, not among the choices, or out of range.
    """
    owner = type(scheduler).__name__
    for field in dataclasses.fields(scheduler):
        value, rules = getattr(scheduler, field.name), field.metadata
        if value is None and field.default is None:
            continue
        choices = rules["choices"]
        if choices is not None:
            if value not in choices:
                expected = "one of " + ", ".join(map(str, choices))
                raise unsupported(owner, field.name, value, expected)
        elif isinstance(field.default, bool):
            if not isinstance(value, bool):
                raise unsupported(owner, field.name, value, "true or false")
        elif isinstance(field.default, int | float) or rules["low"] is not None:
            _check_number(owner, field, value)


def _check_number(owner: str, field: "dataclasses.Field[Any]", value: Any) -> None:
    low, high = field.metadata["low"], field.metadata["high"]
    whole = isinstance(field.default, int)
    expected = "a whole number" if whole else "a number"
    if low is not None:
        expected += f" of at least {low}"
    if high is not None:
        expected += f" {'and' if low is not None else 'of'} at most {high}"
    wrong = (
        isinstance(value, bool)
        or not isinstance(value, int if whole else int | float)
        or math.isnan(value)
        or (low is not None and value < low)
        or (high is not None and value > high)
    )
    if wrong:
        raise unsupported(owner, field.name, value, expected)
