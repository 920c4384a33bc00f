import dataclasses
import inspect
import json
import math

import diffusers
import pytest
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from diffusers_oracle import SDXL, make_theirs

from hotshot_jax.errors import HotshotError
from hotshot_jax.schedulers import CLASSES, EulerDiscreteScheduler
from hotshot_jax.schedulers.configuration import KNOWN_KEYS

# Those that exchange configurations, and what else occurs beside SDXL checkpoints.
EXCHANGING = [entry.name for entry in KarrasDiffusionSchedulers] + [
    "LCMScheduler",
    "TCDScheduler",
    "SASolverScheduler",
    "FlowMatchEulerDiscreteScheduler",
]


def their_defaults(name):
    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters.values()
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {p.name: p.default for p in parameters if p.name != "self" and p.kind not in kinds}


@pytest.mark.parametrize("name", CLASSES)
def test_defaults_are_those_of_diffusers(name):
    theirs = their_defaults(name)
    for field in dataclasses.fields(CLASSES[name]):
        if field.name in theirs:
            default = theirs[field.name]
            assert field.default == (tuple(default) if isinstance(default, list) else default)


def test_every_key_of_diffusers_is_known():
    keys = {key for name in EXCHANGING for key in their_defaults(name)}
    # Arguments that only its docstring's type makes one: a generic *args, **kwargs class.
    assert keys - {"args", "kwargs"} <= KNOWN_KEYS


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("writer", CLASSES)
def test_configs_of_other_classes_are_taken(name, writer):
    # As saved by diffusers: with its private keys, through JSON.
    saved = dict(make_theirs(writer, SDXL).config)
    config = json.loads(json.dumps(saved))
    scheduler = CLASSES[name].from_config(config)
    assert scheduler.beta_end == 0.012


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"beta_schedule": "quadratic"}, "beta_schedule='quadratic'.*scaled_linear"),
        ({"prediction_type": "flow"}, "prediction_type='flow'.*v_prediction"),
        ({"timestep_spacing": "even"}, "timestep_spacing='even'.*trailing"),
        ({"steps_offset": -1}, "steps_offset=-1.*at least 0"),
        ({"steps_offset": 1.5}, "steps_offset=1.5.*whole number"),
        ({"num_train_timesteps": 0}, "num_train_timesteps=0.*at least 1"),
        ({"num_train_timesteps": True}, "num_train_timesteps=True"),
        ({"beta_start": "0.1"}, "beta_start='0.1'.*a number"),
        ({"beta_end": math.nan}, "beta_end=nan"),
        ({"beta_start": 0.0}, "beta_start=0.0.*between 0 and 1"),
        ({"rescale_betas_zero_snr": "yes"}, "rescale_betas_zero_snr='yes'.*true or false"),
        ({"use_flow_sigmas": True}, "use_flow_sigmas=True"),
        ({"variance_type": "learned_range"}, "variance_type='learned_range'"),
    ],
)
@pytest.mark.parametrize("name", CLASSES)
def test_unsupported_values_name_the_key(name, change, expected):
    with pytest.raises(HotshotError, match=expected) as error:
        CLASSES[name].from_config(SDXL | change)
    assert error.value.exit_status == 1
    assert len(str(error.value).splitlines()) <= 2
    assert name in str(error.value)


@pytest.mark.parametrize(
    "name", [name for name, cls in CLASSES.items() if "thresholding" in cls.refused]
)
def test_dynamic_thresholding_is_refused(name):
    with pytest.raises(HotshotError, match="thresholding=True"):
        CLASSES[name].from_config(SDXL | {"thresholding": True})
    CLASSES[name].from_config(SDXL | {"thresholding": False})


def test_one_designed_sequence_at_a_time():
    config = SDXL | {"use_karras_sigmas": True, "use_beta_sigmas": True}
    with pytest.raises(HotshotError, match="use_karras_sigmas=True and use_beta_sigmas=True"):
        EulerDiscreteScheduler.from_config(config)


def test_levels_must_fall():
    with pytest.raises(HotshotError, match=r"sigma_min=3.0.*sigma_max=2.0"):
        EulerDiscreteScheduler.from_config(SDXL | {"sigma_min": 3.0, "sigma_max": 2.0})


def test_unknown_keys_are_named_with_the_nearest():
    with pytest.raises(HotshotError, match="use_karas_sigmas=True; did you mean use_karras"):
        EulerDiscreteScheduler.from_config(SDXL | {"use_karas_sigmas": True})


@pytest.mark.parametrize("value", [None, False])
def test_unknown_keys_that_are_off_are_taken(value):
    assert EulerDiscreteScheduler.from_config(
        SDXL | {"use_new_sigmas": value}
    ) == EulerDiscreteScheduler.from_config(SDXL)


def test_null_is_the_default():
    config = SDXL | {"use_karras_sigmas": None, "sigma_min": None, "steps_offset": None}
    scheduler = EulerDiscreteScheduler.from_config(config)
    assert scheduler.use_karras_sigmas is False
    assert scheduler.steps_offset == 0


def test_options_that_are_no_configuration_are_not_read():
    with pytest.raises(HotshotError, match="eta"):
        CLASSES["DDIMScheduler"].from_config(SDXL | {"eta": 0.5})
