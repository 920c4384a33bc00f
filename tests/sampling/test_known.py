"""Steps that are made again, so that what is made fits to what is known."""

import numpy as np
import pytest

from hotshot_jax.sampling.known import Known, calls_with_repeats


@pytest.mark.parametrize(
    ("steps", "repeats", "order"),
    [
        ([4, 5, 6], 1, [0, 1, 2]),
        ([4, 5, 6], 2, [0, 0, 1, 1, 2, 2]),
        ([0, 0, 1, 1, 2], 2, [0, 1, 0, 1, 2, 3, 2, 3, 4, 4]),
    ],
)
def test_each_step_is_made_as_often_as_asked(
    steps: list[int], repeats: int, order: list[int]
) -> None:
    assert calls_with_repeats(steps, repeats) == order


@pytest.mark.parametrize("after", [(1.0, 2.0), (0.9, 0.4), (1.0, 0.0)])
def test_going_back_gives_the_levels_of_before(after: tuple[float, float]) -> None:
    before = (1.0, 3.0) if after[0] == 1 else (0.6, 0.8)
    drawn = np.random.default_rng(0)
    shape = (1, 4, 50, 50, 4)
    clean, first, noise, again = (drawn.standard_normal(shape, np.float32) for _ in range(4))
    mask = np.ones((*shape[:-1], 1), np.float32)
    mask[:, 0] = 0
    known = Known(clean, first, mask)
    latents = after[0] * clean + after[1] * noise
    back = np.asarray(known.gone_back(latents, again, np.float32(after), np.float32(before)))
    # What is known lies where the first noise puts it.
    np.testing.assert_allclose(back[:, 0], before[0] * clean[:, 0] + before[1] * first[:, 0], 1e-5)
    left = (back - before[0] * clean)[:, 1:]
    # Of 30,000 numbers.
    assert left.std() == pytest.approx(before[1], rel=0.02)
    assert abs((left * clean[:, 1:]).mean()) < 0.05 * before[1]
