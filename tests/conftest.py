"""What tests of several rooms share."""

import os

# Before JAX starts: the suite means the same on a machine with an accelerator, and loading code may
# not reach for the network.
os.environ["JAX_PLATFORMS"] = "cpu"
# Most of the suite's time is spent compiling programs that run once; LLVM's optimisations cost more
# than they gain there.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
os.environ["HF_HUB_OFFLINE"] = "1"

from pathlib import Path

import pytest

from tests.tiny_checkpoint import write_tiny_checkpoint


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint in the published layout; read-only by agreement, copy it to change it."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny")
