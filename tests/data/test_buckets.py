import json
from pathlib import Path

import numpy as np
import pytest
from clips import picture
from safetensors.numpy import load_file

from hotshot_jax.data.buckets import (
    assign_buckets,
    bucket_sizes,
    choose_frames,
    enlarged,
    fit_to_bucket,
    time_ids,
)
from hotshot_jax.data.clip_source import clip_table
from hotshot_jax.errors import UsageError

GOLDEN = Path(__file__).parent.parent / "golden" / "cases"


def test_published_sizes_and_their_twins() -> None:
    small, large = bucket_sizes(512), bucket_sizes(1024)
    assert small == (
        (320, 768), (384, 672), (416, 608), (512, 512), (608, 416), (672, 384), (768, 320),
    )  # fmt: skip
    assert large == tuple((2 * width, 2 * height) for width, height in small)
    assert bucket_sizes(512, "1.75") == ((672, 384),)
    assert bucket_sizes(128, "1.00") == ((128, 128),)


def test_other_resolutions_scale_them_to_multiples_of_eight() -> None:
    assert bucket_sizes(96) == (
        (64, 144),
        (72, 128),
        (80, 112),
        (96, 96),
        (112, 80),
        (128, 72),
        (144, 64),
    )


@pytest.mark.parametrize(
    ("resolution", "ratio"), [(0, None), (-8, None), (100, None), (512, "1.3")]
)
def test_unknown_sizes_are_refused(resolution: int, ratio: str | None) -> None:
    with pytest.raises(UsageError, match=r"`resolution`|`aspect_ratio`"):
        bucket_sizes(resolution, ratio)


def test_each_clip_goes_to_the_nearest_ratio_as_in_the_reference() -> None:
    rows = json.loads((GOLDEN / "utils.json").read_text())["best_aspect_ratio"]
    checked = 0
    for row in rows:
        ratio, sizes = row["aspect_ratio"], bucket_sizes(row["resolution"])
        table = clip_table([round(20000 * ratio)], [20000], [8])
        if abs(table["width"][0] / 20000 - ratio) > 1e-9:
            continue  # the ratio is not one of whole pixels
        assert list(sizes[assign_buckets(table, sizes)[0]]) == row["size_wh"]
        checked += 1
    assert checked > 20


def test_time_ids_equal_the_reference() -> None:
    rows = json.loads((GOLDEN / "utils.json").read_text())["get_crop_coordinates"]
    assert len(rows) > 20
    for row in rows:
        expected = [*row["old_wh"], *row["out_l_u_r_b"][:2], *row["new_wh"]]
        found = time_ids(tuple(row["old_wh"]), tuple(row["new_wh"]))
        np.testing.assert_array_equal(found, np.array(expected, np.float32))


def test_pixels_equal_the_reference() -> None:
    rows = json.loads((GOLDEN / "scale_aspect_fill.json").read_text())["rows"]
    tensors = load_file(GOLDEN / "scale_aspect_fill.safetensors")
    for row in rows:
        if row["out_size_wh"] == row["new_size_wh"]:
            found = fit_to_bucket(tensors[f"{row['index']}.in"], tuple(row["new_size_wh"]))
            np.testing.assert_array_equal(found, tensors[f"{row['index']}.out"])


def test_a_picture_of_the_right_size_is_left_alone() -> None:
    pixels = picture(0, 48, 32)
    assert fit_to_bucket(pixels, (48, 32)) is pixels


def test_clips_smaller_than_their_bucket_are_counted() -> None:
    table = clip_table([512, 511, 1344, 100], [512, 512, 768, 100], [8] * 4)
    assert enlarged(table, assign_buckets(table, bucket_sizes(512)), bucket_sizes(512)) == 2


def test_frames_are_neighbours_from_every_start() -> None:
    assert choose_frames(8, 8, (1,)) == range(8)
    chosen = [choose_frames(10, 8, (1, epoch, 7)) for epoch in range(60)]
    assert {frames.start for frames in chosen} == {0, 1, 2}
    assert all(len(frames) == 8 and frames.step == 1 for frames in chosen)
    assert chosen[3] == choose_frames(10, 8, (1, 3, 7))
