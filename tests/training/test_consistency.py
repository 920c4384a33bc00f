"""Few-step distillation against the formulas of diffusers' script, on PyTorch's models."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from safetensors.numpy import load_file

from hotshot_jax.convert.prepare import open_checkpoint, prepare_component
from hotshot_jax.convert.tensors.rules import TEMPORAL, flat_parameters
from hotshot_jax.errors import HotshotError
from hotshot_jax.schedulers import make_scheduler
from hotshot_jax.training.consistency import (
    ConsistencyConfig,
    ConsistencyDraws,
    consistency_loss,
    draw_consistency,
)
from hotshot_jax.training.trainees.lora import LORA_FILE, LoraTrainee
from hotshot_jax.training.trainees.trainee import export
from tests.training.batches import random_batch
from tests.training.conftest import Run

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
DRAWS = ConsistencyDraws(
    jnp.asarray(np.random.default_rng(1).standard_normal((3, 1, 4, 4, 4), np.float32)),
    # The least noisy step, which ends at timestep 0, one between, and the noisiest.
    jnp.asarray([0, 7, 19]),
    jnp.asarray([3.0, 8.5, 15.0]),
)


@pytest.fixture(scope="module")
def unet(tiny_checkpoint: Path) -> Any:
    return prepare_component(open_checkpoint(tiny_checkpoint).unet, dtype=jnp.float32).load()


@pytest.fixture(scope="module")
def batch(unet: Any) -> dict[str, Any]:
    return random_batch(unet, samples=3) | {
        "latents": jnp.asarray(
            np.random.default_rng(0).standard_normal((3, 1, 4, 4, 4), np.float32)
        )
    }


@pytest.fixture(scope="module")
def factors(unet: Any) -> tuple[LoraTrainee, dict[str, Any], dict[str, Any]]:
    """Of all layers, none of them zero; the frozen rest."""
    lora = LoraTrainee.of(unet, "both", 3, "all")
    trained, frozen = lora.start(flat_parameters(unet), 0)
    generator = np.random.default_rng(1)
    drawn = {k: 0.1 * generator.standard_normal(v.shape, np.float32) for k, v in trained.items()}
    return lora, drawn, frozen


@pytest.fixture(scope="module")
def torch_unet(
    factors: Any, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """diffusers' UNet, which reads the exported factors of everything but temporal layers."""
    lora, trained, _ = factors
    folder = tmp_path_factory.mktemp("lora")
    export(folder / "export", folder, None, lora, trained)
    config = json.loads((tiny_checkpoint / "unet" / "config.json").read_text().replace("3D", "2D"))
    model = UNet2DConditionModel.from_config(config)
    tensors = load_file(tiny_checkpoint / WEIGHTS)
    model.load_state_dict({n: torch.tensor(t) for n, t in tensors.items() if TEMPORAL not in n})
    loras = {
        name: torch.tensor(tensor)
        for name, tensor in load_file(folder / "export" / LORA_FILE).items()
        if TEMPORAL not in name
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.load_lora_adapter(loras, prefix="unet")
    adapted = {n.split(".lora_")[0] for n, _ in model.named_modules() if n.endswith("lora_A")}
    assert len(adapted) == len(loras) // 2
    return model.eval()


def torch_loss(model: Any, batch: Any, config: ConsistencyConfig, prediction_type: str) -> float:
    """Algorithm 1 of the paper with a LoRA for a student."""
    alphas = DDPMScheduler(prediction_type=prediction_type, **SCHEDULE).alphas_cumprod
    stride = 1000 // config.num_ddim_timesteps
    index, strength, noise, latents = (
        torch.tensor(np.asarray(x)).long() if x.dtype == np.int32 else torch.tensor(np.asarray(x))
        for x in (DRAWS.index, DRAWS.guidance, DRAWS.noise[:, 0], batch["latents"][:, 0])
    )
    start = (index + 1) * stride - 1
    end = (start - stride).clamp(min=0)
    text = {k: torch.tensor(np.asarray(v)) for k, v in batch.items()}

    def wide(x: torch.Tensor) -> torch.Tensor:
        return x[:, None, None, None]

    def output(x: torch.Tensor, t: torch.Tensor, prefix: str = "") -> torch.Tensor:
        conditions = {
            "text_embeds": text[f"{prefix}pooled"].expand(3, -1), "time_ids": text["time_ids"]
        }  # fmt: skip
        hidden = text[f"{prefix}hidden"].expand(3, -1, -1)
        return (
            model(x.permute(0, 3, 1, 2), t, hidden, added_cond_kwargs=conditions)
            .sample.permute(0, 2, 3, 1)
        )  # fmt: skip

    def clean_and_noise(m: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> Any:
        alpha, sigma = wide(alphas[t].sqrt()), wide((1 - alphas[t]).sqrt())
        if prediction_type == "epsilon":
            return (x - sigma * m) / alpha, m
        return alpha * x - sigma * m, alpha * m + sigma * x

    def jump(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        scaled = wide(t * config.timestep_scaling_factor)
        skip, out = 0.25 / (scaled**2 + 0.25), scaled / (scaled**2 + 0.25).sqrt()
        return skip * x + out * clean_and_noise(output(x, t), x, t)[0]

    with torch.no_grad():
        noisy = wide(alphas[start].sqrt()) * latents + wide((1 - alphas[start]).sqrt()) * noise
        found = jump(noisy, start)
        model.disable_adapters()
        given, without = (
            clean_and_noise(output(noisy, start, prefix), noisy, start) for prefix in ("", "empty_")
        )
        model.enable_adapters()
        clean, direction = (
            a + wide(strength) * (a - b) for a, b in zip(given, without, strict=True)
        )
        # The step before the first ends at the first training timestep.
        after = wide(torch.where(index == 0, alphas[0], alphas[(start - stride).clamp(min=0)]))
        following = after.sqrt() * clean + (1 - after).sqrt() * direction
        error = found - jump(following, end)
    if config.loss == "huber":
        return float(((error**2 + config.huber_c**2).sqrt() - config.huber_c).mean())
    return float((error**2).mean())


def widths() -> Any:
    """Of a UNet of which widths alone are asked."""
    return mock.Mock(
        config=mock.Mock(
            projection_class_embeddings_input_dim=56, addition_time_embed_dim=8,
            cross_attention_dim=24,
        )
    )  # fmt: skip


def loss_of(unet: Any, factors: Any, batch: Any, config: Any, prediction_type: str) -> Any:
    lora, trained, frozen = factors
    scheduler = make_scheduler("DDPMScheduler", {**SCHEDULE, "prediction_type": prediction_type})

    def loss(student: Any, target: Any) -> Any:
        return consistency_loss(
            lora.merge(student, frozen), lora.without_factors(frozen), lora.merge(target, frozen),
            scheduler, config, batch["latents"], batch, DRAWS,
        )  # fmt: skip

    return jax.jit(loss), trained


@pytest.mark.parametrize(
    ("prediction_type", "options"),
    [
        ("v_prediction", {"loss": "huber", "huber_c": 0.01, "timestep_scaling_factor": 0.02}),
        ("epsilon", {"loss": "mse"}),
    ],
)
def test_the_loss_is_that_of_the_formulas(
    unet: Any, factors: Any, torch_unet: Any, batch: Any, prediction_type: str, options: Any
) -> None:
    config = ConsistencyConfig(num_ddim_timesteps=20, **options)
    loss, trained = loss_of(unet, factors, batch, config, prediction_type)
    with jax.default_matmul_precision("highest"):
        found, parts = loss(trained, trained)
    wanted = torch_loss(torch_unet, batch, config, prediction_type)
    assert float(found) == pytest.approx(wanted, rel=1e-4)
    assert wanted > 0.01
    # Timesteps 49, 399 and 999.
    np.testing.assert_array_equal(parts["quarter_counts"], [1, 1, 0, 1])
    assert parts["quarter_sums"].sum() / 3 == pytest.approx(float(found), rel=1e-5)


def test_only_the_student_has_a_gradient_and_clips_pass_through_temporal_layers() -> None:
    seen = []

    def model(weight: Any) -> Any:
        def call(x: Any, timesteps: Any, hidden: Any, *_: Any, enable_temporal_attentions: bool):
            seen.append((len(x), enable_temporal_attentions))
            return weight * x + hidden.mean((1, 2))[:, None, None, None, None]

        return call

    batch = random_batch(widths(), samples=3)
    latents = jnp.ones((3, 2, 4, 4, 4))
    draws = ConsistencyDraws(latents, DRAWS.index, DRAWS.guidance)
    scheduler = make_scheduler("DDPMScheduler", {**SCHEDULE, "prediction_type": "v_prediction"})

    def loss(*weights: Any) -> Any:
        config = ConsistencyConfig(num_ddim_timesteps=20)
        return consistency_loss(*map(model, weights), scheduler, config, latents, batch, draws)[0]

    gradients = jax.grad(loss, argnums=(0, 2))(0.3, 0.2, 0.1)
    assert abs(gradients[0]) > 0.1 and gradients[1] == 0
    assert seen == [(3, True), (6, True), (3, True)]


def test_draws_keep_to_their_ranges() -> None:
    config = ConsistencyConfig(w_min=2.0, w_max=5.0, num_ddim_timesteps=4)
    draws = draw_consistency(jax.random.key(0), (400, 1, 2, 2, 1), config)
    assert set(np.asarray(draws.index).tolist()) == {0, 1, 2, 3}
    assert 2 <= draws.guidance.min() < 2.1 and 4.9 < draws.guidance.max() <= 5
    assert abs(float(draws.noise.std()) - 1) < 0.05
    fixed = draw_consistency(
        jax.random.key(0), (9, 1, 1, 1, 1), ConsistencyConfig(w_min=4.0, w_max=4.0)
    )
    np.testing.assert_array_equal(fixed.guidance, 4.0)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"rescale_betas_zero_snr": True}, "no signal at its last timestep"),
        ({"num_train_timesteps": 40}, "num_ddim_timesteps` is 50, and the noise schedule has 40"),
    ],
)
def test_schedules_that_cannot_be_distilled_are_refused(
    unet: Any, batch: Any, option: Any, message: str
) -> None:
    options = {**SCHEDULE, **option}
    with pytest.raises(HotshotError, match=message):
        consistency_loss(
            unet, unet, unet, make_scheduler("DDPMScheduler", options), ConsistencyConfig(),
            batch["latents"], batch, DRAWS,
        )  # fmt: skip


@pytest.mark.slow
def test_a_run_resumes_with_the_same_bits_and_is_watched_in_four_steps(
    train: Callable[..., Run], clips: Path, tmp_path: Path
) -> None:
    given: list[Any] = ["--train", "lcm", "--lora_rank", 2, "--num_ddim_timesteps", 10]
    given += ["--loss_type", "huber", "--ema_decay", 0.5, "--lcm_target", "ema"]
    given += ["--gradient_accumulation_steps", 2, "--text_dropout", 0.3, "--validation_data", clips]
    given += ["--validate_every_steps", 2, "--test_prompts", "a red ball", "--remat", "blocks"]
    whole = train(*given, "--output_dir", tmp_path / "whole")
    assert whole.status == 0, whole.stderr
    assert len(list((whole.output / "validation").rglob("*.gif"))) == 2
    assert "failed" not in whole.stderr
    train(*given, "--output_dir", tmp_path / "parts", "--max_train_steps", 2)
    resumed = train(*given, "--output_dir", tmp_path / "parts")
    assert "going on from step 2 " in resumed.stderr
    assert resumed.losses == whole.losses
    files = [load_file(run.output / "export" / LORA_FILE) for run in (whole, resumed)]
    for name, tensor in files[0].items():
        np.testing.assert_array_equal(tensor, files[1][name])
    other = train(*given, "--output_dir", tmp_path / "parts", "--lora_layers", "attention")
    assert other.status == 1 and "lora_layers was all and is attention" in other.stderr
