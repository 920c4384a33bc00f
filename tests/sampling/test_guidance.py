"""Classifier-free guidance against PyTorch."""

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import rescale_noise_cfg

from hotshot_jax.sampling.guidance import (
    ClassifierFreeGuidance,
    classifier_free_guidance,
    rescale_guidance,
)
from hotshot_jax.sampling.predict import StepInput
from hotshot_jax.sampling.request import Request


def _predictions(seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    shape = (2, 3, 4, 5, 4)
    unconditional, conditional = generator.standard_normal((2, *shape), np.float32)
    return unconditional, 3 * conditional + 0.5


@pytest.mark.parametrize("scale", [0.0, 1.0, 7.5])
def test_guidance_moves_along_the_difference(scale: float) -> None:
    unconditional, conditional = _predictions(0)
    guided = classifier_free_guidance(
        jnp.asarray(unconditional), jnp.asarray(conditional), jnp.float32(scale)
    )
    expected = unconditional + scale * (conditional - unconditional)
    np.testing.assert_allclose(guided, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0])
def test_rescaling_equals_diffusers(factor: float) -> None:
    guided, conditional = _predictions(1)
    ours = rescale_guidance(jnp.asarray(guided), jnp.asarray(conditional), jnp.float32(factor))
    theirs = rescale_noise_cfg(
        torch.from_numpy(guided), torch.from_numpy(conditional), guidance_rescale=factor
    )
    # float32: a few roundings of the sums behind the deviations.
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("scale", [5.0, {0: 5.0, 3: 7.5}])
def test_without_contrast_correction_none_is_compiled(scale: Any) -> None:
    request = Request(
        height=64,
        width=64,
        video_length=4,
        num_inference_steps=2,
        guidance_scale=scale,
        guidance_rescale=0.0,
        original_size=(64, 64),
        crops_coords_top_left=(0, 0),
        target_size=(64, 64),
        eta=0.0,
        clip_skip=0,
        denoising_end=None,
    )
    guidance = ClassifierFreeGuidance.of(request)
    corrected = dataclasses.replace(guidance, rescale=jnp.float32(0.0))
    numbers = np.random.default_rng(0)
    halves = [jnp.asarray(numbers.standard_normal((1, 4, 8, 8, 4), np.float32)) for _ in range(2)]

    def guide(guidance: ClassifierFreeGuidance, *halves: jax.Array) -> jax.Array:
        return guidance(*halves, cast(StepInput, None))

    programs = [jax.jit(guide).lower(each, *halves) for each in (guidance, corrected)]
    assert ["stablehlo.case" in each.as_text() for each in programs] == [False, True]
    ours, theirs = (guide(each, *halves) for each in (guidance, corrected))
    np.testing.assert_array_equal(ours, theirs)
