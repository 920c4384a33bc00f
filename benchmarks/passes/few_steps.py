"""What few steps without guidance save: a clip's denoising, beside that of many steps with it.

    python -m benchmarks.passes.few_steps              # the built-in model, 4 steps against 30
    python -m benchmarks.passes.few_steps --few 2 --json

Both are whole denoising runs in one process, compiled before, by turns; latents are not decoded. A
LoRA changes weights and no time; the one of `--preset lcm` is merged where there is one. How good
the clips are is told by `python -m benchmarks.tiny_eval --lora ... --scheduler lcm`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.running.timing import circumstances, in_turns, repeats_of
from benchmarks.toy.shape_clips import DEFAULTS, add_model_flags, call_arguments, load_pipeline
from hotshot_jax.builtin import builtin_loras
from hotshot_jax.cli.compilation_cache import chosen_folder, compilation_cache
from hotshot_jax.cli.hosts import use_device
from hotshot_jax.cli.infer.presets import PRESETS
from hotshot_jax.cli.run import Parser, run
from hotshot_jax.data.shapes import split_prompts
from hotshot_jax.pipelines.hotshot_xl import HotshotXLPipeline

PROGRAM = "few_steps"
_PRESET = "lcm"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit status: 0, 1 (run failed) or 2 (wrong usage)."""
    return run(PROGRAM, lambda: measure(arguments))


def measure(arguments: Sequence[str] | None = None) -> None:
    """Times both and prints the table.

    Raises:
        HotshotError: the model cannot be loaded or run.
    """
    given = _parser().parse_args(arguments)
    device = use_device(given.device)
    preset = PRESETS[_PRESET]
    own = builtin_loras().get(_PRESET) if given.pretrained_path is None else None
    with compilation_cache(chosen_folder(given.compilation_cache)):
        many = load_pipeline(given, given.pretrained_path)
        loras = [] if own is None else [str(own)]
        few = HotshotXLPipeline(
            load_pipeline(given, given.pretrained_path, loras=loras).components,
            precision=many.precision,
            scheduler=preset.scheduler,
        )
        call = {**call_arguments(given, many), "output_type": "latent", "seed": given.seed}
        prompt = split_prompts("held_out")[0]
        short = {"num_inference_steps": given.few, "guidance_scale": preset.guidance_scale}
        timings = in_turns(
            {
                "many": lambda: many(prompt, **call).videos,
                "few": lambda: few(prompt, **(call | short)).videos,
            },
            given.repeats,
        )
    share = timings["few"].median / timings["many"].median
    print(f"| a clip's denoising, {device} | median | lowest |\n|---|---|---|")
    for name, steps in (("many", given.steps), ("few", given.few)):
        guided = f", guidance {given.guidance_scale:g}" if name == "many" else ", no guidance"
        timing = timings[name]
        print(f"| {steps} steps{guided} | {timing.median:.3f} s | {min(timing.seconds):.3f} s |")
    print(f"\n{share:.3f} of the time, {1 / share:.1f} times as fast")
    if given.json:
        report: dict[str, Any] = {
            **circumstances("jax", "jaxlib", "flax"),
            "device": device,
            "share": share,
            "seconds": {name: timing.report() for name, timing in timings.items()},
        }
        print(json.dumps(report))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"python -m benchmarks.passes.{PROGRAM}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--few", type=int, default=PRESETS[_PRESET].steps, help="steps of the short run")
    add("--repeats", type=repeats_of, default=5, help="timed runs of each (default: 5)")
    add_model_flags(parser)
    parser.set_defaults(video_length=DEFAULTS.video_length)
    return parser


if __name__ == "__main__":
    sys.exit(main())
