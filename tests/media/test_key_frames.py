import json
from pathlib import Path

import pytest

from hotshot_jax.errors import UsageError
from hotshot_jax.media.reading.key_frames import estimated_frame_duration, key_frame_indices

UTILS = json.loads((Path(__file__).parents[1] / "golden" / "cases" / "utils.json").read_text())
TABLE = UTILS["extract_gif_frames_from_midpoint"]


def test_every_stored_row():
    assert len(TABLE["rows"]) > 1000
    errors = 0
    for count, duration, video_length, target, expected in TABLE["rows"]:
        durations = [duration or 0] * count
        if isinstance(expected, list):
            assert key_frame_indices(durations, video_length, target) == expected
        else:
            errors += 1
            with pytest.raises(UsageError):
                key_frame_indices(durations, video_length, target)
    assert errors > 0


def test_too_few_frames_names_both_numbers():
    with pytest.raises(UsageError, match=r"7 frames.*`video_length` asks for 8"):
        key_frame_indices([100] * 7, 8, 1000)


def test_video_length_must_be_positive():
    with pytest.raises(ValueError, match="positive"):
        key_frame_indices([100], 0, 1000)


@pytest.mark.parametrize(
    ("durations", "expected"),
    [([0] * 16, 125), ([0] * 17, 70), ([40, 50, 0], 50), ([], 125), ([0, 0, 33.3], 33.3)],
)
def test_estimated_frame_duration(durations, expected):
    assert estimated_frame_duration(durations) == expected


def test_of_two_strides_equally_near_the_shorter_is_taken():
    # Strides of 10 and 9 span 1000 and 900 ms.
    assert key_frame_indices([100] * 20, 2, 950) == [5, 14]
