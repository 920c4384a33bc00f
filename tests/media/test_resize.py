import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from safetensors.numpy import load_file

from hotshot_jax.errors import HotshotError
from hotshot_jax.media.resize import get_crop_coordinates, scale_aspect_fill

GOLDEN = Path(__file__).parents[1] / "golden" / "cases"
UTILS = json.loads((GOLDEN / "utils.json").read_text())
ROWS = json.loads((GOLDEN / "scale_aspect_fill.json").read_text())["rows"]


@pytest.mark.parametrize("row", UTILS["get_crop_coordinates"])
def test_stored_crop_coordinates(row):
    got = get_crop_coordinates(tuple(row["old_wh"]), tuple(row["new_wh"]))
    assert list(got) == row["out_l_u_r_b"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row["index"]))
def test_stored_pictures(row):
    tensors = load_file(GOLDEN / "scale_aspect_fill.safetensors")
    picture, expected = tensors[f"{row['index']}.in"], tensors[f"{row['index']}.out"]
    as_reference = scale_aspect_fill(picture, *row["new_size_wh"], repair_odd_sizes=False)
    np.testing.assert_array_equal(as_reference, expected)

    width, height = row["new_size_wh"]
    repaired = scale_aspect_fill(picture, width, height)
    assert repaired.shape == (height, width, 3)
    if row["out_size_wh"] == row["new_size_wh"]:
        np.testing.assert_array_equal(repaired, expected)
    else:
        # The one stored case that the reference misses, by a column too many.
        assert row["out_size_wh"] == [width + 1, height]
        np.testing.assert_array_equal(repaired, expected[:, :width])


def test_stored_grey_picture():
    tensors = load_file(GOLDEN / "scale_aspect_fill.safetensors")
    got = scale_aspect_fill(tensors["grey.in"], 16, 16)
    np.testing.assert_array_equal(got, tensors["grey.out"])


side = st.integers(1, 60)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(side, side, side, side)
def test_any_size_is_met_without_border(old_width, old_height, width, height):
    picture = np.full((old_height, old_width, 3), 200, np.uint8)
    got = scale_aspect_fill(picture, width, height)
    assert got.shape == (height, width, 3)
    # A crop box beyond the picture would bring in black.
    assert (got == 200).all()


@pytest.mark.parametrize(("width", "height"), [(0, 8), (8, -1)])
def test_sides_must_be_positive(width, height):
    with pytest.raises(ValueError, match="positive"):
        scale_aspect_fill(np.zeros((4, 4, 3), np.uint8), width, height)


def test_a_strip_does_not_eat_the_memory():
    with pytest.raises(HotshotError, match="too narrow a strip"):
        scale_aspect_fill(np.zeros((1, 8192, 3), np.uint8), 512, 512)
