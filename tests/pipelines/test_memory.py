"""The estimate of device memory."""

import pytest

from hotshot_jax.pipelines.memory import MemoryEstimate

MIB = 2**20
WEIGHTS = {"text_encoder": 1, "text_encoder_2": 2, "unet": 20, "vae": 3}


def estimate(
    *, one_at_a_time: bool = False, denoising: int = 4, decoding: int = 7
) -> MemoryEstimate:
    weights = {name: size * MIB for name, size in WEIGHTS.items()}
    return MemoryEstimate(weights, denoising * MIB, decoding * MIB, one_at_a_time)


def test_all_models_lie_there_while_the_worst_activations_do() -> None:
    assert estimate().peak == (26 + 7) * MIB


@pytest.mark.parametrize(
    ("denoising", "decoding", "peak"), [(4, 7, 20 + 4), (4, 40, 3 + 40), (0, 0, 20)]
)
def test_in_low_vram_mode_one_model_at_a_time_does(
    denoising: int, decoding: int, peak: int
) -> None:
    found = estimate(one_at_a_time=True, denoising=denoising, decoding=decoding)
    assert found.peak == peak * MIB


def test_in_words() -> None:
    assert str(estimate()) == (
        "weights 26 MiB (text_encoder 1 MiB, text_encoder_2 2 MiB, unet 20 MiB, vae 3 MiB), "
        "activations about 4 MiB denoising and 7 MiB decoding, about 33 MiB at once"
    )
