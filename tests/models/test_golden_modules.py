"""Single models against the stored numbers of the PyTorch reference."""

from pathlib import Path

import pytest

from benchmarks.parity_cases.case import read_cases
from benchmarks.parity_cases.kinds import run_case

GOLDEN = Path(__file__).parents[1] / "golden"


# Odd sizes, single images and group counts are held to diffusers in `test_unet`, residuals in
# `test_controlnet`; their stored cases take long to compile. `benchmarks.parity` runs all.
@pytest.mark.parametrize(
    "name",
    [
        "clip_g_tiny",
        "clip_l_tiny",
        "small_input",
        "temporal_c128",
        "temporal_c64",
        pytest.param("unet_controlnet", marks=pytest.mark.slow),
        pytest.param("unet_image", marks=pytest.mark.slow),
        pytest.param("unet_odd_size", marks=pytest.mark.slow),
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
