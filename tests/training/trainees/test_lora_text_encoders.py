"""Factors for the text encoders: what a step makes of them, and the file that they become."""

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from hotshot_jax.conditioning.text.prompt import encode_tokens
from hotshot_jax.convert.prepare import open_checkpoint, prepare_component
from hotshot_jax.convert.tensors.rules import flat_parameters
from hotshot_jax.errors import HotshotError
from hotshot_jax.pipelines.loading import load_components
from hotshot_jax.runtime.precision import Precision
from hotshot_jax.runtime.progress import NoProgress
from hotshot_jax.schedulers import make_scheduler
from hotshot_jax.training.loss import LossConfig, draw
from hotshot_jax.training.running.step import StepConfig, Trainer
from hotshot_jax.training.trainees.lora import LORA_FILE, TEXT_ENCODERS, LoraTrainee
from hotshot_jax.training.trainees.trainee import export
from tests.training.batches import random_batch
from tests.training.conftest import Run
from tests.training.trainees.test_lora import in_diffusers, spatial_unet

RANK = 3
Train = Callable[..., Run]
Arrays = dict[str, Any]
encode = jax.jit(encode_tokens)


@pytest.fixture(scope="module")
def models(tiny_checkpoint: Path) -> dict[str, Any]:
    checkpoint = open_checkpoint(tiny_checkpoint)
    return {
        name: prepare_component(getattr(checkpoint, name), dtype=jnp.float32).load()
        for name in ("unet", *TEXT_ENCODERS)
    }


def trainee(models: dict[str, Any], layers: str = "attention") -> LoraTrainee:
    encoders = {name: models[name] for name in TEXT_ENCODERS}
    return LoraTrainee.of(models["unet"], "spatial", RANK, layers, encoders)


def values(models: dict[str, Any]) -> dict[Any, Any]:
    of_text = {
        (name, *path): leaf
        for name in TEXT_ENCODERS
        for path, leaf in flat_parameters(models[name]).items()
    }
    return {**flat_parameters(models["unet"]), **of_text}


def drawn(lora: LoraTrainee, models: dict[str, Any]) -> tuple[Arrays, Arrays]:
    """Factors as if they had been trained, none of them zero, and the frozen rest."""
    trained, frozen = lora.start(values(models), 0)
    generator = np.random.default_rng(1)
    return {
        name: jnp.asarray(0.2 * generator.standard_normal(leaf.shape, np.float32))
        for name, leaf in trained.items()
    }, frozen


@pytest.fixture(scope="module")
def batch(models: dict[str, Any]) -> Arrays:
    """Two single frames with a text each."""
    arrays: Arrays = random_batch(models["unet"], samples=2, frames=1)
    # Larger than those, so that self-attention has several tokens; and no draw of a deviation, so
    # that PyTorch can be given the same latents.
    generator = np.random.default_rng(2)
    arrays["mean"] = jnp.asarray(generator.standard_normal((2, 1, 4, 4, 4), np.float32))
    arrays["deviation"] = jnp.zeros_like(arrays["mean"])
    for name in ("hidden", "pooled", "empty_hidden", "empty_pooled"):
        del arrays[name]
    return arrays | dict(zip(("ids", "ids_2"), tokens(models), strict=True))


def tokens(models: dict[str, Any], seed: int = 0) -> tuple[jax.Array, jax.Array]:
    """Eight ids of each encoder's own, the end of the text among them."""
    generator = np.random.default_rng(seed)
    rows = []
    for name in TEXT_ENCODERS:
        config = models[name].config
        ids = generator.integers(1, config.vocab_size - 2, (2, 8), np.int32)
        ids[:, 5] = config.vocab_size - 1 if config.eos_token_id == 2 else config.eos_token_id
        rows.append(jnp.asarray(ids))
    return rows[0], rows[1]


def trainer(lora: LoraTrainee, **config: Any) -> Trainer:
    scheduler = make_scheduler("DDPMScheduler", {"beta_schedule": "scaled_linear"})
    return Trainer(lora, scheduler, StepConfig(**config), lambda count: jnp.float32(1e-3))


def test_before_the_first_step_texts_are_what_they_were(models: dict[str, Any]) -> None:
    lora = trainee(models)
    trained, frozen = lora.start(values(models), 7)
    assert set(trained) == lora.trained
    ids = tokens(models)
    expected = encode(*(models[name] for name in TEXT_ENCODERS), *ids)
    found = jax.jit(lambda t, f: encode_tokens(*lora.text_encoders(t, f), *ids))(trained, frozen)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # The UNet's are as they are without the others.
    alone = LoraTrainee.of(models["unet"], "spatial", RANK)
    for name, leaf in alone.start(values(models), 7)[0].items():
        np.testing.assert_array_equal(leaf, trained[name])
    of_text = sorted(lora.trained - alone.trained)
    assert {name.partition("/")[0] for name in of_text} == set(TEXT_ENCODERS)
    # The two encoders do not draw alike.
    first, second = (
        trained[f"{name}/text_model/encoder/layers/self_attn/q_proj/lora_down"].ravel()[:5]
        for name in TEXT_ENCODERS
    )
    assert not np.allclose(first / first[0], second / second[0])


@pytest.mark.parametrize(
    ("layers", "ends"),
    [
        ("attention", {"q_proj", "k_proj", "v_proj", "out_proj"}),
        ("all", {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}),
    ],
)
def test_every_layer_of_both_encoders_has_factors(
    models: dict[str, Any], layers: str, ends: set[str]
) -> None:
    lora = trainee(models, layers)
    factors = lora.factors(lora.start(values(models), 0)[0])
    for name in TEXT_ENCODERS:
        depth = models[name].config.num_hidden_layers
        assert len(factors[name]) == depth * len(ends)
        assert {module.rpartition(".")[2] for module in factors[name]} == ends


@dataclasses.dataclass(frozen=True)
class Torch:
    """diffusers with an exported LoRA loaded."""

    pipeline: Any

    def texts(self, ids: Any, ids_2: Any) -> tuple[torch.Tensor, torch.Tensor]:
        first, second = (
            encoder(torch.tensor(np.asarray(each, np.int64)), output_hidden_states=True)
            for encoder, each in (
                (self.pipeline.text_encoder, ids),
                (self.pipeline.text_encoder_2, ids_2),
            )
        )
        hidden = [each.hidden_states[-2] for each in (first, second)]
        return torch.cat(hidden, -1), second.text_embeds


@pytest.fixture(scope="module", params=["attention", "all"])
def in_torch(
    request: pytest.FixtureRequest,
    models: dict[str, Any],
    tiny_checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[LoraTrainee, Path, Torch]:
    lora = trainee(models, request.param)
    folder = tmp_path_factory.mktemp("exports") / "export"
    export(folder, folder, None, lora, drawn(lora, models)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = in_diffusers(
            spatial_unet(tiny_checkpoint),
            folder / LORA_FILE,
            CLIPTextModel.from_pretrained(tiny_checkpoint / "text_encoder").eval(),
            CLIPTextModelWithProjection.from_pretrained(tiny_checkpoint / "text_encoder_2").eval(),
        )
    return lora, folder, Torch(pipeline)


def test_diffusers_makes_the_same_texts_of_the_file(
    in_torch: tuple[LoraTrainee, Path, Torch], models: dict[str, Any]
) -> None:
    lora, _, pipeline = in_torch
    ids = tokens(models)
    expected = encode(*lora.text_encoders(*drawn(lora, models)), *ids)
    with torch.no_grad():
        found = pipeline.texts(*ids)
    before = encode(*(models[name] for name in TEXT_ENCODERS), *ids)
    for theirs, ours, untrained in zip(found, expected, before, strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-5, rtol=1e-5)
        assert np.abs(ours - untrained).max() > 0.05


@pytest.mark.parametrize("in_torch", ["all"], indirect=True)
def test_gradients_are_those_of_diffusers_and_peft(
    in_torch: tuple[LoraTrainee, Path, Torch], models: dict[str, Any], batch: Arrays
) -> None:
    """Through the UNet into both text encoders."""
    lora, _, pipeline = in_torch
    training = trainer(lora)
    key = jax.random.key(3)
    trained, frozen = drawn(lora, models)
    gradients, _ = jax.jit(jax.grad(training.loss, has_aux=True))(trained, frozen, batch, key)

    noise_key = jax.random.split(key, 3)[1]
    draws = draw(noise_key, batch["mean"].shape, LossConfig(), 1000)
    noisy = training.scheduler.add_noise(batch["mean"], draws.noise, draws.timesteps)
    sample, noise = (_nchw(each) for each in (noisy, draws.noise))
    parameters = {
        name: each.requires_grad_()
        for component in TEXT_ENCODERS
        for name, each in _factors(component, getattr(pipeline.pipeline, component)).items()
    }
    hidden, pooled = pipeline.texts(batch["ids"], batch["ids_2"])
    output = pipeline.pipeline.unet(
        sample,
        torch.tensor(np.asarray(draws.timesteps)),
        encoder_hidden_states=hidden,
        added_cond_kwargs={
            "text_embeds": pooled,
            "time_ids": torch.tensor(np.asarray(batch["time_ids"])),
        },
    ).sample
    torch.nn.functional.mse_loss(output, noise).backward()

    found = {
        f"{component}.{module}.{part}": getattr(each, field)
        for component in TEXT_ENCODERS
        for module, each in lora.encoders[component].factors(gradients).items()
        for part, field in (("lora_A", "down"), ("lora_B", "up"))
    }
    assert found.keys() == parameters.keys()
    # The first encoder is read before its last layer.
    last = models["text_encoder"].config.num_hidden_layers - 1
    unread = f"text_encoder.text_model.encoder.layers.{last}."
    for name, leaf in found.items():
        if name.startswith(unread):
            assert parameters[name].grad is None and not leaf.any()
            continue
        theirs = parameters[name].grad.numpy()
        largest = np.abs(theirs).max()
        assert largest > 0, name
        np.testing.assert_allclose(leaf, theirs, rtol=0, atol=1e-4 * largest, err_msg=name)


def _nchw(frames: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(frames)[:, 0]).permute(0, 3, 1, 2)


def _factors(component: str, module: Any) -> dict[str, torch.Tensor]:
    """PEFT's factors by the names of the file, without its adapter's name."""
    level = "" if hasattr(module, "text_model") else "text_model."
    return {
        f"{component}.{level}{name.replace('.default_0.weight', '')}": each
        for name, each in module.named_parameters()
        if ".lora_" in name
    }


def test_infer_makes_the_same_texts_of_the_file(
    in_torch: tuple[LoraTrainee, Path, Torch], models: dict[str, Any], tiny_checkpoint: Path
) -> None:
    lora, folder, _ = in_torch
    precision = Precision.named("f32", "cpu")
    loaded = load_components(
        str(tiny_checkpoint), precision, loras=[(str(folder), 1.0)], progress=NoProgress()
    )
    ids = tokens(models)
    expected = encode(*lora.text_encoders(*drawn(lora, models)), *ids)
    found = encode(loaded.text_encoder, loaded.text_encoder_2, *ids)
    for theirs, ours in zip(found, expected, strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-5, rtol=1e-5)


def test_a_run_goes_on_with_the_factors_of_a_file(
    in_torch: tuple[LoraTrainee, Path, Torch], models: dict[str, Any]
) -> None:
    lora, folder, _ = in_torch
    trained, _ = drawn(lora, models)
    again, _ = lora.starting_from(folder).start(values(models), 5)
    for name, leaf in trained.items():
        np.testing.assert_array_equal(again[name], leaf)
    with pytest.raises(HotshotError, match="trained further with `train_text_encoder`"):
        LoraTrainee.of(models["unet"], "spatial", RANK, "all").starting_from(folder)


@pytest.mark.parametrize("zeros", [True, False])
def test_what_is_dropped_is_the_empty_text_of_the_trained_encoders(
    models: dict[str, Any], batch: Arrays, zeros: bool
) -> None:
    lora = trainee(models)
    trained, frozen = drawn(lora, models)
    empty = dict(zip(("empty_ids", "empty_ids_2"), (x[:1] for x in tokens(models, 9)), strict=True))
    given = batch if zeros else batch | empty
    training = trainer(lora, text_dropout=1.0)
    with_text = jax.jit(training._with_text)(trained, frozen, given)
    dropped = training._drop_text(with_text, jax.random.key(0))
    expected = [jnp.zeros_like(with_text[name][:1]) for name in ("hidden", "pooled")]
    if not zeros:
        expected = list(encode(*lora.text_encoders(trained, frozen), *empty.values()))
    for name, wanted in zip(("hidden", "pooled"), expected, strict=True):
        np.testing.assert_allclose(
            dropped[name], np.broadcast_to(wanted, dropped[name].shape), atol=1e-6
        )


def test_rematerialisation_changes_no_gradient(models: dict[str, Any], batch: Arrays) -> None:
    lora = trainee(models)
    trained, frozen = drawn(lora, models)

    def gradients(name: str) -> Arrays:
        def total(trained: Arrays) -> jax.Array:
            texts = trainer(lora, rematerialisation=name)._with_text(trained, frozen, batch)
            return jnp.sum(jnp.sin(texts["hidden"])) + jnp.sum(jnp.sin(texts["pooled"]))

        traced = jax.jit(jax.grad(total)).trace(trained)
        assert ("remat" in str(traced.jaxpr)) == (name != "none")
        return traced.lower().compile()(trained)

    kept = gradients("none")
    for name in ("dots", "full"):
        for path, leaf in gradients(name).items():
            np.testing.assert_allclose(leaf, kept[path], rtol=1e-4, atol=1e-5, err_msg=path)


def test_clips_are_made_with_the_trained_encoders(models: dict[str, Any]) -> None:
    lora = trainee(models)
    trained, frozen = drawn(lora, models)
    shown = lora.components(trained, frozen)
    assert set(shown) == {"unet", *TEXT_ENCODERS}
    for name, expected in zip(TEXT_ENCODERS, lora.text_encoders(trained, frozen), strict=True):
        leaves = flat_parameters(expected)
        for path, leaf in flat_parameters(shown[name]).items():
            np.testing.assert_array_equal(leaf, leaves[path])
    alone = LoraTrainee.of(models["unet"], "spatial", RANK)
    assert set(alone.components(*drawn(alone, models))) == {"unet"}


@pytest.mark.slow
def test_a_run_with_all_that_changes_a_step_resumes_and_is_loaded_by_infer(
    train: Train, tiny_checkpoint: Path, clips: Path, tmp_path: Path
) -> None:
    from hotshot_jax.cli.infer.command import main

    given: list[Any] = ["--train", "lora", "--train_text_encoder", "--lora_rank", RANK]
    given += ["--ema_decay", 0.5, "--text_dropout", 0.5, "--gradient_accumulation_steps", 2]
    given += ["--remat", "blocks", "--shuffle_tags", "--mixed_precision", "bf16"]
    shown = ["--test_prompts", "a red circle", "--validation_steps", 1]
    shown += ["--validate_every_steps", 4, "--validation_data", clips]
    whole = train(*given, *shown, "--output_dir", tmp_path / "whole")
    assert whole.status == 0, whole.stderr
    assert "failed" not in whole.stderr and "activations of text encoders" in whole.stderr
    assert [m["step"] for m in whole.metrics if "loss_held_out" in m] == [4]
    train(*given, "--output_dir", tmp_path / "parts", "--max_train_steps", 2)
    resumed = train(*given, "--output_dir", tmp_path / "parts")
    assert "going on from step 2 " in resumed.stderr
    assert resumed.losses == whole.losses
    files = [load_file(run.output / "export" / LORA_FILE) for run in (whole, resumed)]
    for name, tensor in files[0].items():
        np.testing.assert_array_equal(tensor, files[1][name])
    ups = {name: x for name, x in files[0].items() if name.endswith("lora_B.weight")}
    # The last layer of the first encoder is not read.
    learned = {name.partition(".")[0] for name, up in ups.items() if up.any()}
    assert learned == {"unet", *TEXT_ENCODERS}
    other = train(*given[:2], *given[3:], "--output_dir", tmp_path / "parts")
    assert other.status == 1 and "train_text_encoder was True and is False" in other.stderr
    clip = [
        "--pretrained_path", str(tiny_checkpoint), "--prompt", "a red circle", "--steps", "1",
        "--compilation_cache", str(tmp_path / "compiled"), "--width", "16", "--height", "16",
        "--video_length", "2", "--lora", str(whole.output / "export"), "--json",
        "--output", str(tmp_path / "a.gif"),
    ]  # fmt: skip
    assert main(clip) == 0 and (tmp_path / "a.gif").exists()
