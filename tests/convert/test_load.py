"""Filling models from PyTorch's tensors, by rules alone."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import CLIPTextConfig as TorchConfig, CLIPTextModel as TorchTextModel

from benchmarks.models.loading import load_module
from hotshot_jax.convert.builders import Build, model_builder
from hotshot_jax.convert.formats.to_torch import write_weights
from hotshot_jax.convert.load import abstract
from hotshot_jax.convert.tensors.rules import flat_parameters, torch_slots
from hotshot_jax.convert.tensors.safetensors_file import write_safetensors
from hotshot_jax.convert.tensors.tensor_source import open_file
from hotshot_jax.errors import HotshotError
from tests.tiny_checkpoint import tiny_configs

COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2")


def _build(component: str) -> Build:
    return model_builder(component, tiny_configs()[component], where=component)


def _tensors(component: str, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        name: generator.standard_normal(slot.shape, np.float32)
        for name, slot in torch_slots(abstract(_build(component))).items()
    }


def _load(component: str, tensors: dict[str, np.ndarray], folder: Path, **options: Any) -> Any:
    file = folder / "model.safetensors"
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, file)
    settings = {"where": component, "dtype": jnp.float32} | options
    return load_module(_build(component), open_file(file), **settings)


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_tensor_comes_back_from_its_parameter(component: str, tmp_path: Path) -> None:
    tensors = _tensors(component)
    module = _load(component, tensors, tmp_path)
    write_weights(tmp_path / "again.safetensors", module, buffers={})
    again = load_file(tmp_path / "again.safetensors")
    assert again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(again[name], tensor, err_msg=name)


def test_linear_layers_are_transposed_and_stacks_follow_their_layers(tmp_path: Path) -> None:
    tensors = _tensors("unet")
    parameters = flat_parameters(_load("unet", tensors, tmp_path))
    prefix = ("down_blocks", 1, "attentions", 0)
    stacked = parameters[(*prefix, "transformer_blocks", "attn2", "to_k", "kernel")]
    for layer in range(2):
        name = f"down_blocks.1.attentions.0.transformer_blocks.{layer}.attn2.to_k.weight"
        np.testing.assert_array_equal(stacked[layer], tensors[name].T)
    conv = parameters[("conv_in", "kernel")]
    np.testing.assert_array_equal(conv, tensors["conv_in.weight"].transpose(2, 3, 1, 0))


def test_every_problem_is_listed_at_once(tmp_path: Path) -> None:
    tensors = _tensors("vae")
    del tensors["decoder.conv_in.bias"]
    tensors["quant_conv.bias"] = np.zeros(3, np.float32)
    tensors["discriminator.weight"] = np.zeros(3, np.float32)
    with pytest.raises(HotshotError) as raised:
        _load("vae", tensors, tmp_path)
    message = str(raised.value)
    for part in ("missing: decoder.conv_in.bias", "discriminator.weight", "quant_conv.bias [3]"):
        assert part in message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    tensors = _tensors("vae")
    tensors["decoder.conv_in.bias"][3] = value
    with pytest.raises(HotshotError, match=r"decoder\.conv_in\.bias"):
        _load("vae", tensors, tmp_path)


def test_a_text_encoder_saved_by_current_transformers_loads(tmp_path: Path) -> None:
    config = tiny_configs()["text_encoder"]
    settings = {name: value for name, value in config.items() if not name.startswith("_")}
    torch.manual_seed(0)
    theirs = TorchTextModel(TorchConfig(**settings)).eval()
    theirs.save_pretrained(tmp_path / "saved")
    source = open_file(tmp_path / "saved" / "model.safetensors")
    ours = load_module(_build("text_encoder"), source, where="text_encoder", dtype=jnp.float32)
    ids = np.random.default_rng(0).integers(0, 900, (2, 77))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(ids), output_hidden_states=True).hidden_states[-2]
    result = ours(jnp.asarray(ids)).hidden_states[-2]
    # float32, two layers.
    np.testing.assert_allclose(result, expected.numpy(), atol=2e-5, rtol=1e-4)


def test_the_vae_loads_under_its_older_names_and_layouts(tmp_path: Path) -> None:
    tensors = _tensors("vae")
    older = {
        ".to_q.": ".query.",
        ".to_k.": ".key.",
        ".to_v.": ".value.",
        ".to_out.0.": ".proj_attn.",
    }
    renamed = {}
    for name, tensor in tensors.items():
        stored = name
        if ".attentions." in name:
            for new, old in older.items():
                stored = stored.replace(new, old)
            if stored != name and tensor.ndim == 2:
                tensor = tensor[:, :, None, None]
        renamed[stored] = tensor
    assert renamed.keys() != tensors.keys()
    module = _load("vae", renamed, tmp_path)
    write_weights(tmp_path / "again.safetensors", module, buffers={})
    again = load_file(tmp_path / "again.safetensors")
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(again[name], tensor, err_msg=name)


@pytest.mark.parametrize(
    ("component", "spare"),
    [
        ("text_encoder", "text_projection.weight"),
        ("text_encoder", "logit_scale"),
        ("vae", "loss.logvar"),
        ("vae", "loss.discriminator.main.0.weight"),
    ],
)
def test_spare_tensors_are_passed_over(component: str, spare: str, tmp_path: Path) -> None:
    tensors = _tensors(component) | {spare: np.ones((2, 2), np.float32)}
    _load(component, tensors, tmp_path)
    with pytest.raises(HotshotError, match="not part of the model: other"):
        _load(component, tensors | {"other": np.ones(1, np.float32)}, tmp_path)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int64])
def test_written_files_are_what_the_library_reads(dtype: type, tmp_path: Path) -> None:
    arrays = {
        "b": np.arange(6).reshape(2, 3).astype(dtype),
        "a": np.arange(24).reshape(2, 3, 4).astype(dtype).transpose(2, 0, 1),
        "scalar": np.asarray(3, dtype),
    }
    layout = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    file = tmp_path / "a.safetensors"
    write_safetensors(file, layout, arrays.items(), {"format": "pt"})
    again = load_file(file)
    assert list(open_file(file).metadata) == ["format"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array)


def test_tensors_out_of_order_are_not_written_silently(tmp_path: Path) -> None:
    array = np.zeros(3, np.float32)
    layout = dict.fromkeys("ab", (array.shape, array.dtype))
    with pytest.raises(ValueError, match="expected a"):
        write_safetensors(tmp_path / "a.safetensors", layout, [("b", array), ("a", array)])
