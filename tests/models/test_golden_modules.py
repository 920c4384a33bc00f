"""Single models against the stored numbers of the PyTorch reference."""

from pathlib import Path

import pytest

from benchmarks.parity_cases.case import read_cases
from benchmarks.parity_cases.kinds import run_case

GOLDEN = Path(__file__).parents[1] / "golden"


# The other UNet cases differ from these in shapes only; `benchmarks.parity` runs all.
@pytest.mark.parametrize(
    "name",
    [
        "clip_g_tiny",
        "clip_l_tiny",
        "small_input",
        "temporal_c128",
        "temporal_c64",
        "unet_controlnet",
        "unet_image",
        "unet_odd_size",
        "unet_video",
        "unet_video_groups16",
        "vae_tiny",
    ],
)
def test_case(name: str) -> None:
    (case,) = read_cases(GOLDEN, [name])
    results = list(run_case(case))
    assert [result for result in results if result.verdict.fails] == []
    assert any(result.error is not None for result in results)
