"""Which instructions of a compiled program a library or a kernel compiler took."""

import re

from benchmarks.compile.hlo_text import Instruction

# By the beginnings of targets, and of kinds of fusions.
_TARGETS = {
    "__cudnn$fmha": "cuDNN attention",
    "__cudnn$conv": "cuDNN convolution",
    "__cublas": "cuBLAS product",
    "tpu_custom_call": "Pallas kernel",
}
_FUSIONS = {
    "__cudnn": "cuDNN fusion",
    "__triton_gemm": "Triton product",
    "__triton_nested_gemm": "Triton product",
    "__triton": "Triton fusion",
}
_KIND = re.compile(r'"kind":\s*"(\w+)')


def kernel_of(instruction: Instruction) -> str | None:
    """What runs an instruction, or None for the device compiler's own code."""
    if instruction.opcode == "custom-call":
        return _named(_TARGETS, instruction.target)
    kind = _KIND.search(instruction.attributes) if instruction.opcode == "fusion" else None
    return _named(_FUSIONS, kind[1]) if kind else None


def _named(kernels: dict[str, str], name: str) -> str | None:
    return next((kernel for start, kernel in kernels.items() if name.startswith(start)), None)
