"""Modules that scripts know by their former places, and merging in memory."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from hotshot_jax.lora import ModuleNames, merge, open_lora


@pytest.mark.parametrize(
    ("former", "now", "names"),
    [
        ("convert.tensor_source", "convert.tensors.tensor_source", "TensorSource open_file"),
        (
            "convert.single_file_config",
            "convert.formats.single_file_config",
            "scheduler_config",
        ),
        ("pipelines.embedding_files", "conditioning.text.embedding_files", "open_embeddings"),
    ],
)
def test_former_places_have_the_same_names(former: str, now: str, names: str) -> None:
    before, after = (importlib.import_module(f"hotshot_jax.{each}") for each in (former, now))
    for name in names.split():
        assert getattr(before, name) is getattr(after, name)


def test_merging_in_memory(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weight, up, down = (
        random.standard_normal(shape).astype(np.float32) for shape in ((6, 4), (6, 2), (2, 4))
    )
    name = "down_blocks.1.attentions.0.proj_in"
    file = tmp_path / "lora.safetensors"
    stored = {"lora_up.weight": up, "lora_down.weight": down, "alpha": np.float32(1)}
    key = f"lora_unet_{name.replace('.', '_')}"
    save_file({f"{key}.{part}": np.asarray(value) for part, value in stored.items()}, file)
    names = ModuleNames({"unet": {f"{name}.weight": weight.shape}})
    lora = open_lora(file, names)
    merged = merge({f"{name}.weight": weight}, "unet", [(lora, 0.5)])
    np.testing.assert_allclose(merged[f"{name}.weight"], weight + 0.25 * up @ down, rtol=1e-6)
