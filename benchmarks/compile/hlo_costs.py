"""What a compiled program does on one device: operations, memory traffic, communication.

XLA's own cost analysis counts the body of a loop once; here loops are multiplied out, which matters
for layers that run in a scan. Only matrix products and convolutions count as operations.
"""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterator

from benchmarks.compile.hlo_text import Computation, Instruction, Module, Shape, parse

COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")

# Neither read nor written, or accounted for where they are used.
_FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast while conditional call iota after-all "
    "partition-id replica-id opt-barrier async-start async-update async-done".split()
)
# Products of queries and keys, or of the like, in the attention kernels of JAX, by their names.
_KERNEL_PRODUCTS = {"splash_mha_fwd": 2, "splash_mha_dkv": 5}
# bfloat16 passes of a float32 product on a TPU's matrix unit.
_PASSES = {"highest": 6, "high": 3}


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


@dataclasses.dataclass
class Costs:
    """Sums over a program, loops multiplied out.

    Attributes:
        flops: of matrix products and convolutions, two for a multiplication and addition.
        mxu_flops: the same, float32 products counted as the bfloat16 products that they take.
        hbm_bytes: read from and written to main memory by the instructions.
        collectives: by kind.
    """

    flops: float = 0.0
    mxu_flops: float = 0.0
    hbm_bytes: float = 0.0
    collectives: dict[str, Collective] = dataclasses.field(
        default_factory=lambda: defaultdict(Collective)
    )

    def add(self, other: "Costs", times: int = 1, memory: bool = True) -> None:
        """Adds another computation's costs, `times` over."""
        self.flops += times * other.flops
        self.mxu_flops += times * other.mxu_flops
        self.hbm_bytes += times * other.hbm_bytes if memory else 0
        for kind, theirs in other.collectives.items():
            ours = self.collectives[kind]
            ours.count += times * theirs.count
            ours.bytes += times * theirs.bytes
            ours.wire_bytes += times * theirs.wire_bytes
            ours.largest_bytes = max(ours.largest_bytes, theirs.largest_bytes)


def program_costs(text: str, devices: int = 1) -> Costs:
    """Costs of the program with the text `compiled.as_text()`, on one device.

    Args:
        text: of the program.
        devices: that it runs on; taken where a collective does not list its groups.
    """
    module = parse(text)
    return _Counter(module, devices).costs(module.entry)


class _Counter:
    def __init__(self, module: Module, devices: int):
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
        if opcode == "while":
            for called in instruction.called:
                total.add(self.costs(called), self._trip_count(instruction))
        elif opcode == "conditional":
            branches = [self.costs(called) for called in instruction.called]
            total.add(max(branches, key=lambda branch: (branch.flops, branch.hbm_bytes)))
        elif opcode in ("fusion", "call", "async-start"):
            for called in instruction.called:
                total.add(self.costs(called), memory=opcode != "fusion")
        elif kind in COLLECTIVES:
            _add_collective(total.collectives[kind], kind, instruction, computation, self._devices)
        elif opcode in ("dot", "convolution"):
            flops = _product_flops(instruction, computation)
            total.flops += flops
            total.mxu_flops += flops * _passes(instruction, computation)
        elif opcode == "custom-call":
            flops = _kernel_flops(instruction, computation)
            total.flops += flops
            total.mxu_flops += flops
        if opcode not in _FREE and not opcode.endswith("-done"):
            total.hbm_bytes += self._written(instruction) + self._read(instruction, computation)

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

    def _written(self, instruction: Instruction) -> int:
        if instruction.opcode == "copy-start":
            return instruction.shapes[0].bytes if instruction.shapes[0].in_hbm else 0
        if instruction.opcode == "dynamic-update-slice":
            return 0
        if instruction.opcode == "fusion":
            fused = self._module.computations[instruction.called[0]]
            update = _updated_bytes(fused)
            if update is not None:
                return update
        return instruction.bytes

    def _read(self, instruction: Instruction, computation: Computation) -> int:
        lines = computation.instructions
        operands = [lines[name] for name in instruction.operands if name in lines]
        if instruction.opcode in ("dynamic-slice", "slice"):
            return instruction.shapes[0].bytes if operands[0].bytes else 0
        if instruction.opcode == "dynamic-update-slice":
            return 2 * operands[1].shapes[0].bytes
        if instruction.opcode == "fusion":
            fused = instruction.called[0]
            return sum(
                min(operand.bytes, self._used(fused, index))
                for index, operand in enumerate(operands)
                if operand.bytes
            )
        return sum(operand.bytes for operand in operands)

    def _used(self, name: str, index: int) -> int:
        """How much of a parameter a fused computation reads: of a stack, only one layer."""
        computation = self._module.computations[name]
        parameter = computation.parameter(index)
        return self._used_by(computation, parameter, parameter.shapes[0].bytes)

    def _used_by(self, computation: Computation, value: Instruction, whole: int) -> int:
        used = 0
        for user in computation.users(value.name):
            if user.opcode in ("dynamic-slice", "slice"):
                used += user.shapes[0].bytes
            elif user.opcode == "bitcast":
                used += self._used_by(computation, user, whole)
            elif user.opcode == "fusion":
                used += self._used(user.called[0], user.operands.index(value.name))
            elif user.opcode == "dynamic-update-slice" and user.operands[0] == value.name:
                continue
            else:
                return whole
        return used


def _updated_bytes(computation: Computation) -> int | None:
    """Size of the update, for computations that change part of an array in place."""
    root = computation.root
    while root.opcode == "bitcast":
        root = computation.instructions[root.operands[0]]
    if root.opcode != "dynamic-update-slice":
        return None
    return computation.instructions[root.operands[1]].shapes[0].bytes


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


def _passes(instruction: Instruction, computation: Computation) -> int:
    operand = computation.instructions[instruction.operands[0]].shapes[0]
    precision = instruction.attribute("operand_precision") or ""
    if operand.dtype != "f32":
        return 1
    return next((passes for name, passes in _PASSES.items() if f"{{{name}" in precision), 1)


def _product_flops(instruction: Instruction, computation: Computation) -> float:
    left, right = (computation.instructions[name].shapes[0] for name in instruction.operands[:2])
    result = instruction.shapes[0]
    if instruction.opcode == "dot":
        contracted = re.findall(r"\d+", instruction.attribute("lhs_contracting_dims") or "")
        return 2.0 * math.prod(result.dims) * math.prod(left.dims[int(axis)] for axis in contracted)
    return _convolution_flops(instruction, left, right, result)


def _kernel_flops(instruction: Instruction, computation: Computation) -> float:
    """Operations of a kernel; the first operands of four axes are its queries and keys."""
    products = next(
        (count for name, count in _KERNEL_PRODUCTS.items() if instruction.name.startswith(name)), 0
    )
    if not products:
        return 0.0
    operands = (computation.instructions[name].shapes[0] for name in instruction.operands)
    query, key, *_ = (shape.dims for shape in operands if len(shape.dims) == 4)
    return 2.0 * products * math.prod(query) * key[2]


def _convolution_flops(instruction: Instruction, left: Shape, right: Shape, result: Shape) -> float:
    labels = instruction.attribute("dim_labels") or ""
    left_labels, right_labels, result_labels = re.split(r"_|->", labels)
    window = dict(_window(instruction.attributes))
    outputs = 2.0 * result.dims[result_labels.index("b")] * result.dims[result_labels.index("f")]
    outputs *= right.dims[right_labels.index("i")]
    spatial = [label for label in left_labels if label.isdigit()]
    for position, label in enumerate(spatial):
        outputs *= _valid_positions(
            left.dims[left_labels.index(label)],
            result.dims[result_labels.index(label)],
            {key: values[position] for key, values in window.items()},
        )
    groups = int(instruction.attribute("batch_group_count") or 1)
    return outputs / groups


def _window(attributes: str) -> Iterator[tuple[str, list[str]]]:
    match = re.search(r"window=\{([^}]*)\}", attributes)
    for part in match[1].split() if match else ():
        key, _, values = part.partition("=")
        yield key, values.split("x")


def _valid_positions(inputs: int, outputs: int, window: dict[str, str]) -> int:
    """Pairs of output and kernel position that meet an input and not padding or a gap."""
    size = int(window.get("size", "1"))
    stride = int(window.get("stride", "1"))
    before = int(window.get("pad", "0_0").split("_")[0])
    gaps = int(window.get("lhs_dilate", "1"))
    step = int(window.get("rhs_dilate", "1"))
    extent = (inputs - 1) * gaps + 1
    if gaps == 1 and step == 1 and size == 1:
        first, last = math.ceil(before / stride), (extent - 1 + before) // stride
        return max(0, min(outputs - 1, last) - max(0, first) + 1)
    return sum(
        0 <= place < extent and place % gaps == 0
        for output in range(outputs)
        for place in range(output * stride - before, output * stride - before + size * step, step)
    )
