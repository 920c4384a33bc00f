import json

import pytest

from benchmarks import data_loading


@pytest.mark.parametrize("kind", ["folders", "records"])
def test_rates_are_measured_beside_raw_decoding(
    capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    arguments = ["--clips", "8", "--size", "64", "--kind", kind, "--json"]
    assert data_loading.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["loader_clips_per_second"] > 0
    assert found["raw_decode_clips_per_second"] > 0
    low, high = found["loader_over_raw_range"]
    assert low <= found["loader_over_raw"] <= high


def test_opening_many_small_samples_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert data_loading.main(["--samples", "300", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["300_samples"]
    assert 0 < found["open_seconds"] <= found["first_batch_seconds"] < 60
