import json
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from hotshot_jax.media.pixels import to_uint8

GOLDEN = Path(__file__).parents[1] / "golden" / "cases"


def test_stored_rows():
    rows = json.loads((GOLDEN / "utils.json").read_text())["frames_to_uint8"]["rows"]
    values, expected = zip(*rows, strict=True)
    np.testing.assert_array_equal(to_uint8(np.array(values, np.float32)), expected)


def test_every_byte_comes_back():
    # byte / 255 * 255 may round to just under the byte, so only values inside its step are exact.
    byte = np.arange(256)
    middle = ((byte + 0.5) / 255).clip(0, 1).astype(np.float32)
    np.testing.assert_array_equal(to_uint8(middle), byte)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_precisions(dtype):
    video = np.array([0, 0.25, 0.5, 1], dtype).reshape(1, 2, 2, 1)
    got = to_uint8(video)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, np.array([0, 63, 127, 255]).reshape(1, 2, 2, 1))


def test_device_array_is_taken():
    np.testing.assert_array_equal(to_uint8(jnp.array([0.5, 1.0])), [127, 255])


def test_values_outside_are_clamped():
    np.testing.assert_array_equal(to_uint8([-0.1, 1.5, np.inf, -np.inf]), [0, 255, 255, 0])


def test_nan_is_refused():
    with pytest.raises(ValueError, match="not numbers"):
        to_uint8([0.5, np.nan])
