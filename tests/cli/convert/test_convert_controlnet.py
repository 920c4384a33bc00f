"""`python -m convert` on ControlNets, both ways."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
from diffusers import ControlNetModel
from safetensors.numpy import save_file

from hotshot_jax.convert.formats.controlnet_files import open_controlnet
from hotshot_jax.convert.prepare import component_source
from tests.cli.checkpoints import read_tensors
from tests.cli.conftest import Infer
from tests.cli.refusals import assert_refused
from tests.convert.controlnet_files import CONFIG, controlnet_tensors, original_names

WEIGHTS = "diffusion_pytorch_model.safetensors"


def write_folder(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    return folder


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        np.testing.assert_array_equal(tensor, other[name])


def test_there_and_back_is_bit_equal(convert: Infer, tmp_path: Path) -> None:
    # Two dtypes, as in files that keep some layers wide.
    tensors = controlnet_tensors(ml_dtypes.bfloat16)
    tensors["conv_in.weight"] = tensors["conv_in.weight"].astype(np.float32)
    folder = write_folder(tmp_path / "net", tensors)
    there, back = tmp_path / "there", tmp_path / "back"
    assert convert(folder, there).status == 0
    assert sorted(path.name for path in there.iterdir()) == [
        "config.json",
        "hotshot_jax.json",
        "weights",
    ]
    stored = component_source(open_controlnet(str(there)))
    np.testing.assert_array_equal(stored.read("conv_in.weight"), tensors["conv_in.weight"])
    assert convert(there, back, "--to-torch").status == 0
    assert_same(read_tensors(back / WEIGHTS), tensors)
    assert json.loads((back / "config.json").read_text()) == CONFIG


def test_a_single_file_in_the_original_names(convert: Infer, tmp_path: Path) -> None:
    tensors = controlnet_tensors()
    names = original_names(tensors)
    file = tmp_path / "net.safetensors"
    save_file({names[name]: tensor for name, tensor in tensors.items()}, file)
    assert convert(file, tmp_path / "there").status == 0
    assert convert(tmp_path / "there", tmp_path / "back", "--to-torch").status == 0
    assert_same(read_tensors(tmp_path / "back" / WEIGHTS), tensors)
    # What was derived from shapes is a configuration that diffusers takes.
    model = ControlNetModel.from_pretrained(tmp_path / "back")
    assert model.config.cross_attention_dim == CONFIG["cross_attention_dim"]
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), tensors[name])


def test_what_is_in_pytorchs_layout_already(convert: Infer, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "net", controlnet_tensors())
    run = convert(folder, tmp_path / "there", "--to-torch")
    assert_refused(run, 2, "is in the diffusers layout already")
    assert not (tmp_path / "there").exists()


def test_other_files(convert: Infer, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"model.diffusion_model.out.2.bias": np.zeros(4, np.float32)}, file)
    assert_refused(convert(file, tmp_path / "there"), 2, f"{file} is a file")


def test_a_converted_controlnet_is_no_model(convert: Infer, infer: Infer, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "net", controlnet_tensors())
    there = tmp_path / "there"
    assert convert(folder, there).status == 0
    assert_refused(convert(there, tmp_path / "again"), 2, "is converted already")
    assert_refused(infer("--pretrained_path", there), 1, "is a converted ControlNet")
