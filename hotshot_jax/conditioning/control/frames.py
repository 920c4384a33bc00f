"""Control frames as a ControlNet takes them."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from hotshot_jax.errors import HotshotError


def prepare_control_frames(
    frames: npt.NDArray[np.uint8], *, video_length: int, height: int, width: int
) -> npt.NDArray[np.float32]:
    """Scales control frames to the video's size and their values to 0 to 1.

    Lanczos filtering, no cropping and no normalisation to -1 to 1, as the PyTorch pipeline does.

    Args:
        frames: uint8 `[video_length, old_height, old_width, 3]`.
        video_length: number of frames of the video.
        height: of the video, pixels.
        width: of the video, pixels.

    Returns:
        float32 `[video_length, height, width, 3]`.

    Raises:
        HotshotError: there is not one control frame for each frame of the video.
    """
    if len(frames) != video_length:
        raise HotshotError(
            f"{len(frames)} control frames for a video of {video_length}; "
            "expected one for each frame."
        )
    resized = [
        np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS))
        for frame in frames
    ]
    return np.stack(resized).astype(np.float32) / np.float32(255)
