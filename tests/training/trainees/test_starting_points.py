"""Training that goes on with a LoRA or a ControlNet that exists."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hotshot_jax.convert.formats.controlnet_files import open_controlnet
from hotshot_jax.convert.prepare import open_checkpoint, prepare_component
from hotshot_jax.convert.tensors.rules import flat_parameters, torch_slots
from hotshot_jax.errors import HotshotError
from hotshot_jax.lora import Factors, lora_tensors
from hotshot_jax.training.trainees.controlnet import ControlNetTrainee
from hotshot_jax.training.trainees.lora import LORA_FILE, LoraTrainee
from hotshot_jax.training.trainees.trainee import export
from tests.training.conftest import Run

RANK = 3
Train = Callable[..., Run]


@pytest.fixture(scope="module")
def unet(tiny_checkpoint: Path) -> Any:
    return prepare_component(open_checkpoint(tiny_checkpoint).unet, dtype=jnp.float32).load()


def drawn(unet: Any, layers: str = "attention") -> dict[str, Factors]:
    lora = LoraTrainee.of(unet, "both", RANK, layers)
    trained, _ = lora.start(flat_parameters(unet), 0)
    generator = np.random.default_rng(1)
    return lora.unet.factors(
        {name: generator.standard_normal(leaf.shape, np.float32) for name, leaf in trained.items()}
    )


def write(file: Path, factors: dict[str, Factors], **options: Any) -> Path:
    save(lora_tensors({"unet": factors}, **{"alpha": RANK, **options}), file)
    return file


def save(tensors: dict[str, np.ndarray], file: Path) -> None:
    # safetensors writes the buffer of an array as it lies in memory.
    save_file({name: np.ascontiguousarray(each) for name, each in tensors.items()}, file)


def kernels(lora: LoraTrainee, unet: Any) -> dict[Any, Any]:
    return flat_parameters(lora.merge(*lora.start(flat_parameters(unet), 5)))


@pytest.mark.parametrize("layers", ["attention", "all"])
@pytest.mark.parametrize("spelling", ["peft", "kohya"])
def test_no_further_step_gives_the_lora_that_it_started_from(
    unet: Any, tiny_checkpoint: Path, tmp_path: Path, layers: str, spelling: str
) -> None:
    alpha = 1.5  # not the rank
    factors = drawn(unet, layers)
    file = write(tmp_path / "a.safetensors", factors, alpha=alpha, spelling=spelling)
    lora = LoraTrainee.of(unet, "both", RANK, layers).starting_from(file)
    trained, _ = lora.start(flat_parameters(unet), 5)
    export(tmp_path / "export", tiny_checkpoint, None, lora, trained)
    found = load_file(tmp_path / "export" / LORA_FILE)
    wanted = lora_tensors({"unet": factors}, alpha=alpha)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        np.testing.assert_allclose(found[name], tensor, rtol=1e-6, err_msg=name)
    # And again, from what was exported: to the bit.
    again = LoraTrainee.of(unet, "both", RANK, layers).starting_from(tmp_path / "export")
    for name, leaf in again.start(flat_parameters(unet), 9)[0].items():
        np.testing.assert_array_equal(leaf, trained[name])


def test_a_smaller_rank_is_filled_up_and_other_layers_begin_at_zero(
    unet: Any, tmp_path: Path
) -> None:
    factors = drawn(unet)
    kept, narrow = list(factors)[::2], next(iter(factors))
    some = {name: factors[name] for name in kept}
    some[narrow] = Factors(some[narrow].down[:1], some[narrow].up[:, :1])
    tensors = {}
    for name, each in some.items():
        tensors |= lora_tensors({"unet": {name: each}}, alpha=len(each.down))
    save(tensors, tmp_path / "a.safetensors")
    lora = LoraTrainee.of(unet, "both", RANK).starting_from(tmp_path / "a.safetensors")
    before, after = flat_parameters(unet), kernels(lora, unet)
    for name, slot in torch_slots(unet).items():
        was, now = slot.to_torch(before[slot.path]), slot.to_torch(after[slot.path])
        each = some.get(name.removesuffix(".weight"))
        wanted = was if each is None else was + each.up @ each.down
        np.testing.assert_allclose(now, wanted, rtol=1e-5, atol=1e-6, err_msg=name)


def test_what_cannot_be_trained_further_is_refused(unet: Any, tmp_path: Path) -> None:
    factors = drawn(unet)
    first = next(name for name in factors if "temporal" not in name)
    file = tmp_path / "a.safetensors"

    def refused(targets: str = "both", rank: int = RANK) -> str:
        with pytest.raises(HotshotError) as error:
            LoraTrainee.of(unet, targets, rank).starting_from(file)
        return str(error.value)

    write(file, factors)
    assert "leave out" in refused("spatial") and "is 2" in refused(rank=2)
    write(file, {**factors, "down_blocks.9.to_q": factors[first]})
    assert "are of no layer of this UNet" in refused()
    good = lora_tensors({"unet": {first: factors[first]}}, alpha=RANK)
    outputs = len(factors[first].up)
    save({**good, f"unet.{first}.dora_scale": np.ones((outputs, 1), np.float32)}, file)
    assert "something else than a factor down" in refused()


def test_a_controlnet_starts_as_the_one_that_was_exported(
    unet: Any, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    new = ControlNetTrainee.of(unet)
    values = flat_parameters(unet)
    trained, _ = new.start(values, 3)
    generator = np.random.default_rng(2)
    trained = {n: generator.standard_normal(x.shape, np.float32) for n, x in trained.items()}
    export(tmp_path / "a", tiny_checkpoint, None, new, trained)
    opened = prepare_component(open_controlnet(str(tmp_path / "a")), dtype=jnp.float32)
    again, frozen = ControlNetTrainee.of(unet, opened).start(values, 4)
    assert again.keys() == trained.keys() and frozen.keys() == new.unet.paths.keys()
    for name, leaf in trained.items():
        np.testing.assert_array_equal(again[name], leaf)


def test_bad_starts_are_told_before_the_weights_are_read(
    train: Train, unet: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*given: Any) -> None:
        raise AssertionError("the weights were read")

    monkeypatch.setattr("hotshot_jax.training.trainees.models._placed", load)
    good = write(tmp_path / "good.safetensors", drawn(unet))
    none = tmp_path / "none.safetensors"
    other = tmp_path / "other.safetensors"
    save_file({"conv_in.weight": np.zeros((2, 2), np.float32)}, other)
    (tmp_path / "text.safetensors").write_text("no LoRA")
    lora, control = ("--train", "lora"), ("--train", "controlnet")
    network, start = "--network_weights", "--controlnet_model_name_or_path"
    for given, message in (
        ((*lora, network, none), "there is no such LoRA"),
        ((*lora, network, other), "there are no low-rank factors in it"),
        ((*lora, network, tmp_path / "text.safetensors"), "text.safetensors"),
        ((*lora, network, good, "--lora_rank", 4), "--lora_rank is 4, and the factors in"),
        ((*lora, network, good), "that --lora_targets and --lora_layers leave out"),
        ((network, good), "--network_weights has no effect without --train lora"),
        ((start, good), f"{start} has no effect without --train controlnet"),
        ((*control, start, none), "none.safetensors"),
        ((*control, start, good), "good.safetensors"),
    ):
        run = train(*given)
        assert run.status in (1, 2) and message in run.stderr, (given, run.stderr)
        assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_a_run_goes_on_with_a_lora(train: Train, unet: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "a.safetensors", drawn(unet))
    run = train(
        *("--train", "lora", "--lora_targets", "both", "--network_weights", file),
        *("--max_train_steps", 1, "--learning_rate", 1e-9),
    )
    assert run.status == 0, run.stderr
    found, wanted = load_file(run.output / "export" / LORA_FILE), load_file(file)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        np.testing.assert_allclose(found[name], tensor, atol=1e-6, err_msg=name)
    assert f"lora_rank: {RANK}" in (run.output / "config.yaml").read_text()
