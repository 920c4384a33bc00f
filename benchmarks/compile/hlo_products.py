"""Operations of matrix products, convolutions and attention kernels, from a program's text."""

import math
import re
from collections.abc import Iterator

from benchmarks.compile.hlo_text import Computation, Instruction, Shape

# Products of queries and keys, or of the like, in the attention kernels of JAX, by their names.
_KERNEL_PRODUCTS = {"splash_mha_fwd": 2, "splash_mha_dkv": 5}
# bfloat16 passes of a float32 product on a TPU's matrix unit.
_PASSES = {"highest": 6, "high": 3}


def matrix_passes(instruction: Instruction, computation: Computation) -> int:
    operand = computation.instructions[instruction.operands[0]].shapes[0]
    precision = instruction.attribute("operand_precision") or ""
    if operand.dtype != "f32":
        return 1
    return next((passes for name, passes in _PASSES.items() if f"{{{name}" in precision), 1)


def product_flops(instruction: Instruction, computation: Computation) -> float:
    left, right = (computation.instructions[name].shapes[0] for name in instruction.operands[:2])
    result = instruction.shapes[0]
    if instruction.opcode == "dot":
        contracted = re.findall(r"\d+", instruction.attribute("lhs_contracting_dims") or "")
        return 2.0 * math.prod(result.dims) * math.prod(left.dims[int(axis)] for axis in contracted)
    return _convolution_flops(instruction, left, right, result)


def kernel_flops(instruction: Instruction, computation: Computation) -> float:
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
