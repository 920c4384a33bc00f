"""How long a GIF takes from its prompt: here and in PyTorch.

    python -m benchmarks.pipeline --size tiny
    python -m benchmarks.pipeline --size full --precision bf16 --width 672 --height 384 --json

Everything is warm: models are loaded and programs compiled before. Encoding the prompt, all steps
with guidance, decoding and writing the GIF are counted.

Beside it, where torch and diffusers are installed, runs diffusers' SDXL pipeline with models of the
same shapes, making as many images as the video has frames, which are written by the same function.
It has no temporal layers; it decodes in the dtype of the run, and here always in float32; and it
computes the text's keys and values in every step.

Weights are random numbers: `full` has the shapes of Hotshot-XL, and needs no download.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks.compile.abstract_arrays import MODELS
from benchmarks.compile.steps import SCHEDULER
from benchmarks.models.sized_unet import UNetSize, random_arrays, torch_unet
from benchmarks.running.timing import add_timing_flags, circumstances, in_turns
from hotshot_jax.builtin import builtin_checkpoint
from hotshot_jax.cli.hosts import use_device
from hotshot_jax.convert.builders import KINDS, model_builder
from hotshot_jax.convert.load import abstract
from hotshot_jax.media.pixels import to_uint8
from hotshot_jax.media.write import write_video
from hotshot_jax.pipelines.components import Components
from hotshot_jax.pipelines.hotshot_xl import HotshotXLPipeline
from hotshot_jax.pipelines.loading import load_tokenizer
from hotshot_jax.runtime.precision import Precision, current_platform

PROMPT = "a bulldog in the captains chair of a spaceship, hd, high quality"
_FULL = {name: MODELS / f"sdxl_full.{name}.config.json" for name in KINDS if name != "unet"}
_FULL["unet"] = MODELS / "hotshot_xl_full.unet.config.json"
_DTYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}

Make = Callable[[], np.ndarray]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints a table, and returns the exit status."""
    options = _parser().parse_args(arguments)
    side = 64 if options.size == "tiny" else 512
    options.width, options.height = options.width or side, options.height or side
    report = {"device": use_device(options.device), **measure(options)}
    print_table(report)
    if options.json:
        print(json.dumps(report))
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Times of a GIF by each way."""
    builtin = builtin_checkpoint()
    files = _FULL
    if options.size == "tiny":
        files = {name: builtin / name / "config.json" for name in KINDS}
    configs = {name: json.loads(path.read_text()) for name, path in files.items()}
    ours = _ours(configs, builtin, options)
    makers: dict[str, Make] = {"hotshot-jax": ours}
    if options.torch and all(map(importlib.util.find_spec, ("torch", "diffusers"))):
        makers["PyTorch, spatial"] = _theirs(configs, builtin, options)

    with tempfile.TemporaryDirectory() as folder:

        def to_file(name: str, make: Make) -> Callable[[], None]:
            def run() -> None:
                path = Path(folder) / f"{abs(hash(name))}.gif"
                write_video(path, to_uint8(make()), 1000, {}, overwrite=True)

            return run

        timings = in_turns(
            {name: to_file(name, make) for name, make in makers.items()}, options.repeats
        )
    return {
        **{name: getattr(options, name) for name in ("size", "precision", "frames", "steps")},
        "width": options.width,
        "height": options.height,
        **circumstances("jax", "jaxlib", "flax", "torch", "diffusers", "transformers"),
        "gifs": {name: timing.report() for name, timing in timings.items()},
    }


def print_table(report: dict[str, Any]) -> None:
    """Prints the report for people."""
    print(
        f"{report['device']}, {report['size']} model in {report['precision']}, "
        f"{report['frames']} frames of {report['width']} x {report['height']}, "
        f"{report['steps']} steps with guidance; {report['cores']} cores, "
        f"load {report['load_average']:.1f}, {report['versions']}"
    )
    print("| from prompt to GIF | median | lowest to highest |\n|---|---|---|")
    for name, row in report["gifs"].items():
        print(
            f"| {name} | {row['median_seconds']:.2f} s | "
            f"{row['lowest_seconds']:.2f} to {row['highest_seconds']:.2f} |"
        )


def _ours(configs: dict[str, Any], builtin: Path, options: argparse.Namespace) -> Make:
    precision = Precision.named(options.precision, current_platform())
    models: dict[str, Any] = {}
    for name, config in configs.items():
        dtype = jnp.float32 if name == "vae" else precision.compute
        build = model_builder(name, config, where=name, dtype=dtype, param_dtype=dtype)
        models[name] = random_arrays(abstract(build))
    components = Components(
        **models,
        tokenizer=load_tokenizer(builtin / "tokenizer"),
        tokenizer_2=load_tokenizer(builtin / "tokenizer_2"),
        scheduler_config=SCHEDULER,
    )
    pipeline = HotshotXLPipeline(components, precision=precision)

    def make() -> np.ndarray:
        return np.asarray(
            pipeline(
                PROMPT,
                height=options.height,
                width=options.width,
                video_length=options.frames,
                num_inference_steps=options.steps,
                noise="jax",
            ).videos
        )[0]

    return make


def _theirs(configs: dict[str, Any], builtin: Path, options: argparse.Namespace) -> Make:
    import torch
    import transformers
    from diffusers import (
        AutoencoderKL,
        EulerAncestralDiscreteScheduler,
        StableDiffusionXLPipeline,
    )

    device = "cuda" if current_platform() == "gpu" else "cpu"
    dtype = _DTYPES[options.precision]
    if device == "cpu" and dtype == "float16":
        dtype = "float32"

    def placed(module: Any) -> Any:
        return module.to(device, getattr(torch, dtype)).eval().requires_grad_(False)

    def encoder(name: str, kind: str) -> Any:
        config = transformers.CLIPTextConfig.from_dict(configs[name])
        return placed(getattr(transformers, kind)(config))

    torch.manual_seed(0)
    unet = torch_unet(UNetSize(configs["unet"], options.frames, 0, 0), dtype, device)
    pipeline = StableDiffusionXLPipeline(
        vae=placed(AutoencoderKL.from_config({**configs["vae"], "force_upcast": False})),
        text_encoder=encoder("text_encoder", "CLIPTextModel"),
        text_encoder_2=encoder("text_encoder_2", "CLIPTextModelWithProjection"),
        tokenizer=load_tokenizer(builtin / "tokenizer"),
        tokenizer_2=load_tokenizer(builtin / "tokenizer_2"),
        unet=unet,
        scheduler=EulerAncestralDiscreteScheduler.from_config(SCHEDULER),
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    if options.torch_compile:
        pipeline.unet = torch.compile(unet)

    def make() -> np.ndarray:
        images = pipeline(
            PROMPT,
            height=options.height,
            width=options.width,
            num_inference_steps=options.steps,
            num_images_per_prompt=options.frames,
            output_type="np",
        ).images
        return np.nan_to_num(np.asarray(images, np.float32))

    return make


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pipeline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", choices=("tiny", "full"), default="tiny")
    parser.add_argument("--precision", choices=tuple(_DTYPES), default="f32")
    parser.add_argument("--width", type=int, help="default: 64 for tiny, 512 for full")
    parser.add_argument("--height", type=int, help="likewise")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--steps", type=int, default=30)
    add_timing_flags(parser, repeats=5)
    parser.add_argument(
        "--torch_compile", action="store_true", help="the UNet by PyTorch's compiler"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
