import pytest
from hypothesis import given, strategies as st

from hotshot_jax.errors import UsageError
from hotshot_jax.media.formats.output_form import check_duration, frame_times


def test_eighths_of_a_second_alternate():
    assert frame_times(1000, 8, unit_ms=10) == [12, 13, 12, 13, 12, 13, 12, 13]


@given(st.floats(20, 100_000), st.integers(1, 24), st.sampled_from([1, 10]))
def test_times_add_up_and_are_even(duration, count, unit):
    times = frame_times(duration, count, unit_ms=unit)
    assert len(times) == count
    assert abs(sum(times) - duration / unit) <= 0.5
    assert max(times) - min(times) <= 1


@pytest.mark.parametrize(("duration", "count"), [(160, 8), (20, 1), (480, 24), (655_350, 1)])
def test_bounds_are_allowed(duration, count):
    check_duration(duration, count)


@pytest.mark.parametrize(
    ("duration", "count"),
    [
        (159, 8),
        (0, 1),
        (-1000, 8),
        (float("nan"), 8),
        (float("inf"), 8),
        (655_351, 1),
    ],
)
def test_out_of_bounds_names_the_flag(duration, count):
    with pytest.raises(UsageError, match=f"`video_duration` .* for {count} frames"):
        check_duration(duration, count)
