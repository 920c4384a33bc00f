"""Whole runs: a checkpoint folder, a prompt and a seed."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.models.formula_checkpoint import write_checkpoint
from benchmarks.parity_cases.case import EXACT, Case, Result, compare
from benchmarks.parity_cases.pipelines.pipeline import (
    MODEL_CLASSES,
    call_pipeline,
    check_made,
    is_from_text,
)
from benchmarks.parity_cases.pipelines.solver import check_schedule, read_solver
from hotshot_jax.conditioning.text.prompt import tokenize
from hotshot_jax.pipelines.hotshot_xl import HotshotXLPipeline
from hotshot_jax.sampling.torch_noise import TorchGenerator

_PRECISIONS = {"float32": "f32"}


def matches(case: Case) -> bool:
    """Whether the case starts at a prompt and a seed."""
    return case.call.startswith("HotshotXLPipeline.__call__(") and is_from_text(case)


def run(case: Case) -> Iterator[Result]:
    """Compares token ids, noise, the latents after each step, and the video.

    Raises:
        LookupError: the case is not in float32, for which there are no bounds.
    """
    dtype = case.arguments.get("dtype", "float32")
    if dtype not in _PRECISIONS:
        raise LookupError(f"dtype {dtype}: bounds are known for {', '.join(_PRECISIONS)} only")
    with tempfile.TemporaryDirectory() as folder:
        _write(case, Path(folder))
        pipeline = HotshotXLPipeline.from_pretrained(folder, precision=_PRECISIONS[dtype])
        yield from _check_token_ids(case, pipeline)
        yield from _check_noise(case)
        solver = read_solver(case)
        yield from check_schedule(case, solver)
        yield from check_made(case, solver, call_pipeline(case, pipeline, solver))


def _write(case: Case, folder: Path) -> None:
    references = {component: case.model(name) for component, name in MODEL_CLASSES.items()}
    entry = case.description["scheduler"]
    write_checkpoint(
        folder,
        {
            component: (reference.config_path, reference.shapes_path, reference.seed)
            for component, reference in references.items()
        },
        dict(
            zip(
                ("tokenizer", "tokenizer_2"),
                (case.folder / path for path in case.description["tokenizers"]),
                strict=True,
            )
        ),
        (entry["class"], entry["config"]),
    )


def _check_token_ids(case: Case, pipeline: HotshotXLPipeline) -> Iterator[Result]:
    components = pipeline.components
    for suffix, tokenizer in (("", components.tokenizer), ("_2", components.tokenizer_2)):
        for prefix in ("", "negative_"):
            name = f"{prefix}input_ids{suffix}"
            if name in case:
                prompt = case.arguments.get(f"{prefix}prompt")
                prompt = case.arguments.get(f"{prefix}prompt{suffix}", prompt)
                ids = tokenize(tokenizer, [prompt or ""])
                yield compare(name, ids, case[name], EXACT)


def _check_noise(case: Case) -> Iterator[Result]:
    """Compares the numbers that the seed stands for."""
    generator = TorchGenerator(case.arguments["seed"])
    expected = case["latents"]
    yield compare("latents", generator.randn(expected.shape, np.float32), expected, EXACT)
    if "step_noise" in case:
        drawn = [generator.randn(noise.shape, np.float32) for noise in case["step_noise"]]
        yield compare("step_noise", np.stack(drawn), case["step_noise"], EXACT)
