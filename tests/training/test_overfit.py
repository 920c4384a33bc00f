"""Loss, gradients and optimiser together: what they are given again and again is learned."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from hotshot_jax.builtin import builtin_checkpoint
from hotshot_jax.cli.train.command import main
from hotshot_jax.convert.builders import model_builder
from hotshot_jax.data.shapes import ShapesSource
from hotshot_jax.schedulers import make_scheduler
from hotshot_jax.training.loss import LossConfig, draw
from hotshot_jax.training.optimizer import OptimizerConfig
from hotshot_jax.training.running.step import StepConfig, Trainer
from hotshot_jax.training.trainees.trainee import Division
from tests.tiny_checkpoint import tiny_configs

STEPS = 250
DRAWS = 4


@pytest.mark.slow
def test_one_sample_overfits_where_noise_and_timesteps_stay_the_same() -> None:
    build = model_builder("unet", tiny_configs()["unet"], where="unet")
    unet = jax.jit(lambda: build(nnx.Rngs(0)))()
    config = StepConfig(
        loss=LossConfig(noise_offset=0.0), optimizer=OptimizerConfig(weight_decay=0.0)
    )
    scheduler = make_scheduler("DDPMScheduler", {})
    trainer = Trainer(
        Division.of(unet, "unet"), scheduler, config, lambda step: 3e-3 * (1 - step / STEPS)
    )
    # One clip and its prompt, with some draws of noise and timestep from all over the schedule.
    generator = np.random.default_rng(0)
    pooled = unet.config.projection_class_embeddings_input_dim
    pooled -= 6 * unet.config.addition_time_embed_dim
    latents, hidden, pooled_text = (
        jnp.repeat(jnp.asarray(generator.standard_normal(shape, np.float32)), DRAWS, 0)
        for shape in [(1, 4, 2, 2, 4), (1, 8, unet.config.cross_attention_dim), (1, pooled)]
    )
    text = {"hidden": hidden, "pooled": pooled_text, "time_ids": jnp.full((DRAWS, 6), 16.0)}
    draws = draw(jax.random.key(0), latents.shape, config.loss, scheduler.num_train_timesteps)
    assert draws.timesteps.min() < 250 and draws.timesteps.max() >= 500
    trained, frozen = trainer.division.split(unet)

    @jax.jit
    def step(state):
        gradient = jax.value_and_grad(trainer.loss_of, has_aux=True)
        (loss, metrics), gradients = gradient(state.trained, frozen, latents, text, draws)
        return trainer.apply(state, gradients, {"loss": loss, **metrics})

    state = trainer.init(trained, 0)
    losses = []
    for _ in range(STEPS):
        state, metrics = step(state)
        losses.append(float(metrics["loss"]))
    assert losses[0] > 0.5
    assert max(losses[-10:]) < 0.01, losses[:: STEPS // 10]


@pytest.mark.slow
def test_one_sample_overfits_with_other_noise_and_timesteps_in_each_step(tmp_path: Path) -> None:
    """The command, on one clip that the built-in model has not seen at this size."""
    sample = ShapesSource(length=1, seed=3, size=64)[0]
    folder = tmp_path / "clips" / "one"
    folder.mkdir(parents=True)
    for number, frame in enumerate(sample["frames"]):
        Image.fromarray(frame).save(folder / f"{number}.png")
    (folder / "prompt.txt").write_text(sample["prompt"])
    output = tmp_path / "out"
    flags = {
        "--pretrained_model_name_or_path": builtin_checkpoint(),
        "--train": "unet",
        "--data_dir": folder.parent,
        "--output_dir": output,
        "--resolution": 64,
        "--train_batch_size": 1,
        "--max_train_steps": 800,
        "--learning_rate": 5e-4,
        "--lr_scheduler": "cosine",
        "--lr_warmup_steps": 50,
        "--noise_offset": 0,
        "--snr_gamma": 5,
        "--report_to": "none",
        "--save_n_steps": 0,
        "--validate_every_steps": 0,
    }
    assert main([str(each) for flag in flags.items() for each in flag]) == 0
    lines = (output / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert len(losses) == 800
    assert np.mean(losses[:20]) > 0.05
    # A single loss depends on how noisy the step happened to be.
    assert np.mean(losses[-100:]) < 0.01
