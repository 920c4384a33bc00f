"""What a compiled program does on one device: operations, memory traffic, communication.

XLA's own cost analysis counts the body of a loop once; here loops are multiplied out, which matters
for layers that run in a scan. Only matrix products and convolutions count as operations. Traffic is
that of arrays as they lie in memory, padding and all.
"""

import dataclasses
import math
import re
from collections import defaultdict

from benchmarks.compile.hlo_kernels import kernel_of
from benchmarks.compile.hlo_products import operations
from benchmarks.compile.hlo_text import Computation, Instruction, Module, parse
from benchmarks.compile.hlo_traffic import traffic

COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")


@dataclasses.dataclass
class Collective:
    """All communication of one kind.

    Attributes:
        count: how often a device takes part.
        bytes: of the arrays involved, each counted on one device, in all.
        largest_bytes: of the largest array.
        wire_bytes: what a device sends, by the usual ring algorithms.
    """

    count: int = 0
    bytes: int = 0
    largest_bytes: int = 0
    wire_bytes: float = 0.0


@dataclasses.dataclass(frozen=True)
class Work:
    """What one instruction does, all its turns together.

    Attributes:
        instruction: its name in the program.
        opcode: such as `fusion`.
        layer: what it was made of, `down_blocks.0/temporal_attentions.0/attn1/dot_general`.
        kernel: of a library or a kernel compiler, if one took it.
        times: how often it runs.
        flops: of matrix products and convolutions, two for a multiplication and addition.
        mxu_flops: the same, float32 products counted as the bfloat16 products that they take.
        hbm_bytes: read from and written to main memory.
    """

    instruction: str
    opcode: str
    layer: str
    kernel: str | None
    times: int
    flops: float
    mxu_flops: float
    hbm_bytes: float

    def repeated(self, times: int) -> "Work":
        """The same in a loop of so many turns."""
        return dataclasses.replace(
            self,
            times=times * self.times,
            flops=times * self.flops,
            mxu_flops=times * self.mxu_flops,
            hbm_bytes=times * self.hbm_bytes,
        )

    @property
    def in_background(self) -> bool:
        """Whether others may run meanwhile."""
        return self.opcode.endswith("-start")

    def seconds(self, peak_flops: float, bandwidth: float) -> float:
        """The longer of computing and memory, each at its peak."""
        return max(self.mxu_flops / peak_flops, self.hbm_bytes / bandwidth)


@dataclasses.dataclass
class Costs:
    """What a program does, loops multiplied out.

    Attributes:
        work: of each instruction that has any, in the order of the program.
        collectives: communication by kind.
    """

    work: list[Work] = dataclasses.field(default_factory=list)
    collectives: dict[str, Collective] = dataclasses.field(
        default_factory=lambda: defaultdict(Collective)
    )

    @property
    def flops(self) -> float:
        """Of all instructions."""
        return sum(work.flops for work in self.work)

    @property
    def mxu_flops(self) -> float:
        """Of all instructions."""
        return sum(work.mxu_flops for work in self.work)

    @property
    def hbm_bytes(self) -> float:
        """Of all instructions."""
        return sum(work.hbm_bytes for work in self.work)

    def seconds(self, peak_flops: float, bandwidth: float) -> float:
        """Computing and memory, one instruction after the other."""
        return sum(work.seconds(peak_flops, bandwidth) for work in self.work)

    def background_seconds(self, peak_flops: float, bandwidth: float) -> float:
        """Of these, what instructions take during which others may run."""
        return sum(work.seconds(peak_flops, bandwidth) for work in self.work if work.in_background)

    def add(self, other: "Costs", times: int = 1) -> None:
        """Adds another computation's costs, `times` over."""
        self.work += [work.repeated(times) for work in other.work]
        for kind, theirs in other.collectives.items():
            ours = self.collectives[kind]
            ours.count += times * theirs.count
            ours.bytes += times * theirs.bytes
            ours.wire_bytes += times * theirs.wire_bytes
            ours.largest_bytes = max(ours.largest_bytes, theirs.largest_bytes)


def program_costs(text: str, devices: int = 1, float32_passes: float = 6) -> Costs:
    """Costs of the program with the text `compiled.as_text()`, on one device.

    Args:
        text: of the program.
        devices: that it runs on; taken where a collective does not list its groups.
        float32_passes: bfloat16 products that an exact float32 product takes the time of.
    """
    module = parse(text)
    return _Counter(module, devices, float32_passes).costs(module.entry)


class _Counter:
    def __init__(self, module: Module, devices: int, exact: float):
        self._exact = exact
        self._module = module
        self._devices = devices
        self._done: dict[str, Costs] = {}

    def costs(self, name: str) -> Costs:
        if name not in self._done:
            total = Costs()
            computation = self._module.computations[name]
            for instruction in computation.instructions.values():
                self._add(total, instruction, computation)
            self._done[name] = total
        return self._done[name]

    def _add(self, total: Costs, instruction: Instruction, computation: Computation) -> None:
        opcode = instruction.opcode
        kind = opcode.removesuffix("-start")
        flops, mxu_flops = 0.0, 0.0
        if opcode == "while":
            for called in instruction.called:
                total.add(self.costs(called), self._trip_count(instruction))
        elif opcode == "conditional":
            branches = [self.costs(called) for called in instruction.called]
            total.add(max(branches, key=lambda branch: (branch.flops, branch.hbm_bytes)))
        elif opcode in ("call", "async-start"):
            for called in instruction.called:
                total.add(self.costs(called))
        elif opcode == "fusion":
            fused = [self.costs(called) for called in instruction.called]
            flops = sum(each.flops for each in fused)
            mxu_flops = sum(each.mxu_flops for each in fused)
        elif kind in COLLECTIVES:
            _add_collective(total.collectives[kind], kind, instruction, computation, self._devices)
        else:
            flops, mxu_flops = operations(instruction, computation, self._exact)
        moved = traffic(self._module, computation, instruction)
        if flops or moved:
            total.work.append(
                Work(
                    instruction.name,
                    opcode,
                    instruction.layer,
                    kernel_of(instruction),
                    1,
                    flops,
                    mxu_flops,
                    moved,
                )
            )

    def _trip_count(self, loop: Instruction) -> int:
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
        if known:
            return int(known[1])
        # A scan counts from 0 up to a constant.
        name = (loop.attribute("condition") or "").lstrip("%")
        condition = self._module.computations[name]
        limits = [
            int(line.literal)
            for line in condition.instructions.values()
            if line.opcode == "constant" and line.literal.isdigit()
        ]
        return max(limits, default=1)


def _add_collective(
    total: Collective,
    kind: str,
    instruction: Instruction,
    computation: Computation,
    devices: int,
) -> None:
    lines = computation.instructions
    results = instruction.shapes
    operands = [shape for name in instruction.operands for shape in lines[name].shapes]
    # The start of an asynchronous collective carries operands, results and bookkeeping.
    arrays = operands if kind == "reduce-scatter" or len(results) > len(operands) else list(results)
    if kind == "all-gather" and len(results) > len(operands):
        arrays = [shape for shape in results if shape.dims][len(operands) : 2 * len(operands)]
    sizes = [shape.bytes for shape in arrays]
    group = _group_size(instruction.attributes) or devices
    remote = (group - 1) / group
    factor = {"all-reduce": 2 * remote, "collective-permute": 1.0}.get(kind, remote)
    total.count += 1
    total.bytes += sum(sizes)
    total.largest_bytes = max(total.largest_bytes, *sizes)
    total.wire_bytes += factor * sum(sizes)


def _group_size(attributes: str) -> int | None:
    """Devices that take part together, from each of the notations of `replica_groups`."""
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", attributes)
    if listed:
        return listed[1].count(",") + 1
    iota = re.search(r"replica_groups=\[\d+,(\d+)\]", attributes)
    if iota:
        return int(iota[1])
    named = re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes)
    if named:
        sizes = {axis: int(size) for axis, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
        axes = re.findall(r"'(\w+)'", named[2])
        return math.prod(sizes.get(axis, 1) for axis in axes)
    return None
