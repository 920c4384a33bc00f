from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

GOLDEN = Path(__file__).parents[1] / "golden" / "cases"


@pytest.fixture(scope="session")
def golden_schedulers() -> dict[str, np.ndarray]:
    return load_file(GOLDEN / "schedulers.safetensors")


@pytest.fixture(scope="session")
def golden_add_noise() -> dict[str, np.ndarray]:
    return load_file(GOLDEN / "ddpm_add_noise.safetensors")
