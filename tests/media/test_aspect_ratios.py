import json
from pathlib import Path

import pytest

from hotshot_jax.errors import UsageError
from hotshot_jax.media.aspect_ratios import (
    SIZES_BY_RESOLUTION,
    best_aspect_ratio,
    is_trained_size,
    size_of_aspect_ratio,
)

UTILS = json.loads((Path(__file__).parents[1] / "golden" / "cases" / "utils.json").read_text())


def test_stored_table():
    stored = {
        int(resolution): {name: tuple(size) for name, size in sizes.items()}
        for resolution, sizes in UTILS["res_to_aspect_map"].items()
    }
    assert stored == SIZES_BY_RESOLUTION


@pytest.mark.parametrize("row", UTILS["best_aspect_ratio"])
def test_stored_best_aspect_ratio(row):
    got = best_aspect_ratio(row["aspect_ratio"], row["resolution"])
    assert got == (row["key"], tuple(row["size_wh"]))


@pytest.mark.parametrize("resolution", [512, 1024])
def test_every_name_finds_its_size(resolution):
    for name, size in SIZES_BY_RESOLUTION[resolution].items():
        assert size_of_aspect_ratio(name, resolution) == size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", (512, 512)),
        ("1:1", (512, 512)),
        ("7:4", (672, 384)),
        (" 672x384 ", (672, 384)),
        ("2.4", (768, 320)),
        ("0.5714", (384, 672)),
    ],
)
def test_other_spellings(text, size):
    assert size_of_aspect_ratio(text) == size


@pytest.mark.parametrize("text", ["", "wide", "0", "-1", "nan", "inf", "1:0", "1:2:3", "1e400"])
def test_no_ratio(text):
    with pytest.raises(UsageError, match=r"`aspect_ratio` .* must be one of 0\.42, .*2\.40"):
        size_of_aspect_ratio(text)


@pytest.mark.parametrize(("text", "nearest"), [("16:9", "1.75"), ("1.3", "1.46"), ("5", "2.40")])
def test_untrained_ratio_names_the_nearest(text, nearest):
    with pytest.raises(UsageError, match=f"nearest is {nearest}"):
        size_of_aspect_ratio(text)


@pytest.mark.parametrize(("ratio", "resolution"), [(1.0, 768), (0.0, 512), (float("nan"), 512)])
def test_best_aspect_ratio_refuses(ratio, resolution):
    with pytest.raises(ValueError, match="must be"):
        best_aspect_ratio(ratio, resolution)


def test_trained_sizes():
    assert is_trained_size(672, 384)
    assert is_trained_size(384, 672)
    assert not is_trained_size(384, 384)
    assert not is_trained_size(1344, 768)
