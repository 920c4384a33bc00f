"""A single file, and the same tensors under diffusers' names."""

import ml_dtypes
import numpy as np
import pytest
from sdxl_tiny import COMPONENTS, HEADS, as_source, contents, spatial, state_dict

from hotshot_jax.convert.formats.single_file import open_single_file
from hotshot_jax.convert.tensors.tensor_source import TensorSource
from tests.single_file_writer import to_single_file


@pytest.fixture(scope="session")
def components(tmp_path_factory) -> dict[str, TensorSource]:
    """A tiny SDXL under diffusers' names; one component in each storage type."""
    path = tmp_path_factory.mktemp("folder")
    types = dict(
        zip(COMPONENTS, (np.float16, np.float32, ml_dtypes.bfloat16, np.float32), strict=True)
    )
    return {
        name: as_source(
            {key: each.astype(types[name]) for key, each in spatial(state_dict(name)).items()},
            path / f"{name}.safetensors",
        )
        for name in COMPONENTS
    }


@pytest.fixture(scope="session")
def tensors(components) -> dict[str, np.ndarray]:
    """The tensors of the single file."""
    return contents(to_single_file(components))


@pytest.fixture(scope="session")
def single(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("single") / "model.safetensors"
    return open_single_file(as_source(tensors, path), HEADS)
