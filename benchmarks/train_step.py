"""How long a training step takes, and how much memory.

    python -m benchmarks.train_step                         # the built-in model, on this machine
    python -m benchmarks.train_step --train unet --batch_size 8 --json

Steps of the small model are run: random batches that lie in device memory, the step of `train.py`,
compiled before. Memory of it is what the compiler has planned. Operations are matrix products and
convolutions, counted in the program as it is traced.

Beside it, where torch and diffusers are installed, the step of the UNet without temporal layers on
single frames, here and in PyTorch, by turns: forward, backward, clipping and AdamW, in float32.

Memory of the full model is computed from shapes, and nothing of it is allocated or compiled:
parameters, moments and gradients exactly, and what the backward pass keeps as it is traced. The
compiler fuses some of that away, and needs buffers besides: those of the layer at work, of one that
is computed again above all. So the sum is an estimate from below; `benchmarks.compile_for` tells
what a TPU's compiler makes of it.
"""

import argparse
import functools
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.compile import steps as compiled_steps
from benchmarks.compile.abstract_arrays import Size, bytes_per_device
from benchmarks.models.loading import parameter_count
from hotshot_jax.builtin import builtin_checkpoint
from hotshot_jax.choices import REMATERIALISATIONS, SELECTIONS
from hotshot_jax.cli.hosts import use_device
from hotshot_jax.cli.run import Parser, run
from hotshot_jax.convert.prepare import open_checkpoint, prepare_component
from hotshot_jax.errors import UsageError
from hotshot_jax.schedulers import make_scheduler
from hotshot_jax.training.optimizer import learning_rate_schedule
from hotshot_jax.training.resources import host_memory, peak_flops, traced_flops
from hotshot_jax.training.running.step import StepConfig, Trainer, compile_step, trace_step
from hotshot_jax.training.trainees.trainee import Division

PROGRAM = "train_step"
GIB = 2**30
_LEAST_REPEATS = 5
_TOKENS = 77
# Of the full model: what trains, and what is computed again on the way back.
_FULL = (("temporal", "none"), ("temporal", "blocks"), ("unet", "blocks"))

Step = Callable[[], float]
"""Runs a step and gives its seconds."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit status: 0, 1 (run failed) or 2 (wrong usage)."""
    return run(PROGRAM, lambda: measure(arguments))


def measure(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints.

    Raises:
        UsageError: the arguments cannot be met.
        HotshotError: the checkpoint cannot be loaded.
    """
    given = _parser().parse_args(arguments)
    if given.repeats < _LEAST_REPEATS:
        raise UsageError(f"--repeats is {given.repeats}; expected at least {_LEAST_REPEATS}.")
    device = use_device(given.device)
    path = given.pretrained_path or builtin_checkpoint()
    component = open_checkpoint(Path(path)).unet
    report: dict[str, Any] = {"device": device}
    report["step"] = _tiny(given, component)
    _print_step(report["step"], device)
    if given.torch and _installed("torch", "diffusers"):
        report["spatial"] = _beside_torch(given, component)
        _print_beside_torch(report["spatial"])
    if given.full:
        report["full"] = []
        print(_FULL_HEADER)
        for selection, rematerialisation in _FULL:
            row = full_memory(Size("full", 512, 512, 8, 1, 1, selection, rematerialisation))
            report["full"].append(row)
            print(_full_line(row), flush=True)
    if given.json:
        print(json.dumps(report))


def _tiny(given: argparse.Namespace, component: Any) -> dict[str, Any]:
    frames = 1 if given.train == "spatial" else given.video_length
    step, found = _compiled(given, component, given.train, frames)
    seconds = [step() for _ in range(given.repeats)]
    return found | _times(seconds, given.batch_size, found["flops"])


def _compiled(
    given: argparse.Namespace, component: Any, selection: str, frames: int
) -> tuple[Step, dict[str, Any]]:
    """A step that has been compiled and run once, and what is known of it."""
    dtype = jnp.bfloat16 if given.mixed_precision == "bf16" else jnp.float32
    unet: Any = prepare_component(component, dtype=dtype).load()
    division = Division.of(unet, selection)
    trainer = Trainer(
        division,
        make_scheduler("DDPMScheduler", {}),
        StepConfig(rematerialisation=given.remat),
        learning_rate_schedule("constant", 1e-5, 0, 1),
    )
    trained, frozen = division.split(unet)
    state = trainer.init(trained, 0)
    side = unet.config.sample_size if given.size is None else given.size // 8
    batch = _batch(unet.config, given.batch_size, frames, side)
    begin = time.perf_counter()
    traced = trace_step(trainer, state, frozen, batch)
    program = compile_step(traced, jax.default_backend())
    compiling = time.perf_counter() - begin
    micro = jnp.int32(0)
    state, metrics = program(state, frozen, batch, micro)
    jax.block_until_ready((state, metrics))

    def step() -> float:
        nonlocal state
        start = time.perf_counter()
        state, metrics = program(state, frozen, batch, micro)
        jax.block_until_ready((state, metrics))
        return time.perf_counter() - start

    memory = program.memory_analysis()
    return step, {
        "trains": selection,
        "parameters": parameter_count(unet),
        "trained_parameters": sum(leaf.size for leaf in trained.values()),
        "batch": [given.batch_size, frames, 8 * side, 8 * side],
        "rematerialisation": given.remat,
        "dtype": np.dtype(dtype).name,
        "compile_seconds": round(compiling, 2),
        "flops": traced_flops(traced.jaxpr),
        "argument_bytes": memory.argument_size_in_bytes,
        "temp_bytes": memory.temp_size_in_bytes,
        "host_memory_bytes": host_memory(),
    }


def _batch(config: Any, samples: int, frames: int, side: int) -> dict[str, jax.Array]:
    generator = np.random.default_rng(0)
    latents = (samples, frames, side, side, config.in_channels)
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    shapes = {
        "mean": latents,
        "hidden": (samples, _TOKENS, config.cross_attention_dim),
        "pooled": (samples, pooled),
        "empty_hidden": (1, _TOKENS, config.cross_attention_dim),
        "empty_pooled": (1, pooled),
    }
    arrays = {k: jnp.asarray(generator.standard_normal(s, np.float32)) for k, s in shapes.items()}
    arrays["deviation"] = jnp.full(latents, 0.1)
    arrays["time_ids"] = jnp.full((samples, 6), 8.0 * side)
    return arrays


def _times(seconds: list[float], samples: int, flops: float) -> dict[str, Any]:
    median = statistics.median(seconds)
    found = {
        "repeats": len(seconds),
        "step_seconds": round(median, 5),
        "step_seconds_range": [round(min(seconds), 5), round(max(seconds), 5)],
        "samples_per_second": round(samples / median, 2),
        "flops_per_second": flops / median,
    }
    peak = peak_flops(jax.devices()[0])
    return found if peak is None else found | {"flop_utilisation": flops / median / peak}


def _installed(*names: str) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in names)


def _beside_torch(given: argparse.Namespace, component: Any) -> dict[str, Any]:
    here, found = _compiled(given, component, "spatial", 1)
    there = _torch_step(component.config, found["batch"])
    ours, theirs = [], []
    # By turns, so that whatever else the machine does disturbs both alike.
    for _ in range(given.repeats):
        ours.append(here())
        theirs.append(there())
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "batch": found["batch"],
        "here": _times(ours, given.batch_size, found["flops"]),
        "torch": _times(theirs, given.batch_size, found["flops"]),
        "here_over_torch": round(statistics.median(ratios), 3),
    }


def _torch_step(config: Any, shape: Sequence[int]) -> Step:
    """The same step of diffusers' UNet, which has no temporal layers, run once."""
    import torch
    from diffusers import UNet2DConditionModel

    values = {**config, "mid_block_type": "UNetMidBlock2DCrossAttn"}
    for name in ("down_block_types", "up_block_types"):
        values[name] = [each.replace("3D", "2D") for each in config[name]]
    unet: Any = UNet2DConditionModel.from_config(values)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-5)
    samples, _, height, _ = shape
    arrays = _batch(unet.config, samples, 1, height // 8)
    latents = torch.from_numpy(np.array(arrays["mean"][:, 0])).movedim(-1, 1)
    hidden, pooled, ids = (
        torch.from_numpy(np.array(arrays[name])) for name in ("hidden", "pooled", "time_ids")
    )

    def step() -> float:
        start = time.perf_counter()
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, 1000, (samples,))
        added = {"text_embeds": pooled, "time_ids": ids}
        found = unet(latents + noise, timesteps, hidden, added_cond_kwargs=added).sample
        loss = torch.nn.functional.mse_loss(found, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        return time.perf_counter() - start

    step()
    return step


def full_memory(size: Size) -> dict[str, Any]:
    """Bytes of a training step by what they are for, from shapes alone.

    Args:
        size: the model and what it trains on.
    """
    trainer = compiled_steps.trainer_of(size)
    state, frozen, batch, _ = compiled_steps.train(size, None).arguments
    parts = {
        "frozen": bytes_per_device(frozen),
        "trained": bytes_per_device(state.trained),
        "moments": bytes_per_device(state.optimizer),
        # As large as what they are the gradients of.
        "gradients": bytes_per_device(state.trained),
        "kept": kept_bytes(trainer.loss, state.trained, frozen, batch),
    }
    return {
        "trains": size.trained,
        "rematerialisation": size.rematerialisation,
        "batch": [size.videos, size.frames, size.height, size.width],
        **{f"{name}_bytes": count for name, count in parts.items()},
        "bytes": sum(parts.values()),
    }


def kept_bytes(loss: Callable[..., Any], trained: Any, frozen: Any, batch: Any) -> int:
    """Bytes that a loss keeps from its forward for its backward pass, parameters left out.

    Args:
        loss: as `Trainer.loss`.
        trained: parameters that are differentiated by; all arrays may be shapes.
        frozen: other parameters.
        batch: of the loss.
    """

    def forward(trained: Any, frozen: Any, batch: Any, key: jax.Array) -> Any:
        _, backward, _ = jax.vjp(
            functools.partial(loss, frozen=frozen, batch=batch, key=key), trained, has_aux=True
        )
        return jax.tree.leaves(backward)

    key = jax.eval_shape(lambda: jax.random.key(0))
    program = jax.make_jaxpr(forward)(trained, frozen, batch, key).jaxpr
    given = {id(variable) for variable in program.invars}
    kept = {id(v): v.aval for v in program.outvars if id(v) not in given}
    return sum(aval.size * aval.dtype.itemsize for aval in kept.values())


def _print_step(found: dict[str, Any], device: str) -> None:
    samples, frames, height, width = found["batch"]
    low, high = found["step_seconds_range"]
    rows = [
        ("model", f"{found['parameters']:,} parameters, {found['trained_parameters']:,} train"),
        ("batch", f"{samples} samples, {frames} frames of {width} x {height}, {found['dtype']}"),
        ("compiled in", f"{found['compile_seconds']:.1f} s"),
        ("step", f"{1e3 * found['step_seconds']:.1f} ms ({1e3 * low:.1f} to {1e3 * high:.1f})"),
        ("rate", f"{found['samples_per_second']:.2f} samples/s"),
        (
            "operations",
            f"{found['flops'] / 1e9:.2f} G a step, {found['flops_per_second'] / 1e9:.2f} GFLOP/s"
            + (
                f", {found['flop_utilisation']:.1%} of the peak"
                if "flop_utilisation" in found
                else ""
            ),
        ),
        (
            "memory (compiled)",
            f"{_mebibytes(found['argument_bytes'])} of state and batch, "
            f"{_mebibytes(found['temp_bytes'])} temporary",
        ),
        ("process", f"{_mebibytes(found['host_memory_bytes'])} at most"),
    ]
    print(f"training step ({found['trains']}) on {device}, median of {found['repeats']}")
    for name, text in rows:
        print(f"  {name:<20}{text}")


def _print_beside_torch(found: dict[str, Any]) -> None:
    samples, _, height, width = found["batch"]
    print(f"\nspatial layers, {samples} single frames of {width} x {height}, beside PyTorch")
    for name in ("here", "torch"):
        low, high = (1e3 * each for each in found[name]["step_seconds_range"])
        print(f"  {name:<20}{1e3 * found[name]['step_seconds']:.1f} ms ({low:.1f} to {high:.1f})")
    print(f"  {'here / torch':<20}{found['here_over_torch']:.2f}")


_FULL_HEADER = (
    "\nHotshot-XL, one sample of 8 frames of 512 x 512, in GiB, from shapes\n"
    f"  {'trains':<10}{'again':<8}{'frozen':>8}{'trained':>9}{'moments':>9}{'gradients':>11}"
    f"{'kept':>8}{'sum':>8}"
)


def _full_line(row: dict[str, Any]) -> str:
    frozen, trained, moments, gradients, kept, total = (
        f"{row[name] / GIB:.2f}"
        for name in (
            "frozen_bytes", "trained_bytes", "moments_bytes", "gradients_bytes", "kept_bytes",
            "bytes",
        )
    )  # fmt: skip
    return (
        f"  {row['trains']:<10}{row['rematerialisation']:<8}{frozen:>8}{trained:>9}{moments:>9}"
        f"{gradients:>11}{kept:>8}{total:>8}"
    )


def _mebibytes(count: float) -> str:
    return f"{count / 2**20:.1f} MiB"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.train_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    switch = argparse.BooleanOptionalAction
    add("--pretrained_path", metavar="DIR", help="a small checkpoint (default: the built-in one)")
    add("--train", choices=SELECTIONS, default="temporal", help="what trains")
    add("--batch_size", type=int, default=4, help="samples (default: 4)")
    add("--video_length", type=int, default=8, help="frames; 1 where spatial layers train")
    add("--size", type=int, help="side in pixels (default: the model's own)")
    add("--mixed_precision", choices=("no", "bf16"), default="no", help="numbers to compute in")
    add("--remat", choices=REMATERIALISATIONS, default="none", help="as in train.py")
    add("--repeats", type=int, default=10, help="steps that are timed (default: 10)")
    add("--torch", action=switch, default=True, help="also time PyTorch, if it is installed")
    add("--full", action=switch, default=True, help="also tell the memory of the full model")
    add("--device", default="auto", help="auto, cpu, gpu or tpu")
    add("--json", action="store_true", help="end standard output with one line of JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
