"""Bars that show loading and converting end at their total."""

from pathlib import Path

import jax.numpy as jnp
import pytest

from hotshot_jax.convert.conversion import convert_folder
from hotshot_jax.convert.prepare import open_checkpoint, prepare_component
from hotshot_jax.convert.tensors.tensor_source import TensorSource


@pytest.fixture(scope="module")
def converted(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Also tells that converting to a wider dtype ends at the source's bytes."""
    source, told = open_checkpoint(tiny_checkpoint), []
    path = tmp_path_factory.mktemp("converted") / "model"
    convert_folder(source, path, dtype=jnp.float32, progress=told.append)
    assert sum(told) == source.nbytes
    assert min(told) >= 0
    return path


@pytest.mark.parametrize("form", ["diffusers", "converted"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("changed", [False, True])
def test_loading_tells_what_it_will_place(
    form: str, dtype: type, changed: bool, tiny_checkpoint: Path, converted: Path
) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint if form == "diffusers" else converted)
    prepared = prepare_component(checkpoint.vae, dtype=dtype)

    def same(source: TensorSource) -> TensorSource:
        return source

    told: list[int] = []
    prepared.load(progress=told.append, change=same if changed else None)
    assert sum(told) == prepared.nbytes > 0
