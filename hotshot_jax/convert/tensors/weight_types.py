"""Refusing, by name, weights that are no plain floating-point numbers.

Quantised checkpoints keep integers or 8-bit floats beside scales of their own. Read as weights they
give noise, so they are recognised by the names and types that each method leaves behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hotshot_jax.convert.tensors.rules import is_no_weight
from hotshot_jax.convert.tensors.tensor_source import TensorSource
from hotshot_jax.errors import HotshotError

_WEIGHT_TYPES = frozenset({"float16", "bfloat16", "float32", "float64"})

# Part of a tensor's name -> the method that writes it. The first that fits is named.
_QUANTISED_NAMES: tuple[tuple[str, str], ...] = (
    ("quant_state.bitsandbytes", "bitsandbytes 4-bit"),
    (".absmax", "bitsandbytes 4-bit"),
    (".quant_map", "bitsandbytes 4-bit"),
    (".SCB", "bitsandbytes 8-bit"),
    (".weight_format", "bitsandbytes 8-bit"),
    (".wscales", "SVDQuant"),
    (".qweight", "GPTQ or AWQ"),
    (".qzeros", "GPTQ or AWQ"),
    (".g_idx", "GPTQ"),
    (".weight._data", "quanto"),
    (".weight._scale", "quanto"),
    ("scaled_fp8", "scaled fp8"),
    (".scale_weight", "scaled fp8"),
    (".weight_scale", "scaled fp8"),
    (".comfy_quant", "ComfyUI's quantisation"),
)

_ADVICE = "use the float16, bfloat16 or float32 weights of this model"


def check_weight_types(source: TensorSource, ignored: Callable[[str], bool] = is_no_weight) -> None:
    """Check that every tensor is float16, bfloat16, float32 or float64.

    Only names and types are looked at; nothing is read.

    Args:
        source: the tensors of one component.
        ignored: tells by name which tensors are no weights.

    Raises:
        HotshotError: the weights are quantised (the method is named), 8-bit floats, integers or
            complex.
    """
    for name in source:
        for part, method in _QUANTISED_NAMES:
            if part in name:
                raise HotshotError(
                    f"{source[name].file} is quantised with {method} (it holds '{name}'), which "
                    f"is not supported; {_ADVICE}"
                )
    for name in source:
        kind = source.dtype(name).name
        if kind in _WEIGHT_TYPES or ignored(name):
            continue
        what = "quantised to " if kind.startswith("float") else "not floating-point numbers but "
        raise HotshotError(
            f"{source[name].file}: the weights '{name}' are {what}{kind}, which is not supported; "
            f"{_ADVICE}"
        )


def check_config_not_quantised(config: Mapping[str, Any], path: Path) -> None:
    """Check that a component's configuration asks for no quantisation.

    Args:
        config: the content of ``config.json``.
        path: the file, for the message.

    Raises:
        HotshotError: it has a ``quantization_config``; the method is named.
    """
    quantisation = config.get("quantization_config")
    if not quantisation:
        return
    method = quantisation.get("quant_method") if isinstance(quantisation, dict) else None
    raise HotshotError(
        f"{path} describes quantised weights ({method or quantisation}), which are not supported; "
        f"{_ADVICE}"
    )
