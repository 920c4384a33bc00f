"""Depth by a tiny random checkpoint in the format of a real one."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import DPTForDepthEstimation
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

from hotshot_jax.conditioning.control.depth import DepthEstimator, _to_grey
from hotshot_jax.errors import HotshotError
from tests.tiny_depth import write_tiny_depth


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_depth(tmp_path_factory.mktemp("depth"))


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 24, 40, 3), np.uint8)


def test_depth_is_grey_and_fills_the_range(checkpoint: Path, frames: np.ndarray) -> None:
    grey = DepthEstimator(checkpoint)(frames)
    assert grey.shape == frames.shape
    assert grey.dtype == np.uint8
    assert (grey[..., :1] == grey).all()
    assert grey.min() == 0
    assert grey.max() == 255
    # Not a flat field with a few outliers: the random model's depth varies.
    assert len(np.unique(grey)) > 50


def test_frames_share_one_scale() -> None:
    depths = np.array([[[0.0, 4.0]], [[1.0, 2.0]]])
    np.testing.assert_array_equal(_to_grey(depths), [[[0, 255]], [[64, 128]]])


def test_depth_is_that_of_the_model(checkpoint: Path, frames: np.ndarray) -> None:
    estimator = DepthEstimator(checkpoint)
    model = DPTForDepthEstimation.from_pretrained(checkpoint)
    processor = DPTImageProcessorPil.from_pretrained(checkpoint)
    with torch.no_grad():
        depth = model(**processor(images=list(frames), return_tensors="pt")).predicted_depth
    depth = torch.nn.functional.interpolate(
        depth[:, None], size=frames.shape[1:3], mode="bicubic", align_corners=False
    )[:, 0].numpy()
    expected = (depth - depth.min()) / (depth.max() - depth.min()) * 255
    # Half a grey value of rounding, and a little of float32.
    assert np.abs(estimator(frames)[..., 0] - expected).max() <= 0.51


def test_distances_are_inverted(
    checkpoint: Path, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator = DepthEstimator(checkpoint)
    near = estimator(frames)[..., 0]
    monkeypatch.setattr(estimator._model.config, "depth_estimation_type", "metric", raising=False)
    inverted = estimator(frames)[..., 0]
    farthest = np.unravel_index(near.argmin(), near.shape)
    assert near[farthest] == 0
    assert inverted[farthest] == 255


def test_a_flat_depth_is_black_and_said_to_be(caplog: pytest.LogCaptureFixture) -> None:
    assert not _to_grey(np.full((2, 3, 4), 7.0)).any()
    assert "the same everywhere" in caplog.text


def test_a_checkpoint_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(HotshotError, match="cannot load it as a depth-estimation checkpoint"):
        DepthEstimator(tmp_path)


def test_values_that_are_not_finite_are_refused(checkpoint: Path, frames: np.ndarray) -> None:
    estimator = DepthEstimator(checkpoint)
    estimator._model.head.head[4].bias.data.fill_(float("nan"))
    with pytest.raises(HotshotError, match="not finite"):
        estimator(frames)


def test_without_pytorch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(HotshotError, match=r"pip install 'hotshot-jax\[depth\]'"):
        DepthEstimator("anything")
