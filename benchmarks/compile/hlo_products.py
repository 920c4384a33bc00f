"""Operations of matrix products, convolutions and attention kernels, from a program's text."""

import functools
import math
import re
from collections.abc import Iterator

from benchmarks.compile.hlo_text import Computation, Instruction, Shape

# Products of queries and keys, or of the like, in attention kernels, and on which axis keys lie,
# counted from the last: JAX's own are known by name, cuDNN's by their target.
_ATTENTION = {
    "splash_mha_fwd": (2, -2),
    "splash_mha_dkv": (5, -2),
    "__cudnn$fmhaSoftmaxBackward": (5, -3),
    "__cudnn$fmhaSoftmax": (2, -3),
}


def operations(
    instruction: Instruction, computation: Computation, exact: float
) -> tuple[float, float]:
    """What an instruction multiplies and adds by itself: FLOPs, and those of bfloat16 products.

    Args:
        instruction: any; what is no product has none.
        computation: where it stands.
        exact: bfloat16 products that a float32 product takes which is rounded like one.
    """
    lines = computation.instructions
    operands = [lines[name].shapes[0] for name in instruction.operands if name in lines]
    target = instruction.target
    if instruction.opcode == "dot":
        axes = re.findall(r"\d+", instruction.attribute("lhs_contracting_dims") or "")
        flops = _dot_flops(instruction, operands[0], axes)
    elif target.startswith("__cublas"):
        axes = re.findall(r'lhs_contracting_dimensions":\s*\["(\d+)', instruction.attributes)
        flops = _dot_flops(instruction, operands[0], axes)
    elif instruction.opcode == "convolution" or target.startswith("__cudnn$conv"):
        flops = _convolution_flops(instruction, *operands[:2])
    elif instruction.opcode == "custom-call":
        return (_attention_flops(instruction, operands),) * 2
    else:
        return 0.0, 0.0
    return flops, flops * _passes(instruction, operands[0], exact)


def _passes(instruction: Instruction, operand: Shape, exact: float) -> float:
    precision = instruction.attributes.partition("operand_precision")[2][:20]
    if operand.dtype != "f32":
        return 1
    return exact if "highest" in precision.lower() else 3 if "high" in precision.lower() else 1


def _dot_flops(instruction: Instruction, left: Shape, contracted: list[str]) -> float:
    result = instruction.shapes[0]
    return 2.0 * math.prod(result.dims) * math.prod(left.dims[int(axis)] for axis in contracted)


def _attention_flops(instruction: Instruction, operands: list[Shape]) -> float:
    """Queries and keys come first, but for masks and their like, which are integers."""
    products, axis = next(
        (
            found
            for name, found in _ATTENTION.items()
            if instruction.name.startswith(name) or instruction.target.startswith(name)
        ),
        (0, 0),
    )
    if not products:
        return 0.0
    # Of a single image the compiler leaves out the axis of images.
    query, key, *_ = (
        shape.dims for shape in operands if len(shape.dims) >= 3 and "f" in shape.dtype
    )
    return 2.0 * products * math.prod(query) * key[axis]


def _convolution_flops(instruction: Instruction, left: Shape, right: Shape) -> float:
    result = instruction.shapes[0]
    # Gradients are cuDNN's own convolutions, written with the labels of the first pass.
    if instruction.target == "__cudnn$convBackwardInput":
        left, result = result, left
    elif instruction.target == "__cudnn$convBackwardFilter":
        right, result = result, right
    labels = instruction.attribute("dim_labels") or ""
    left_labels, right_labels, result_labels = re.split(r"_|->", labels)
    window = dict(_window(instruction.attributes))
    outputs = 2.0 * result.dims[result_labels.index("b")] * result.dims[result_labels.index("f")]
    outputs *= right.dims[right_labels.index("i")]
    spatial = [label for label in left_labels if label.isdigit()]
    for position, label in enumerate(spatial):
        sizes = {key: values[position] for key, values in window.items()}
        outputs *= valid_positions(
            left.dims[left_labels.index(label)],
            result.dims[result_labels.index(label)],
            int(sizes.get("size", 1)),
            int(sizes.get("stride", 1)),
            int(sizes.get("pad", "0").split("_")[0]),
            int(sizes.get("lhs_dilate", 1)),
            int(sizes.get("rhs_dilate", 1)),
        )
    groups = int(instruction.attribute("batch_group_count") or 1)
    return outputs / groups


def _window(attributes: str) -> Iterator[tuple[str, list[str]]]:
    match = re.search(r"window=\{([^}]*)\}", attributes)
    for part in match[1].split() if match else ():
        key, _, values = part.partition("=")
        yield key, values.split("x")


@functools.cache
def valid_positions(
    inputs: int, outputs: int, size: int, stride: int, before: int, gaps: int, step: int
) -> int:
    """Pairs of output and kernel position that meet an input and not padding or a gap.

    Args:
        inputs: along this axis.
        outputs: likewise.
        size: of the kernel.
        stride: between outputs, in inputs with their gaps.
        before: padding in front of the first input.
        gaps: from one input to the next, 1 for none.
        step: from one kernel position to the next.
    """
    last = (inputs - 1) * gaps
    common = math.gcd(step, gaps)
    period = gaps // common
    inverse = pow(step // common, -1, period)
    pairs = 0
    for start in range(-before, outputs * stride - before, stride):
        if start % common:
            continue
        # Of the kernel positions over the inputs, those on an input: each `period`-th from `first`.
        low, high = max(0, -(start // step)), min(size - 1, (last - start) // step)
        first = -(start // common) * inverse % period
        pairs += max(0, (high - first) // period - (low - 1 - first) // period)
    return pairs
