"""The formulas for activations, beside what compilers said."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from hotshot_jax.models import AutoencoderKLConfig, UNet3DConfig
from hotshot_jax.models.activation_memory import (
    decoding_bytes,
    denoising_bytes,
    residual_bytes,
    text_training_bytes,
    training_bytes,
)
from hotshot_jax.models.clip import CLIPTextConfig
from hotshot_jax.models.layers.attention_choice import Accelerator

MODELS = Path(__file__).parents[1] / "golden" / "models"
GIB = 2**30


def config(name: str, kind: Any) -> Any:
    return kind.from_dict(json.loads((MODELS / f"{name}.config.json").read_text()))


@pytest.fixture
def unet() -> UNet3DConfig:
    return config("hotshot_xl_full.unet", UNet3DConfig)


def test_skips_are_counted_one_by_one(unet: UNet3DConfig) -> None:
    skips = 3 * 320 * 64**2 + (320 + 2 * 640) * 32**2 + (640 + 2 * 1280) * 16**2
    assert residual_bytes(unet, (2, 8, 64, 64, 4), jnp.bfloat16) == 16 * 2 * skips


@pytest.mark.parametrize(
    ("found", "compiled"),
    [
        # `compile_for v5e-8 --mesh frames=8`: two images on a device.
        (lambda unet, _: denoising_bytes(unet, (2, 1, 64, 64, 4), jnp.bfloat16, TPU), 0.16),
        # `compile_for v5e-8 --task decode`: one frame of 512 x 512 on a device, weights left out.
        (lambda _, vae: decoding_bytes(vae, 1, 512, 512), 0.77),
    ],
)
def test_sampling_is_within_a_factor_of_two(
    unet: UNet3DConfig, found: Any, compiled: float
) -> None:
    vae = config("sdxl_full.vae", AutoencoderKLConfig)
    assert 0.5 < found(unet, vae) / GIB / compiled < 2


def test_the_less_is_kept_the_less_training_needs(unet: UNet3DConfig) -> None:
    needed = [
        training_bytes(unet, (1, 8, 64, 64, 4), jnp.bfloat16, TPU, name)
        for name in ("none", "dots", "blocks", "full")
    ]
    assert needed == sorted(needed, reverse=True)
    assert len(set(needed)) == 4


@pytest.mark.parametrize(
    ("rematerialisation", "compiled"), [("none", 340.7), ("dots", 132.9), ("blocks", 37.7)]
)
def test_training_a_text_encoder_is_within_a_factor_of_two(
    rematerialisation: str, compiled: float
) -> None:
    """XLA's own account on a CPU of a prompt more, in 10^6 bytes: float32, the second encoder."""
    second = CLIPTextConfig(1280, 5120, 32, 20, hidden_act="gelu")
    found = text_training_bytes(second, 1, jnp.float32, rematerialisation)
    assert 0.5 < found / 1e6 / compiled < 2


def test_kernels_need_no_memory_for_logits(unet: UNet3DConfig) -> None:
    shape = (2, 8, 64, 64, 4)
    gpu = denoising_bytes(unet, shape, jnp.bfloat16, Accelerator("cuda", 9.0))
    without = denoising_bytes(unet, shape, jnp.float32, Accelerator("cuda", 9.0))
    # Ten heads, 1024 x 1024 logits and their exponentials, for each of 16 images.
    assert without > 16 * 10 * 1024**2 * 2 * 4 > gpu


TPU = Accelerator("tpu")
