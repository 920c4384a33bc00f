"""Quantised, integer and 8-bit weights are refused by name."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from hotshot_jax.convert.tensors.tensor_source import TensorSource, open_file
from hotshot_jax.convert.tensors.weight_types import check_config_not_quantised, check_weight_types
from hotshot_jax.errors import HotshotError


def source(tmp_path: Path, **values: np.ndarray) -> TensorSource:
    named = {name.replace("__", "."): value for name, value in values.items()}
    save_file(named, tmp_path / "x.safetensors")
    return open_file(tmp_path / "x.safetensors")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64], ids=str)
def test_floating_point_weights_pass(tmp_path: Path, dtype: Any) -> None:
    check_weight_types(source(tmp_path, to_q__weight=np.ones(2, dtype)))


def test_position_ids_pass(tmp_path: Path) -> None:
    check_weight_types(source(tmp_path, embeddings__position_ids=np.arange(77)[None]))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (ml_dtypes.float8_e4m3fn, "'to_q.weight' are quantised to float8_e4m3fn"),
        (ml_dtypes.float8_e5m2, "'to_q.weight' are quantised to float8_e5m2"),
        (np.int8, "'to_q.weight' are not floating-point numbers but int8"),
        (np.uint8, "not floating-point numbers but uint8"),
        (np.int64, "not floating-point numbers but int64"),
        (np.bool_, "not floating-point numbers but bool"),
        (np.complex64, "not floating-point numbers but complex64"),
    ],
)
def test_other_types_are_refused(tmp_path: Path, dtype: Any, expected: str) -> None:
    weights = source(tmp_path, good__weight=np.ones(2), to_q__weight=np.ones(2, dtype))
    with pytest.raises(HotshotError, match=expected) as caught:
        check_weight_types(weights)
    assert "use the float16, bfloat16 or float32 weights" in str(caught.value)
    assert "x.safetensors" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "method"),
    [
        ("to_q__weight__absmax", "bitsandbytes 4-bit"),
        ("to_q__weight__quant_state__bitsandbytes__nf4", "bitsandbytes 4-bit"),
        ("to_q__SCB", "bitsandbytes 8-bit"),
        ("to_q__qweight", "GPTQ or AWQ"),
        ("to_q__qzeros", "GPTQ or AWQ"),
        ("to_q__weight___data", "quanto"),
        ("scaled_fp8", "scaled fp8"),
        ("to_q__scale_weight", "scaled fp8"),
        ("to_q__wscales", "SVDQuant"),
    ],
)
def test_quantised_weights_are_named(tmp_path: Path, key: str, method: str) -> None:
    weights = source(
        tmp_path, **{"to_q__weight": np.ones(2, np.uint8), key: np.ones(2, np.float32)}
    )
    with pytest.raises(HotshotError, match=f"quantised with {method}"):
        check_weight_types(weights)


def test_quantised_configuration_is_named() -> None:
    path = Path("unet/config.json")
    check_config_not_quantised({"quantization_config": None}, path)
    with pytest.raises(HotshotError, match=r"unet/config.json describes .*\(bitsandbytes\)"):
        check_config_not_quantised({"quantization_config": {"quant_method": "bitsandbytes"}}, path)
