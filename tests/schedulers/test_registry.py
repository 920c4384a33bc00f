import pytest
from diffusers_oracle import SDXL

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.schedulers import (
    CLASSES,
    SHORT_NAMES,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    make_scheduler,
)


@pytest.mark.parametrize("name", CLASSES)
def test_class_names(name):
    assert type(make_scheduler(name, SDXL)) is CLASSES[name]
    assert type(make_scheduler(None, SDXL | {"_class_name": name})) is CLASSES[name]
    assert make_scheduler("default", SDXL | {"_class_name": name}) == make_scheduler(name, SDXL)


@pytest.mark.parametrize("name", SHORT_NAMES)
def test_short_names(name):
    cls, implied = SHORT_NAMES[name]
    # What the name implies wins over the configuration.
    config = SDXL | {"use_karras_sigmas": True, "_class_name": "PNDMScheduler"}
    scheduler = make_scheduler(name, config)
    assert type(scheduler) is cls
    for key, value in implied.items():
        assert getattr(scheduler, key) == value
    assert scheduler.beta_end == SDXL["beta_end"]


def test_the_project_default():
    assert type(make_scheduler("euler_ancestral", SDXL)) is EulerAncestralDiscreteScheduler


def test_dpm_names():
    kinds = {
        "dpmpp_2m": ("dpmsolver++", False),
        "dpmpp_2m_karras": ("dpmsolver++", True),
        "dpmpp_2m_sde": ("sde-dpmsolver++", False),
        "dpmpp_2m_sde_karras": ("sde-dpmsolver++", True),
    }
    for name, kind in kinds.items():
        scheduler = make_scheduler(name, SDXL | {"use_exponential_sigmas": True})
        assert isinstance(scheduler, DPMSolverMultistepScheduler)
        assert (scheduler.algorithm_type, scheduler.use_karras_sigmas) == kind
        assert not scheduler.use_exponential_sigmas


@pytest.mark.parametrize(
    "name, nearest",
    [
        ("eulr", "euler"),
        ("dpmpp_2m_karas", "dpmpp_2m_karras"),
        ("EulerDiscretScheduler", "EulerDiscreteScheduler"),
        ("unipcm", "unipc"),
        ("DDIM", "ddim"),
    ],
)
def test_unknown_names_list_the_nearest_first(name, nearest):
    with pytest.raises(UsageError) as error:
        make_scheduler(name, SDXL)
    message = str(error.value)
    assert repr(name) in message
    assert message.split("nearest first: ")[1].startswith(nearest)
    assert all(known in message for known in SHORT_NAMES)
    assert len(message.splitlines()) <= 2
    assert error.value.exit_status == 2


@pytest.mark.parametrize("own", ["EDMEulerScheduler", None, 7])
def test_a_configuration_of_another_class_needs_a_name(own):
    with pytest.raises(HotshotError, match=r"_class_name=.*\n.*`scheduler`.*euler"):
        make_scheduler(None, SDXL | {"_class_name": own})
    make_scheduler("euler", SDXL | {"_class_name": own})
