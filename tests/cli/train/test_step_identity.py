"""What a stored training step is found by: every setting that might have a say in it."""

import dataclasses
from types import SimpleNamespace
from typing import Any

from hotshot_jax.cli.flags import flags_of
from hotshot_jax.cli.train.plan import step_identity
from hotshot_jax.cli.train.settings import TrainSettings

COMPONENTS = SimpleNamespace(structure="a UNet", scheduler_config={"beta_end": 0.01})


def identity(settings: TrainSettings, steps: int = 5, **changes: Any) -> str:
    models: Any = SimpleNamespace(components=SimpleNamespace(**{**vars(COMPONENTS), **changes}))
    trainer: Any = SimpleNamespace(config="a step")
    return step_identity(settings, steps, models, trainer)


def test_what_may_change_a_step_changes_what_it_is_found_by() -> None:
    plain = TrainSettings()
    usual = identity(plain)
    idle = {"output", "validation", "machine"}
    for name, flag in flags_of(TrainSettings).items():
        other = identity(dataclasses.replace(plain, **{name: "another"}))
        assert (other == usual) == (flag.group in idle), name
    assert identity(plain, 6) != usual
    assert identity(plain, structure="another UNet") != usual
    assert identity(plain, scheduler_config={"beta_end": 0.02}) != usual
