import numpy as np
import pytest

from hotshot_jax.choices import SPACINGS
from hotshot_jax.schedulers.numbers import evenly_spaced, solver_spaced


@pytest.mark.parametrize("spacing", SPACINGS)
def test_every_number_of_steps_gives_that_many_timesteps(spacing):
    for steps in range(1, 1000):
        timesteps = evenly_spaced(spacing, steps, 1000, 0)
        assert len(timesteps) == steps
        assert timesteps.min() >= 0 and timesteps.max() <= 999
        assert (np.diff(timesteps) < 0).all()
        for_solver = solver_spaced(spacing, steps, 1000, 0, 1000)
        assert for_solver.dtype == np.int64
        assert len(for_solver) == steps
        assert for_solver.min() >= 0 and for_solver.max() <= 999


def test_values():
    # Lin et al. 2023, table 2, for 10 steps (their timesteps count from 1).
    leading = np.arange(901, 0, -100) - 1
    trailing = np.arange(1000, 0, -100) - 1
    linspace = np.array([1000, 889, 778, 667, 556, 445, 334, 223, 112, 1]) - 1
    np.testing.assert_array_equal(evenly_spaced("leading", 10, 1000, 0), leading)
    np.testing.assert_array_equal(evenly_spaced("leading", 10, 1000, 1), leading + 1)
    np.testing.assert_array_equal(evenly_spaced("trailing", 10, 1000, 1), trailing)
    np.testing.assert_allclose(evenly_spaced("linspace", 10, 1000, 1), linspace, atol=1e-9)


def test_trailing_adds_no_call_at_timestep_minus_1():
    # 1000 / 61 does not sum up to 1000 in float64; diffusers makes 62 calls of it.
    assert len(np.arange(1000, 0, -1000 / 61)) == 62
    assert evenly_spaced("trailing", 61, 1000, 0)[-1] == 15


def test_solvers_leave_out_time_0():
    assert solver_spaced("leading", 4, 1000, 1, 1000).tolist() == [801, 601, 401, 201]
    assert solver_spaced("linspace", 4, 1000, 0, 1000).tolist() == [999, 749, 500, 250]
    assert solver_spaced("trailing", 4, 1000, 0, 1000).tolist() == [999, 749, 499, 249]


def test_clipped_solver_timesteps_start_lower():
    assert solver_spaced("linspace", 3, 1000, 0, 901).tolist() == [900, 600, 300]
    assert solver_spaced("trailing", 4, 1000, 0, 600).tolist() == [599, 349, 99]
