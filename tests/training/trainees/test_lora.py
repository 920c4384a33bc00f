"""Factors beside a frozen UNet: what trains, and the file that they become."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from jax.sharding import AbstractMesh
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.numpy import load_file

from hotshot_jax.convert.load import Match, read_parameters, with_parameters
from hotshot_jax.convert.prepare import module_source, open_checkpoint, prepare_component
from hotshot_jax.convert.tensors.rules import TEMPORAL, flat_parameters, torch_slots
from hotshot_jax.errors import UsageError
from hotshot_jax.lora import ModuleNames, changed_paths, merged_source, open_lora
from hotshot_jax.parallel.mesh import AXES
from hotshot_jax.schedulers import make_scheduler
from hotshot_jax.training.running.step import StepConfig, Trainer
from hotshot_jax.training.trainees.lora import LORA_FILE, LoraTrainee
from hotshot_jax.training.trainees.trainee import export
from tests.training.conftest import Run

RANK = 3
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
Predict = Callable[[Any], np.ndarray]


@pytest.fixture(scope="module")
def unet(tiny_checkpoint: Path) -> Any:
    return prepare_component(open_checkpoint(tiny_checkpoint).unet, dtype=jnp.float32).load()


@pytest.fixture(scope="module")
def inputs(unet: Any) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(5)
    config = unet.config
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    shapes = {"sample": (1, 1, 4, 4, 4), "hidden": (1, 7, config.cross_attention_dim)}
    shapes["pooled"] = (1, pooled)
    arrays = {k: generator.standard_normal(s, np.float32) for k, s in shapes.items()}
    return arrays | {"time_ids": np.full((1, 6), 16, np.float32)}


@pytest.fixture(scope="module")
def predict(inputs: dict[str, np.ndarray]) -> Predict:
    """One frame through all layers, the temporal ones among them."""
    program = jax.jit(
        lambda unet, x: unet(x["sample"], jnp.float32(500), x["hidden"], x["pooled"], x["time_ids"])
    )
    return lambda unet: np.asarray(program(unet, inputs))


def drawn(lora: LoraTrainee, unet: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Factors as if they had been trained, none of them zero, and the frozen rest."""
    trained, frozen = lora.start(flat_parameters(unet), 0)
    generator = np.random.default_rng(1)
    return {
        name: 0.2 * generator.standard_normal(leaf.shape, np.float32)
        for name, leaf in trained.items()
    }, frozen


@pytest.mark.parametrize("targets", ["spatial", "temporal", "both"])
def test_at_first_nothing_is_changed_and_factors_are_where_they_should(
    unet: Any, targets: str
) -> None:
    lora = LoraTrainee.of(unet, targets, RANK)
    trained, frozen = lora.start(flat_parameters(unet), 7)
    assert set(trained) == lora.trained
    kinds = {("temporal" if TEMPORAL in name else "spatial") for name in trained}
    assert kinds == ({"spatial", "temporal"} if targets == "both" else {targets})
    for stem in lora.unet.stems:
        *stack, inputs, outputs = frozen[f"{stem}/kernel"].shape
        down, up = trained[f"{stem}/lora_down"], trained[f"{stem}/lora_up"]
        assert down.shape == (*stack, inputs, RANK) and up.shape == (*stack, RANK, outputs)
        assert not up.any() and 0 < np.abs(down).max() <= inputs**-0.5
    before, after = flat_parameters(unet), flat_parameters(lora.merge(trained, frozen))
    for path, leaf in before.items():
        np.testing.assert_array_equal(leaf, after[path])
    again, _ = lora.start(flat_parameters(unet), 7)
    other, _ = lora.start(flat_parameters(unet), 8)
    name = f"{lora.unet.stems[0]}/lora_down"
    np.testing.assert_array_equal(trained[name], again[name])
    assert not np.array_equal(trained[name], other[name])


def test_every_projection_of_every_attention_layer_has_factors(unet: Any) -> None:
    lora = LoraTrainee.of(unet, "both", RANK)
    trained, _ = lora.start(flat_parameters(unet), 0)
    wanted = {
        name.removesuffix(".weight")
        for name in torch_slots(unet)
        if name.endswith(("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight"))
    }
    assert set(lora.factors(trained)["unet"]) == wanted


def test_all_layers_are_those_of_diffusers_few_step_loras(unet: Any) -> None:
    lora = LoraTrainee.of(unet, "both", RANK, "all")
    trained, frozen = lora.start(flat_parameters(unet), 0)
    ends = (
        "to_q to_k to_v to_out.0 proj_in proj_out ff.net.0.proj ff.net.2 conv1 conv2 conv_shortcut "
        "downsamplers.0.conv upsamplers.0.conv time_emb_proj"
    ).split()
    slots = torch_slots(unet)
    wanted = {
        name.removesuffix(".weight")
        for name in slots
        if name.removesuffix(".weight").endswith(tuple(f".{end}" for end in ends))
        and name.endswith(".weight")
    }
    factors = lora.unet.factors(trained)
    assert set(factors) == wanted
    for name, each in factors.items():
        outputs, *inputs = slots[f"{name}.weight"].shape
        assert each.down.shape == (RANK, *inputs)
        assert each.up.shape == (outputs, RANK, *[1] * (len(inputs) - 1))
        # PEFT's bound, by all that a kernel takes in.
        assert 0 < np.abs(each.down).max() <= np.prod(inputs) ** -0.5
    before, after = flat_parameters(unet), flat_parameters(lora.merge(trained, frozen))
    for path, leaf in before.items():
        np.testing.assert_array_equal(leaf, after[path])
    assert lora.largest_rank == 64


def test_only_factors_have_gradients_and_moments(unet: Any) -> None:
    lora = LoraTrainee.of(unet, "both", RANK)
    trained, frozen = jax.tree.map(jnp.asarray, lora.start(flat_parameters(unet), 0))
    schedule = lambda count: jnp.float32(1e-3)  # noqa: E731 - a schedule is a function
    trainer = Trainer(lora, make_scheduler("DDPMScheduler", {}), StepConfig(), schedule)
    state = trainer.init(trained, 0)
    moments = [leaf for leaf in jax.tree.leaves(state.optimizer) if leaf.ndim]
    assert sum(leaf.size for leaf in moments) == 2 * sum(leaf.size for leaf in trained.values())
    # Every factor is in the loss: with some in both, no gradient is zero everywhere.
    some, _ = drawn(lora, unet)
    kernels = {f"{stem}/kernel" for stem in lora.unet.stems}

    def total(trained: dict[str, Any]) -> jax.Array:
        parameters = flat_parameters(lora.merge(trained, frozen))
        return sum(jnp.sum(jnp.sin(parameters[lora.unet.model.paths[name]])) for name in kernels)

    gradients = jax.grad(total)(jax.tree.map(jnp.asarray, some))
    assert set(gradients) == lora.trained
    assert all(np.abs(leaf).max() > 0 for leaf in gradients.values())


def test_factors_are_split_as_their_kernels_are(unet: Any) -> None:
    lora = LoraTrainee.of(unet, "both", RANK, "all")
    trained, _ = lora.start(flat_parameters(unet), 0)
    # Two devices along fsdp and two along tensor.
    shardings: Any = lora.shardings(AbstractMesh((1, 2, 1, 2), AXES))  # type: ignore[arg-type]
    assert set(shardings) == set(lora.unet.model.paths) | lora.trained
    for stem in lora.unet.stems:
        *before, outputs = shardings[f"{stem}/kernel"].spec
        down, up = (tuple(shardings[f"{stem}/lora_{part}"].spec) for part in ("down", "up"))
        if stem.rpartition("/")[2].startswith("to_"):
            assert {before[-1], outputs} == {"fsdp", "tensor"}
        assert down == (*before, None)
        assert up == (*[None] * (len(up) - 1), outputs)
        assert len(down) == trained[f"{stem}/lora_down"].ndim
        assert len(up) == trained[f"{stem}/lora_up"].ndim


def test_the_exported_file_gives_what_was_trained(
    unet: Any, predict: Predict, tmp_path: Path
) -> None:
    lora = LoraTrainee.of(unet, "both", RANK, "all")
    trained, frozen = drawn(lora, unet)
    export(tmp_path / "export", tmp_path, None, lora, trained)
    names = ModuleNames({"unet": {name: slot.shape for name, slot in torch_slots(unet).items()}})
    opened = open_lora(tmp_path / "export", names)
    assert not opened.report.unmatched
    parameters = dict(flat_parameters(unet))
    slots, loras = torch_slots(unet), [(opened, 1.0)]
    source = merged_source(module_source(unet, tmp_path), "unet", loras)
    match = Match(unet, slots, {name: name for name in slots})
    changed = changed_paths(slots, "unet", loras)
    merged = read_parameters(match, source, dtype=np.float32, only=changed)
    assert len(merged) == len(lora.unet.stems)
    expected = predict(lora.merge(trained, frozen))
    # float32 sums of three products in another order.
    np.testing.assert_allclose(
        predict(with_parameters(unet, parameters | merged)), expected, atol=1e-5
    )
    assert np.abs(expected - predict(unet)).max() > 0.05


def test_the_file_of_spatial_layers_loads_in_diffusers_and_peft(
    unet: Any,
    inputs: dict[str, np.ndarray],
    predict: Predict,
    tiny_checkpoint: Path,
    tmp_path: Path,
) -> None:
    lora = LoraTrainee.of(unet, "spatial", RANK)
    trained, frozen = drawn(lora, unet)
    export(tmp_path / "export", tmp_path, None, lora, trained)
    # diffusers has no temporal layers: ours are made to add nothing.
    silent = {
        name: np.zeros_like(leaf) if TEMPORAL in name and "proj_out" in name else leaf
        for name, leaf in frozen.items()
    }
    expected = predict(lora.merge(trained, silent))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for load in (_unet_in_diffusers, _in_peft):
            model = load(spatial_unet(tiny_checkpoint), tmp_path / "export" / LORA_FILE)
            found = _run_torch(model, inputs)
            # Some hundred float32 operations one after another.
            np.testing.assert_allclose(found, expected[0], atol=1e-4)


def spatial_unet(checkpoint: Path) -> Any:
    """The UNet of a checkpoint in diffusers, without the temporal layers."""
    config = json.loads((checkpoint / "unet" / "config.json").read_text().replace("3D", "2D"))
    model = UNet2DConditionModel.from_config(config)
    tensors = load_file(checkpoint / WEIGHTS)
    spatial = {n: torch.tensor(t) for n, t in tensors.items() if TEMPORAL not in n}
    model.load_state_dict(spatial, strict=True)
    return model.eval()


def _unet_in_diffusers(model: Any, file: Path) -> Any:
    return in_diffusers(model, file).unet


def in_diffusers(model: Any, file: Path, *encoders: Any) -> Any:
    """diffusers' pipeline with a file loaded, and its text encoders if there are any."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    first, second = encoders or (None, None)
    pipeline = StableDiffusionXLPipeline(
        vae=None, text_encoder=first, text_encoder_2=second, tokenizer=None, tokenizer_2=None,
        unet=model, scheduler=EulerDiscreteScheduler(),
    )  # fmt: skip
    # By the folder: the file has the name that diffusers looks for.
    pipeline.load_lora_weights(str(file.parent))
    return pipeline


def _in_peft(model: Any, file: Path) -> Any:
    tensors = {
        f"base_model.model.{name.removeprefix('unet.')}": torch.tensor(tensor)
        for name, tensor in load_file(file).items()
    }
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    adapted = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=RANK, target_modules=targets))
    result = set_peft_model_state_dict(adapted, tensors)
    assert not result.unexpected_keys
    assert not [key for key in result.missing_keys if "lora" in key]
    return adapted.eval()


def _run_torch(model: Any, inputs: dict[str, np.ndarray]) -> np.ndarray:
    arrays = {name: torch.tensor(array) for name, array in inputs.items()}
    with torch.no_grad():
        output = model(
            arrays["sample"][0].permute(0, 3, 1, 2),
            torch.tensor(500),
            encoder_hidden_states=arrays["hidden"],
            added_cond_kwargs={"text_embeds": arrays["pooled"], "time_ids": arrays["time_ids"]},
        ).sample
    return output.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(
    ("targets", "rank", "message"),
    [("all", 4, "lora_targets` all"), ("both", 0, "lora_rank` is 0")],
)
def test_nonsense_is_refused(unet: Any, targets: str, rank: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LoraTrainee.of(unet, targets, rank)


def test_temporal_factors_need_several_frames(train: Callable[..., Run]) -> None:
    run = train("--train", "lora", "--lora_targets", "temporal", "--video_length", 1)
    assert run.status == 2 and "--lora_targets spatial" in run.stderr


@pytest.mark.slow
def test_a_run_resumes_and_its_file_is_loaded_by_infer(
    train: Callable[..., Run], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    from hotshot_jax.cli.infer.command import main

    given: list[Any] = ["--train", "lora", "--lora_targets", "both", "--lora_rank", RANK]
    given += ["--ema_decay", 0.5]
    whole = train(*given, "--output_dir", tmp_path / "whole")
    assert whole.status == 0, whole.stderr
    train(*given, "--output_dir", tmp_path / "parts", "--max_train_steps", 2)
    resumed = train(*given, "--output_dir", tmp_path / "parts")
    assert "going on from step 2 " in resumed.stderr
    assert resumed.losses == whole.losses
    files = [load_file(run.output / "export" / LORA_FILE) for run in (whole, resumed)]
    for name, tensor in files[0].items():
        np.testing.assert_array_equal(tensor, files[1][name])
    other = train(*given[:-2], "--output_dir", tmp_path / "parts", "--lora_rank", 4)
    assert other.status == 1 and "lora_rank was 3 and is 4" in other.stderr
    status = main(
        [
            "--pretrained_path", str(tiny_checkpoint), "--prompt", "a red circle", "--steps", "1",
            "--compilation_cache", str(tmp_path / "compiled"),
            "--width", "16", "--height", "16", "--video_length", "2",
            "--lora", f"{whole.output / 'export'}:0.8", "--output", str(tmp_path / "a.gif"),
        ]
    )  # fmt: skip
    assert status == 0 and (tmp_path / "a.gif").exists()
