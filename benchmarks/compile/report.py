"""Compiling for a topology, and what is said about the result."""

import dataclasses
import json
import math
import re
import time
from typing import Any

import jax
import numpy as np

from benchmarks.compile import steps as compiled_steps
from benchmarks.compile.abstract_arrays import Program, Size, bytes_per_device
from benchmarks.compile.hlo_costs import Collective, Costs, program_costs
from benchmarks.compile.systems import System
from benchmarks.compile.topologies import GIB, Chip
from hotshot_jax.compile_effort import DEFAULT_EFFORT, effort_options
from hotshot_jax.errors import HotshotError
from hotshot_jax.parallel.mesh import create_mesh, mesh_config, slice_count
from hotshot_jax.runtime.programs import default_effort
from hotshot_jax.training.running.step import compiler_options

_STEPS = {
    "infer": compiled_steps.infer,
    "decode": compiled_steps.decode,
    "train": compiled_steps.train,
}
# Two ways in which the compiler says how much it would need.
_OUT_OF_MEMORY = (
    re.compile(r"Used ([\d.]+)([KMG]) of [\d.]+[KMG] hbm"),
    re.compile(r"HLO temporaries \(([\d.]+)([KMG])\) exceeds available HBM"),
)
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
_MODELLED = (
    "compute_seconds",
    "memory_seconds",
    "communication_seconds",
    "instruction_seconds",
    "background_seconds",
)
_DEAREST = 10


@dataclasses.dataclass(frozen=True)
class Dear:
    """An instruction that takes long by the model.

    Attributes:
        instruction: its name in the program.
        layer: what it was made of.
        times: how often it runs.
        seconds: all its turns together.
        compute_seconds: its operations at the chip's peak.
        memory_seconds: its traffic at the chip's peak.
    """

    instruction: str
    layer: str
    times: int
    seconds: float
    compute_seconds: float
    memory_seconds: float


@dataclasses.dataclass(frozen=True)
class Kernel:
    """What a library or a kernel compiler took of a program.

    Attributes:
        count: how often it runs.
        flops: of matrix products and convolutions.
        layers: what the instructions were made of.
    """

    count: int
    flops: float
    layers: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Report:
    """What was compiled and what came of it; sizes and operations are those of one device.

    Attributes:
        topology: name and shape.
        chips: how many devices.
        task: what was compiled.
        mesh: how the devices are arranged.
        effort: of the compiler, see `compile_program`.
        size: what the program works on.
        compile_seconds: from Python to the program, on this machine.
        cpu_seconds: the same in processor time.
        parameter_bytes: weights.
        argument_bytes: weights and all other inputs.
        temp_bytes: what the program needs besides, at its worst moment.
        peak_bytes: all of it, inputs that are reused for results counted once.
        hbm_bytes: memory of a chip.
        fits: whether the compiler found room.
        flops_per_device: matrix products and convolutions.
        ideal_flops_per_device: the same program before compiling, without a mesh, over the devices.
        compute_seconds: operations at the chip's peak.
        memory_seconds: the memory traffic of the instructions at the chip's peak.
        communication_seconds: what a device sends, at the peak of all its links.
        instruction_seconds: of each instruction the longer of its computing and its memory, summed.
        background_seconds: of these, copies during which others may run.
        dearest: the instructions that take longest.
        kernels: what libraries and kernel compilers took, by their names.
        collectives: communication by kind.
    """

    topology: str
    chips: int
    task: str
    mesh: str
    effort: str
    size: Size
    compile_seconds: float
    cpu_seconds: float
    parameter_bytes: int
    argument_bytes: int
    temp_bytes: int
    peak_bytes: int
    hbm_bytes: int
    fits: bool
    flops_per_device: float
    ideal_flops_per_device: float
    plain_flops_per_device: float | None
    compute_seconds: float
    memory_seconds: float
    communication_seconds: float
    instruction_seconds: float
    background_seconds: float
    dearest: tuple[Dear, ...]
    kernels: dict[str, Kernel]
    collectives: dict[str, Collective]

    @property
    def roofline_seconds(self) -> float:
        """The slower of computing and memory, and communication that hides behind neither."""
        return max(self.compute_seconds, self.memory_seconds) + self.communication_seconds

    @property
    def summed_seconds(self) -> float:
        """The instructions one after the other, and communication that hides behind none."""
        return self.instruction_seconds + self.communication_seconds


def compile_program(
    topology: System, task: str, mesh: str, size: Size, *, effort: str | None = None
) -> Report:
    """Compiles the program of a task.

    Args:
        topology: what to compile for.
        task: "infer", "decode" or "train".
        mesh: as after `--mesh`.
        size: what the program works on; no `videos` means as many as suit the task.
        effort: of the compiler for a fast program, one of `EFFORTS`; None is what the project's
            commands compile this task with.

    Raises:
        UsageError: the mesh fits neither the topology nor the frames.
        HotshotError: the compiler is missing or refuses the program for another reason than memory.
    """
    devices = topology.devices()
    config = mesh_config(
        mesh,
        task,
        len(devices),
        frames=size.window.frames,
        videos=size.videos or 1,
        slices=slice_count(devices),
    )
    size = dataclasses.replace(
        size,
        videos=size.videos or (config.data * config.fsdp if task == "train" else 1),
        decoded_at_once=config.frames,
    )
    device_mesh = create_mesh(config, devices)
    if effort is None:
        effort = DEFAULT_EFFORT if task == "train" else default_effort(topology.platform)
    build = _STEPS[task]

    start, start_cpu = time.perf_counter(), time.process_time()
    program = build(size, device_mesh)
    with jax.set_mesh(device_mesh):
        options = compiler_options if task == "train" else effort_options
        compiled = _compile(program, topology, options(topology.platform, effort))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu

    alone = program_costs(build(size, None).lower().as_text("hlo"))
    plain = None
    if size.context_length is not None:
        divided = compiled_steps.windows(dataclasses.replace(size, context_batch=1), None)
        count = sum(math.prod(np.shape(each.indices)[:2]) for each in divided)
        one = program_costs(build(size.window, None).lower().as_text("hlo"))
        plain = count * one.flops / len(devices)
    chip = topology.chip
    costs = Costs()
    if compiled.text is not None:
        costs = program_costs(compiled.text, len(devices), chip.float32_passes)
    return Report(
        topology=str(topology),
        chips=len(devices),
        task=task,
        mesh=str(config),
        effort=effort,
        size=size,
        compile_seconds=seconds,
        cpu_seconds=cpu_seconds,
        parameter_bytes=program.parameter_bytes,
        argument_bytes=compiled.argument_bytes,
        temp_bytes=compiled.temp_bytes,
        peak_bytes=compiled.peak_bytes,
        hbm_bytes=chip.hbm_bytes,
        fits=compiled.text is not None and compiled.peak_bytes <= chip.hbm_bytes,
        flops_per_device=costs.flops,
        ideal_flops_per_device=alone.flops / len(devices),
        plain_flops_per_device=plain,
        compute_seconds=costs.mxu_flops / chip.flops,
        memory_seconds=costs.hbm_bytes / chip.hbm_bandwidth,
        communication_seconds=sum(kind.wire_bytes for kind in costs.collectives.values())
        / chip.ici_bandwidth,
        instruction_seconds=costs.seconds(chip.flops, chip.hbm_bandwidth),
        background_seconds=costs.background_seconds(chip.flops, chip.hbm_bandwidth),
        dearest=_dearest(costs, chip),
        kernels=_kernels(costs),
        collectives=dict(costs.collectives),
    )


def _dearest(costs: Costs, chip: Chip) -> tuple[Dear, ...]:
    found = [
        Dear(
            work.instruction,
            work.layer,
            work.times,
            work.seconds(chip.flops, chip.hbm_bandwidth),
            work.mxu_flops / chip.flops,
            work.hbm_bytes / chip.hbm_bandwidth,
        )
        for work in costs.work
    ]
    return tuple(sorted(found, key=lambda dear: -dear.seconds)[:_DEAREST])


def _kernels(costs: Costs) -> dict[str, Kernel]:
    names = sorted({work.kernel for work in costs.work if work.kernel is not None})
    found = {name: [work for work in costs.work if work.kernel == name] for name in names}
    return {
        name: Kernel(
            sum(work.times for work in works),
            sum(work.flops for work in works),
            tuple(sorted({work.layer for work in works})),
        )
        for name, works in found.items()
    }


@dataclasses.dataclass(frozen=True)
class _Compiled:
    text: str | None
    argument_bytes: int
    temp_bytes: int
    peak_bytes: int


def _compile(program: Program, topology: System, options: dict[str, str | bool]) -> _Compiled:
    lowered = program.lower()
    try:
        compiled = lowered.compile(options)
    except jax.errors.JaxRuntimeError as error:
        arguments = bytes_per_device(program.arguments)
        whole, temporary = (pattern.search(str(error)) for pattern in _OUT_OF_MEMORY)
        if whole:
            peak = int(float(whole[1]) * _UNITS[whole[2]])
        elif temporary:
            peak = arguments + int(float(temporary[1]) * _UNITS[temporary[2]])
        else:
            first = str(error).strip().splitlines()[0][:300]
            raise HotshotError(f"{topology}: the compiler refused the program: {first}") from error
        return _Compiled(None, arguments, peak - arguments, peak)
    memory = compiled.memory_analysis()
    assert memory is not None
    peak = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )
    return _Compiled(
        compiled.as_text(), memory.argument_size_in_bytes, memory.temp_size_in_bytes, peak
    )


def print_report(report: Report) -> None:
    """Prints the report for people."""
    size = report.size
    print(
        f"{report.topology} ({report.chips} chips), {report.task}, {size.model} model, "
        f"{size.frames} frames of {size.width} x {size.height}, {size.videos} video(s), "
        f"mesh {report.mesh}"
    )
    for name, text in _rows(report):
        print(f"  {name:<28}{text}")
    if report.dearest:
        print("  the dearest instructions, in ms:")
        print(f"    {'all':>6} {'computing':>9} {'memory':>6} {'times':>5}  layer (instruction)")
    for dear in report.dearest:
        times = [1e3 * each for each in (dear.seconds, dear.compute_seconds, dear.memory_seconds)]
        print(
            f"    {times[0]:6.2f} {times[1]:9.2f} {times[2]:6.2f} {dear.times:5}  "
            f"{dear.layer} ({dear.instruction})"
        )


def _rows(report: Report) -> list[tuple[str, str]]:
    ratio = report.flops_per_device / report.ideal_flops_per_device
    rows = [
        ("compile time", f"{report.compile_seconds:.1f} s ({report.cpu_seconds:.0f} s of CPU)"),
        ("weights", _size(report.parameter_bytes)),
        ("all arguments", _size(report.argument_bytes)),
        ("temporary", _size(report.temp_bytes)),
        (
            "peak",
            f"{_size(report.peak_bytes)} of {_size(report.hbm_bytes)}: "
            + ("fits" if report.fits else "DOES NOT FIT"),
        ),
    ]
    if not report.flops_per_device:
        return rows
    if report.plain_flops_per_device is not None:
        plain = report.flops_per_device / report.plain_flops_per_device
        rows.append(("of windows as plain passes", f"{plain:.3f} x their FLOPs"))
    rows += [
        ("FLOPs", f"{report.flops_per_device / 1e12:.3f} T ({ratio:.3f} x the ideal share)"),
        *(
            (name, f"{kernel.count} x, {kernel.flops / report.flops_per_device:.1%} of the FLOPs")
            for name, kernel in report.kernels.items()
        ),
        *(
            (
                kind,
                f"{found.count} x, {_size(found.bytes)}, largest {_size(found.largest_bytes)}",
            )
            for kind, found in sorted(report.collectives.items())
        ),
        (
            "modelled (roofline)",
            f"{1e3 * report.roofline_seconds:.1f} ms: "
            f"computing {1e3 * report.compute_seconds:.1f}, "
            f"memory {1e3 * report.memory_seconds:.1f}, "
            f"communication {1e3 * report.communication_seconds:.1f}",
        ),
        (
            "modelled (by instruction)",
            f"{1e3 * report.summed_seconds:.1f} ms: the longer of computing and memory of each, "
            f"and communication; copies in the background {1e3 * report.background_seconds:.1f}",
        ),
    ]
    return rows


def report_json(report: Report) -> str:
    """The report on one line."""
    values: dict[str, Any] = dataclasses.asdict(report)
    values["roofline_seconds"] = report.roofline_seconds
    values["summed_seconds"] = report.summed_seconds
    values["modelled"] = ["roofline_seconds", "summed_seconds", *_MODELLED]
    # Of the VAE's precision the name is enough; dtypes are not JSON.
    values["size"]["vae_precision"] = report.size.vae_precision.name
    return json.dumps(values)


def _size(count: float) -> str:
    if count >= GIB / 10:
        return f"{count / GIB:.2f} GiB"
    return f"{count / 2**20:.2f} MiB" if count >= 2**14 else f"{count / 2**10:.2f} KiB"
