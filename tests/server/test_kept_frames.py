"""Results as they were made: read back bit for bit, and refused where they are damaged."""

from pathlib import Path

import numpy as np
import pytest

from hotshot_jax.errors import HotshotError
from hotshot_jax.server.kept_frames import KeptFrames

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 8, 16, 3), np.uint8)


def kept(folder: Path) -> Path:
    path = folder / "frames.kept"
    KeptFrames(FRAMES, 375.5, {"settings": "a\u2028b\ud800"}).write(path)
    return path


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    back = KeptFrames.read(kept(tmp_path))
    np.testing.assert_array_equal(back.frames, FRAMES)
    assert (back.duration_ms, back.metadata) == (375.5, {"settings": "a\u2028b\ud800"})
    assert [path.name for path in tmp_path.iterdir()] == ["frames.kept"]


@pytest.mark.parametrize("cut", [0, 10, 200, -1])
def test_what_is_cut_short_is_refused(tmp_path: Path, cut: int) -> None:
    path = kept(tmp_path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(HotshotError, match="damaged"):
        KeptFrames.read(path)


def test_what_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(HotshotError, match="No such file"):
        KeptFrames.read(tmp_path / "frames.kept")
