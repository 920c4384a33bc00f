import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from benchmarks import tiny_control_eval
from hotshot_jax.builtin import builtin_checkpoint, builtin_controlnets


def test_there_is_one_for_edges_of_at_most_8_megabytes() -> None:
    assert set(builtin_controlnets()) == {"canny"}
    files = list(builtin_controlnets()["canny"].iterdir())
    assert {file.name for file in files} == {"config.json", "diffusion_pytorch_model.safetensors"}
    assert sum(file.stat().st_size for file in files) <= 8_000_000


def test_its_weights_are_finite_and_half_as_long() -> None:
    (file,) = builtin_controlnets()["canny"].glob("*.safetensors")
    for name, tensor in load_file(file).items():
        assert tensor.dtype == np.float16, name
        assert np.isfinite(tensor).all(), name


def test_it_has_the_shape_of_the_model_that_it_is_for() -> None:
    unet, net = (
        json.loads((folder / "config.json").read_text())
        for folder in (builtin_checkpoint() / "unet", builtin_controlnets()["canny"])
    )
    for name in ("block_out_channels", "layers_per_block", "cross_attention_dim"):
        assert unet[name] == net[name]


@pytest.mark.slow
def test_clips_follow_the_edges_of_clips_that_no_stage_of_training_saw(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # 20 of the 100 that the benchmark takes. At nine of ten right, fewer than 14 would come about
    # once in four hundred times.
    assert tiny_control_eval.main(["--count", "20", "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["scores"]["all"] >= 0.7
