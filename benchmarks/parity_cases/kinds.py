"""All kinds of cases, and the choice among them.

A new kind is a module with `matches` and `run`, listed here. One that runs the pipeline is made of
the parts of `pipeline` and `solver`: `check_embeddings`, `check_schedule`, `call_pipeline`,
`check_unet_calls`, `check_made`.
"""

from collections.abc import Iterator
from typing import Protocol

from benchmarks.parity_cases import (
    aspect_fill,
    clip_tables,
    controlnet,
    lora,
    noise,
    noise_schedule,
    schedulers,
    tables,
    temporal,
    text_encoder,
    train_step,
    unet,
    vae,
)
from benchmarks.parity_cases.case import Case, Result, Verdict
from benchmarks.parity_cases.pipelines import (
    clips,
    controlnet_pipeline,
    end_to_end,
    pipeline,
    started_clips,
)


class Kind(Protocol):
    """A module that checks one kind of case."""

    def matches(self, case: Case) -> bool:
        """Whether (a part of) the case is of this kind."""

    def run(self, case: Case) -> Iterator[Result]:
        """Checks that part."""


_PIPELINES: tuple[Kind, ...] = (clips, controlnet_pipeline, end_to_end, pipeline, started_clips)
_KINDS: tuple[Kind, ...] = (
    *_PIPELINES,
    aspect_fill,
    clip_tables,
    controlnet,
    lora,
    noise,
    noise_schedule,
    schedulers,
    tables,
    temporal,
    text_encoder,
    train_step,
    unet,
    vae,
)


def runs_pipeline(case: Case) -> bool:
    """Whether the case goes through a pipeline."""
    return any(kind.matches(case) for kind in _PIPELINES)


def run_case(case: Case) -> Iterator[Result]:
    """Checks all of a case: what nothing here understands is a failure, never skipped."""
    kinds = [kind for kind in _KINDS if kind.matches(case)]
    if not kinds:
        yield Result("(whole case)", Verdict.UNKNOWN, note="a kind of case that is not known here")
        return
    for kind in kinds:
        yield from kind.run(case)
    for name in case.unread:
        yield Result(name, Verdict.UNKNOWN, note="a tensor that nothing here looks at")
