"""What the tests of opening checkpoints share."""

from pathlib import Path

import pytest
from checkpoint_folders import write_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole checkpoint with a handful of small tensors, to be broken."""
    return write_checkpoint(tmp_path / "hotshot")
