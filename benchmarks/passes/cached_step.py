"""What kept features save: operations of a clip at full size, and its time here at another.

    python -m benchmarks.passes.cached_step        # full size counted, mid size timed
    python -m benchmarks.passes.cached_step --size tiny --interval 2 --steps 4

A step is a pass of the UNet with guidance, a batch of two (`benchmarks.denoise`): the whole of it,
or its last layer alone on the features of an earlier one. Operations are products and convolutions
of the program as it is traced, from shapes alone, at 8 frames of 512 x 512 and 30 steps; v5e-1's
compiler counts the same to within 0.3 % (`docs/performance.md`). Times are those of whole clips, by
turns, compiled before.
"""

import argparse
import functools
import json
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.compile.hlo_costs import program_costs
from benchmarks.models.sized_unet import UNetSize, random_unet, unet_inputs, unet_size
from benchmarks.running.timing import Timing, circumstances, in_turns, repeats_of
from hotshot_jax.cli.hosts import use_device
from hotshot_jax.models import UNet3DConditionModel
from hotshot_jax.runtime.programs import flattened
from hotshot_jax.sampling.step_plan import StepPlan

_STEPS_OF_A_CLIP = 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Counts, measures, prints, and returns the exit status."""
    options = _parser().parse_args(arguments)
    device = use_device(options.device)
    size = unet_size(options.counted)
    full, kept = (_flops(size, reuse=reuse) for reuse in (False, True))
    clips = {
        interval: _operations(full, kept, interval, _STEPS_OF_A_CLIP)
        for interval in (1, *options.interval)
    }
    print(f"| {options.counted} UNet | operations of {_STEPS_OF_A_CLIP} steps | fewer |")
    print("|---|---|---|")
    for interval, operations in clips.items():
        print(
            f"| --cache_interval {interval} | {operations / 1e12:.4g} T | "
            f"{clips[1] / operations:.2f} x |"
        )
    print(f"\nA whole step {full / 1e12:.4g} T, one on kept features {kept / 1e12:.4g} T.\n")
    timings = _times(options)
    print(f"| {options.size} UNet, {options.steps} steps, {device} | median | lowest | less |")
    print("|---|---|---|---|")
    for interval, timing in timings.items():
        print(
            f"| --cache_interval {interval} | {timing.median:.3f} s | "
            f"{min(timing.seconds):.3f} s | {timings[1].median / timing.median:.2f} x |"
        )
    if options.json:
        report = {
            **circumstances("jax", "jaxlib", "flax"),
            "device": device,
            "operations": clips,
            "seconds": {interval: timing.report() for interval, timing in timings.items()},
        }
        print(json.dumps(report))
    return 0


def _operations(full: float, kept: float, interval: int, steps: int) -> float:
    plan = StepPlan.of(interval, range(steps), [None] * steps)
    return sum(full if each else kept for each in plan.full)


def _pass(arrays: Any, build: Any, text: Any, inputs: dict[str, jax.Array], features: Any) -> Any:
    unet: UNet3DConditionModel = build(arrays)
    return unet.with_features(
        inputs["sample"],
        jnp.float32(500),
        text,
        inputs["pooled"],
        inputs["time_ids"],
        features=features,
    )


def _flops(size: UNetSize, *, reuse: bool) -> float:
    """Operations of a step of this size, from its shapes."""
    dtype = jnp.bfloat16
    unet = nnx.eval_shape(
        lambda: UNet3DConditionModel(size.config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=dtype)
    )
    arrays, build = flattened(unet)
    inputs = jax.eval_shape(lambda: unet_inputs(size, dtype))
    text = jax.eval_shape(lambda unet, text: unet.project_text(text), unet, inputs.pop("text"))
    width = size.config.block_out_channels[0]
    shape = (2, size.frames, size.height, size.width, width)
    features = jax.ShapeDtypeStruct(shape, dtype) if reuse else None
    traced = jax.jit(
        lambda arrays, text, inputs, features: _pass(arrays, build, text, inputs, features)
    ).lower(arrays, text, inputs, features)
    return program_costs(traced.as_text("hlo")).flops


def _times(options: argparse.Namespace) -> dict[int, Timing]:
    """Times of clips by interval; 1 is without kept features."""
    size, dtype = unet_size(options.size), jnp.float32
    inputs = unet_inputs(size, dtype)
    unet = random_unet(size, dtype)
    text = jax.jit(lambda unet, text: unet.project_text(text))(unet, inputs.pop("text"))
    arrays, build = flattened(unet)
    call = jax.jit(
        lambda arrays, text, inputs, features: _pass(arrays, build, text, inputs, features)
    )
    alone = jax.jit(lambda arrays, text, inputs: _pass(arrays, build, text, inputs, None)[0])

    def clip(interval: int) -> None:
        features = None
        for full in StepPlan.of(interval, range(options.steps), [None] * options.steps).full:
            if interval == 1:
                made = alone(arrays, text, inputs)
            else:
                made, features = call(arrays, text, inputs, None if full else features)
            jax.block_until_ready(made)

    ways = {str(interval): functools.partial(clip, interval) for interval in (1, *options.interval)}
    return {int(name): timing for name, timing in in_turns(ways, options.repeats).items()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.passes.cached_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--device", choices=("auto", "cpu", "gpu", "tpu"), default="auto")
    add("--size", choices=("tiny", "mid", "full"), default="mid", help="timed (default: mid)")
    add("--counted", choices=("tiny", "mid", "full"), default="full", help="(default: full)")
    add("--interval", type=int, nargs="+", default=[2, 3, 5], help="default: 2 3 5")
    add("--steps", type=int, default=_STEPS_OF_A_CLIP, help="of a timed clip (default: 30)")
    add("--repeats", type=repeats_of, default=5, help="timed clips of each (default: 5)")
    add("--json", action="store_true", help="end with one line of JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
