import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from benchmarks.toy.from_scratch.command import main, parse
from hotshot_jax import builtin
from hotshot_jax.cli.train.checks import check_settings
from hotshot_jax.cli.train.settings import parse_train_settings
from hotshot_jax.convert.formats.controlnet_files import is_controlnet
from hotshot_jax.convert.prepare import open_checkpoint
from hotshot_jax.convert.tensors.safetensors_file import SafetensorsFile
from hotshot_jax.data.open_data import parse_shapes
from hotshot_jax.data.shapes import split_prompts
from hotshot_jax.training.trainees.lora import LORA_FILE
from tests.tiny_controlnet import write_tiny_controlnet

RECIPES = Path(__file__).parents[3] / "configs" / "tiny"
STAGES = {
    "create": "create",
    "vae": "vae",
    "vae_whole": "vae",
    "vae_decoder": "vae",
    "vae_decoder_whole": "vae",
    "text": "text",
}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint like the small model, narrower still."""
    folder = tmp_path_factory.mktemp("from_scratch")
    architecture = json.loads((RECIPES / "architecture.json").read_text())
    architecture["unet"] |= {"block_out_channels": [32, 32, 32], "attention_head_dim": [1, 1, 1]}
    architecture["vae"]["block_out_channels"] = [4, 4, 4, 4]
    (folder / "architecture.json").write_text(json.dumps(architecture))
    arguments = ["--architecture", str(folder / "architecture.json"), "--words", "cyan heart"]
    assert main(["create", *arguments, "--output", str(folder / "fresh")]) == 0
    return folder / "fresh"


@pytest.mark.slow
def test_a_fresh_checkpoint_is_whole_and_its_temporal_layers_do_nothing_yet(fresh: Path) -> None:
    checkpoint = open_checkpoint(fresh)
    vocabulary = json.loads((fresh / "tokenizer" / "vocab.json").read_text())
    assert checkpoint.text_encoder.config["vocab_size"] == len(vocabulary)
    assert {f"{word}</w>" for word in ("cyan", "heart", "triangle", "teal")} <= set(vocabulary)
    unet = load_file(fresh / "unet" / "diffusion_pytorch_model.safetensors")
    closing = [name for name in unet if "temporal" in name and name.endswith("proj_out.weight")]
    assert closing and not any(unet[name].any() for name in closing)


@pytest.mark.slow
def test_packing_rounds_every_weight_to_float16(fresh: Path, tmp_path: Path) -> None:
    assert main(["pack", "--source", str(fresh), "--output", str(tmp_path / "packed")]) == 0
    for file in sorted(fresh.rglob("*.safetensors")):
        before = load_file(file)
        after = load_file(tmp_path / "packed" / file.relative_to(fresh))
        assert set(before) == set(after)
        assert {str(tensor.dtype) for tensor in after.values()} == {"float16"}
        assert all((before[name].astype("float16") == after[name]).all() for name in before)


def test_packing_a_controlnet_rounds_it_too(tmp_path: Path) -> None:
    net = write_tiny_controlnet(tmp_path / "net", 1)
    assert main(["pack", "--source", str(net), "--output", str(tmp_path / "packed")]) == 0
    (file,) = net.glob("*.safetensors")
    before, after = load_file(file), load_file(tmp_path / "packed" / file.name)
    assert set(before) == set(after)
    for name, tensor in after.items():
        np.testing.assert_array_equal(tensor, before[name].astype(np.float16), strict=True)
    assert is_controlnet(str(tmp_path / "packed"))


def test_packing_a_lora_rounds_it_and_keeps_what_its_header_says(tmp_path: Path) -> None:
    tensors = {"unet.proj.lora_A.weight": np.linspace(-3, 3, 7, dtype=np.float32)[None]}
    (tmp_path / "lora").mkdir()
    save_file(tensors, tmp_path / "lora" / LORA_FILE, {"ss_network_dim": "1"})
    assert main(["pack", "--source", str(tmp_path / "lora"), "--output", str(tmp_path / "a")]) == 0
    packed = SafetensorsFile(tmp_path / "a" / LORA_FILE)
    assert packed.metadata["ss_network_dim"] == "1"
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(packed.read(name), tensor.astype(np.float16), strict=True)


@pytest.mark.parametrize(("recipe", "stage"), STAGES.items())
def test_recipes_of_the_stages_are_valid(recipe: str, stage: str) -> None:
    source = [] if stage == "create" else ["--source", "a"]
    config = ["--config", str(RECIPES / f"{recipe}.yaml")]
    parsed = parse(stage, [*config, *source, "--output", "b"])
    if stage == "vae":
        assert parse_shapes(parsed.data, 1).split == "train"


@pytest.mark.parametrize("recipe", ["spatial", "spatial_last", "temporal", "controlnet", "lcm"])
def test_recipes_of_train_py_never_see_held_out_prompts(recipe: str) -> None:
    settings = parse_train_settings(["--config", str(RECIPES / f"{recipe}.yaml")], "train.py")
    check_settings(settings)
    data = parse_shapes(str(settings.data_dir), settings.video_length)
    assert not {data.prompt(index) for index in range(min(1500, data.length))} & set(
        split_prompts("held_out")
    )


def test_the_chain_of_recipes_has_no_gap() -> None:
    recipes = [
        yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
        for name in ("spatial", "spatial_last", "temporal", "controlnet")
    ]
    for before, after in itertools.pairwise(recipes):
        assert after["pretrained_model_name_or_path"] == f"{before['output_dir']}/export"


@pytest.mark.parametrize("name", ["lora", "lcm"])
def test_the_recipe_for_a_lora_starts_from_the_built_in_model(name: str) -> None:
    settings = parse_train_settings(["--config", str(RECIPES / f"{name}.yaml")], "train.py")
    check_settings(settings)
    assert settings.train == name and settings.report_to == "none"
    # A path from the checkout's root, where `train.py` and the recipes are.
    root = RECIPES.parents[1]
    assert root / settings.pretrained_model_name_or_path == Path(builtin.__file__).with_name(
        "checkpoint"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected one of create, vae, text, pack"),
        (["paint"], "expected one of create, vae, text, pack"),
        (["vae", "--output", "x"], "--source is missing"),
        (["create", "--output", "x"], "--architecture is missing"),
        (["vae", "--source", "x", "--output", "y", "--steps", "0"], "must be positive"),
        (["vae", "--source", "x", "--output", "y", "--data", "shapes:train?frames=8"], "frames=1"),
    ],
)
def test_wrong_arguments_are_explained(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
