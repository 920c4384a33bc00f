"""A ControlNet beside a frozen UNet: its start, its control frames, and what is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import ControlNetModel
from safetensors.numpy import load_file

from hotshot_jax.conditioning.control.preprocess import canny_edges
from hotshot_jax.convert.prepare import open_checkpoint, prepare_component
from hotshot_jax.convert.tensors.rules import flat_parameters
from hotshot_jax.data.batch import ClipRequest, decode_frames
from hotshot_jax.data.open_data import open_data
from hotshot_jax.schedulers import make_scheduler
from hotshot_jax.training.feeding.feed import ControlFrames
from hotshot_jax.training.rematerialisation import rematerialise
from hotshot_jax.training.running.step import StepConfig, Trainer
from hotshot_jax.training.trainees.controlnet import ControlNetTrainee
from hotshot_jax.training.trainees.trainee import export
from tests.training.batches import random_batch
from tests.training.conftest import Run

OUTPUTS = ("controlnet_down_blocks", "controlnet_mid_block")


@pytest.fixture(scope="module")
def unet(tiny_checkpoint: Path) -> Any:
    return prepare_component(open_checkpoint(tiny_checkpoint).unet, dtype=jnp.float32).load()


@pytest.fixture(scope="module")
def trainee(unet: Any) -> ControlNetTrainee:
    return ControlNetTrainee.of(unet)


@pytest.fixture(scope="module")
def started(unet: Any, trainee: ControlNetTrainee) -> tuple[dict[str, Any], dict[str, Any]]:
    return trainee.start(flat_parameters(unet), 3)


def batch(unet: Any) -> dict[str, jax.Array]:
    control = np.random.default_rng(1).integers(0, 2, (1, 2, 16, 16, 3)).astype(np.uint8) * 255
    return random_batch(unet) | {"control": jnp.asarray(control)}


def test_it_starts_as_the_unet_s_way_down_with_outputs_of_zero(
    unet: Any, trainee: ControlNetTrainee, started: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    trained, frozen = started
    assert set(frozen) == set(trainee.unet.paths)
    for name, leaf in trained.items():
        first = name.split("/")[0]
        if first in OUTPUTS or "conv_out" in name:
            assert not np.any(leaf), name
        elif first != "controlnet_cond_embedding":
            np.testing.assert_array_equal(leaf, frozen[name])
        elif name.endswith("kernel"):
            assert np.any(leaf), name
    again, _ = trainee.start(flat_parameters(unet), 3)
    other, _ = trainee.start(flat_parameters(unet), 4)
    name = "controlnet_cond_embedding/conv_in/kernel"
    np.testing.assert_array_equal(trained[name], again[name])
    assert not np.array_equal(trained[name], other[name])


def test_at_first_it_changes_nothing_and_then_it_does(
    unet: Any, trainee: ControlNetTrainee, started: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    trained, frozen = started
    given = batch(unet)

    @jax.jit
    def both(trained: Any, frozen: Any, x: Any) -> tuple[jax.Array, jax.Array]:
        model = trainee.merge(trained, frozen)
        arguments = (x["mean"], jnp.float32(500), x["hidden"], x["pooled"], x["time_ids"])
        return model(*arguments, x["control"]), model.unet(*arguments)

    controlled, alone = both(trained, frozen, given)
    # Two of the same computations, but for zeros added: bits differ where they are fused apart.
    np.testing.assert_allclose(controlled, alone, atol=1e-6)
    noise = np.random.default_rng(0)
    moved = {n: x + 0.1 * noise.standard_normal(x.shape, np.float32) for n, x in trained.items()}
    controlled, alone = both(moved, frozen, given)
    assert np.abs(controlled - alone).max() > 0.01


def test_all_of_it_trains_and_nothing_else(
    unet: Any, trainee: ControlNetTrainee, started: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    trained, frozen = jax.tree.map(jnp.asarray, started)
    schedule = lambda count: jnp.float32(1e-3)  # noqa: E731 - a schedule is a function
    trainer = Trainer(trainee, make_scheduler("DDPMScheduler", {}), StepConfig(), schedule)
    state = trainer.init(trained, 0)
    moments = [leaf for leaf in jax.tree.leaves(state.optimizer) if leaf.ndim]
    assert sum(x.size for x in moments) == 2 * sum(x.size for x in trained.values())
    shapes = jax.eval_shape(
        lambda *given: trainer.step(*given, last=True)[0], state, frozen, batch(unet), jnp.int32(0)
    )
    assert jax.tree.structure(shapes) == jax.tree.structure(state)


def test_less_can_be_kept_of_both_models(
    trainee: ControlNetTrainee, started: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    model = trainee.merge(*started)
    rematerialise(model, "blocks")
    for part in (model.unet, model.controlnet):
        assert type(part.mid_block.resnets[0]).__name__ == "Recomputed"
        assert type(part.down_blocks[1].attentions[0]).__name__ == "Recomputed"
    assert type(model.unet.up_blocks[0].resnets[0]).__name__ == "Recomputed"


def test_control_frames_are_the_edges_of_the_frames_that_are_trained_on() -> None:
    source = open_data("shapes:train?length=4&seed=2&size=64", 8).source
    request = ClipRequest(source[1], range(2, 6), (48, 32))
    arrays = ControlFrames(canny_edges)(request)
    frames = np.stack(decode_frames(request)["frames"])
    np.testing.assert_array_equal(np.stack(arrays["frames"]), frames)
    np.testing.assert_array_equal(arrays["control"], canny_edges(frames))
    control = np.asarray(arrays["control"])
    assert control.shape == (4, 32, 48, 3) and control.any(axis=(1, 2, 3)).all()
    # With cached latents only the control frames are new.
    cached = ControlFrames(canny_edges, lambda request: {"mean": np.zeros(1)})(request)
    assert set(cached) == {"mean", "control"}
    np.testing.assert_array_equal(cached["control"], control)


def test_the_exported_folder_loads_in_diffusers(
    trainee: ControlNetTrainee, started: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path
) -> None:
    trained, _ = started
    export(tmp_path / "export", tmp_path, None, trainee, trained)
    model = ControlNetModel.from_pretrained(tmp_path / "export")
    stored = load_file(tmp_path / "export" / "diffusion_pytorch_model.safetensors")
    tensors = model.state_dict()
    assert set(tensors) == set(stored)
    for name, tensor in tensors.items():
        assert torch.equal(tensor, torch.tensor(stored[name])), name
    assert model.config.conditioning_embedding_out_channels == [4, 8, 16, 32]


@pytest.mark.slow
def test_the_loss_falls_on_one_sample(
    unet: Any, trainee: ControlNetTrainee, started: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    trained, frozen = jax.tree.map(jnp.asarray, started)
    schedule = lambda count: jnp.float32(3e-3)  # noqa: E731 - a schedule is a function
    trainer = Trainer(trainee, make_scheduler("DDPMScheduler", {}), StepConfig(), schedule)
    arrays, key = batch(unet), jax.random.key(0)

    @jax.jit
    def step(state: Any) -> Any:
        # Always the same noise and timestep: over several, random weights tell little.
        gradient = jax.value_and_grad(lambda trained: trainer.loss(trained, frozen, arrays, key)[0])
        loss, gradients = gradient(state.trained)
        return trainer.apply(state, gradients, {"loss": loss})

    state = trainer.init(trained, 0)
    losses = []
    for _ in range(60):
        state, metrics = step(state)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.3 * losses[0], losses


@pytest.mark.slow
def test_from_flags_with_cached_latents_to_a_gif(
    train: Callable[..., Run], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    from hotshot_jax.cli.infer.command import main

    # At a higher rate Adam turns gradients of round-off size into whole steps.
    given: list[Any] = ["--train", "controlnet", "--learning_rate", "1e-9"]
    given += ["--canny_high_threshold", 150, "--data_dir", "shapes:train?length=6&size=16"]
    shown = ["--validate_every_steps", 2, "--test_prompts", "a red circle|a blue star"]
    shown += ["--validation_steps", 1]
    whole = train(*given, *shown, "--output_dir", tmp_path / "whole")
    assert whole.status == 0, whole.stderr
    clips = sorted(path.name for path in (whole.output / "validation" / "step-0000004").iterdir())
    assert clips == [
        "00-a-red-circle.gif",
        "00-control.gif",
        "01-a-blue-star.gif",
        "01-control.gif",
    ]
    assert "failed" not in whole.stderr

    cached = ["--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "parts"]
    train(*given, *cached, "--max_train_steps", 2)
    resumed = train(*given, *cached)
    assert "going on from step 2 " in resumed.stderr
    expected = [loss for _, loss, _ in whole.losses]
    # The VAE encodes one clip at a time for the cache: float32 sums in another order.
    assert [loss for _, loss, _ in resumed.losses] == pytest.approx(expected, rel=1e-5)
    other = train(*given, *cached, "--canny_high_threshold", 170)
    assert other.status == 1 and "canny_high_threshold was 150.0 and is 170.0" in other.stderr

    status = main(
        [
            "--pretrained_path", str(tiny_checkpoint), "--prompt", "a red circle", "--steps", "1",
            "--compilation_cache", str(tmp_path / "compiled"),
            "--width", "16", "--height", "16", "--video_length", "4",
            "--controlnet", str(whole.output / "export"), "--control_type", "canny",
            "--gif", str(whole.output / "validation" / "step-0000004" / clips[0]),
            "--output", str(tmp_path / "a.gif"),
        ]
    )  # fmt: skip
    assert status == 0 and (tmp_path / "a.gif").exists()
