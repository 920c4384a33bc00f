"""The model of runs on many chips."""

import dataclasses

import pytest

from benchmarks.compile.topologies import CHIPS
from benchmarks.scaling import Assumptions, Job, estimate

V5E = CHIPS["v5e"]
TEMPORAL = Job(trained=1_000_000, frozen=10_000_000, flops=V5E.flops)
ASSUMED = Assumptions(utilisation=0.5, chip_hour=3.6)


def test_within_a_slice_samples_grow_with_the_chips() -> None:
    few, many = (estimate(TEMPORAL, V5E, chips, ASSUMED) for chips in (8, 256))
    # Half the peak: two seconds a step, a sample on each chip.
    assert few.compute_seconds == 2.0
    assert few.samples_per_second == 4.0
    assert many.samples_per_second == 128.0
    assert few.network_seconds == many.network_seconds == 0
    # A clip costs the same: 2 chip seconds of $0.001.
    assert few.cost_per_million == pytest.approx(2000)
    assert many.cost_per_million == pytest.approx(2000)


def test_what_chips_and_hosts_hold_and_send() -> None:
    found = estimate(TEMPORAL, V5E, 8, ASSUMED)
    assert found.state_bytes == (16e6 + 20e6) / 8
    assert found.checkpoint_bytes == 12e6
    assert found.checkpoint_seconds == pytest.approx(12e6 / (2 * 0.2e9))
    assert found.gather_seconds == pytest.approx(7 / 8 * (2 * 24e6 + 4e6) / V5E.ici_bandwidth)


def test_more_chips_than_split_the_weights_exchange_their_parts_of_the_gradients() -> None:
    found = estimate(TEMPORAL, V5E, 64, ASSUMED)
    assert found.state_bytes == (16e6 + 20e6) / 16
    gathered, exchanged = 15 / 16 * (2 * 24e6 + 4e6), 2 * 3 / 4 * 4e6 / 16
    assert found.gather_seconds == pytest.approx((gathered + exchanged) / V5E.ici_bandwidth)


def test_slices_exchange_gradients_over_the_network() -> None:
    found = estimate(TEMPORAL, V5E, 1024, ASSUMED)
    assert found.network_seconds == pytest.approx(2 * 3 / 4 * 4e6 / 64 / 12.5e9)
    assert found.samples_per_second < 512


def test_communication_that_takes_longer_than_computing_sets_the_pace() -> None:
    large = dataclasses.replace(TEMPORAL, trained=10**12)
    found = estimate(large, V5E, 64, ASSUMED)
    assert found.samples_per_second == pytest.approx(64 / found.gather_seconds)
