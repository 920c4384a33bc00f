"""What training takes and what devices have: memory by component, operations, peaks.

Operations are counted here, since XLA's own analysis counts the body of a loop once, and SDXL's
deep transformers are loops. A program is counted as it is traced, before it is compiled: matrix
products and convolutions, two operations for each multiplication and addition, what is computed
twice to save memory twice.
"""

import math
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

from hotshot_jax.models import CLIPTextModel
from hotshot_jax.models.activation_memory import text_training_bytes, training_bytes
from hotshot_jax.models.layers.attention_choice import Accelerator
from hotshot_jax.pipelines.memory import describe_size, held_bytes


def traced_flops(program: ClosedJaxpr | Jaxpr) -> float:
    """Operations of one call, on all devices together.

    Args:
        program: the `jaxpr` of a `jax.stages.Traced`, or what `jax.make_jaxpr` gives. Of branches
            the most expensive counts; the body of a loop whose length is not known counts once.
    """
    jaxpr = program.jaxpr if isinstance(program, ClosedJaxpr) else program
    return sum(_flops(equation) for equation in jaxpr.eqns)


def _flops(equation: Any) -> float:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2.0 * _size(equation.outvars[0]) * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = kernel[parameters["dimension_numbers"].rhs_spec[0]]
        # What lies between the values of a dilated input is known to be zero.
        taken = math.prod(kernel) / outputs / math.prod(parameters["lhs_dilation"])
        return 2.0 * _size(equation.outvars[0]) * taken
    inner = [traced_flops(each) for each in _programs(parameters)]
    if name == "scan":
        return parameters["length"] * sum(inner)
    return max(inner, default=0.0) if name == "cond" else sum(inner)


def _size(variable: Any) -> int:
    return math.prod(variable.aval.shape)


def _programs(parameters: dict[str, Any]) -> Iterator[ClosedJaxpr | Jaxpr]:
    for value in parameters.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, ClosedJaxpr | Jaxpr):
                yield each


def training_memory(
    state: Any,
    frozen: Mapping[str, Any],
    unet: Any,
    shape: tuple[int, ...],
    rematerialisation: str,
    encoders: Sequence[CLIPTextModel] = (),
) -> dict[str, int]:
    """What training needs of one device, in bytes by component.

    Args:
        state: a `TrainState` of arrays or their shapes.
        frozen: parameters that do not train.
        unet: the model, for its shape and the dtype that it computes in.
        shape: of the latents of a batch on one device, `(batch, frames, height, width, channels)`.
        rematerialisation: see `rematerialise`.
        encoders: text encoders that train, which compute in the same dtype.
    """
    trained = _bytes(state.trained)
    parts = {
        "trained weights": trained,
        "frozen weights": _bytes(frozen),
        "gradients": trained + _bytes(state.gathered),
        "optimiser": _bytes(state.optimizer),
        "moving average": _bytes(state.average),
        "activations": training_bytes(
            unet.config, shape, unet.dtype, Accelerator.current(), rematerialisation
        ),
        "activations of text encoders": sum(
            text_training_bytes(each.config, shape[0], unet.dtype, rematerialisation)
            for each in encoders
        ),
    }
    return {name: size for name, size in parts.items() if size}


def describe_training_memory(parts: Mapping[str, int]) -> str:
    """The components, in words."""
    listed = ", ".join(f"{name} {describe_size(size)}" for name, size in parts.items())
    return f"memory of each device: about {describe_size(sum(parts.values()))} ({listed})"


def _bytes(tree: Any) -> int:
    return sum(held_bytes(leaf) for leaf in jax.tree.leaves(tree))


# Dense bfloat16 FLOP/s of one device, from the makers' data sheets.
PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}


def peak_flops(device: Any) -> float | None:
    """Peak FLOP/s of a device; None where its kind is not known (CPUs)."""
    known = [name for name in PEAK_FLOPS if device.device_kind.startswith(name)]
    return PEAK_FLOPS[max(known, key=len)] if known else None


def device_memory() -> int | None:
    """Bytes that this process has had in use on its first device at most; None if not known."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def host_memory() -> int:
    """Bytes of main memory that this process has had in use at most."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes.
    return peak if sys.platform == "darwin" else peak * 1024
