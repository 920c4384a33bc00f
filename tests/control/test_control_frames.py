"""Control frames as the PyTorch pipeline prepares them."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from hotshot_jax.conditioning.control.preprocess import prepare_control_frames
from hotshot_jax.errors import HotshotError

CASES = Path(__file__).parents[1] / "golden" / "cases"


@pytest.mark.parametrize("case", ["controlnet_pipeline", "controlnet_pipeline_guess"])
def test_equal_to_the_reference(case: str) -> None:
    tensors = load_file(CASES / f"{case}.safetensors")
    arguments = json.loads((CASES / f"{case}.json").read_text())["arguments"]
    prepared = prepare_control_frames(
        tensors["control_images_uint8"],
        video_length=arguments["video_length"],
        height=arguments["height"],
        width=arguments["width"],
    )
    expected = np.moveaxis(tensors["step0.controlnet_cond"], 1, -1)
    # Lanczos in bytes, then one division: the same bits.
    np.testing.assert_array_equal(prepared, expected)


def test_one_control_frame_for_each_frame() -> None:
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    with pytest.raises(HotshotError, match="3 control frames for a video of 8"):
        prepare_control_frames(frames, video_length=8, height=8, width=8)
