import io

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from hotshot_jax.errors import UsageError
from hotshot_jax.media.formats.webp import encode_webp

TIMES = [125, 125, 126, 125, 124, 125, 125, 125]


def decode(data: bytes) -> tuple[np.ndarray, list[int]]:
    pixels, durations = [], []
    with Image.open(io.BytesIO(data)) as image:
        for index in range(image.n_frames):
            image.seek(index)
            pixels.append(np.asarray(image.convert("RGB")))
            durations.append(image.info["duration"])
    return np.stack(pixels), durations


@pytest.mark.parametrize(("height", "width"), [(24, 40), (23, 39), (1, 1)])
def test_lossless_is_exact(frames, height, width):
    frames = frames[:, :height, :width]
    pixels, durations = decode(encode_webp(frames, TIMES, lossless=True))
    np.testing.assert_array_equal(pixels, frames)
    assert durations == TIMES


def test_lossy_is_near(frames):
    pixels, durations = decode(encode_webp(frames, TIMES))
    assert durations == TIMES
    # Quality 95 with halved chroma; measured 2.2 of 255 on so small a picture.
    assert np.sqrt(np.mean((pixels * 1.0 - frames) ** 2)) < 3


@pytest.mark.parametrize("lossless", [False, True])
def test_equal_neighbours_stay_frames_of_their_own(equal_frames, lossless):
    pixels, durations = decode(encode_webp(equal_frames, TIMES, lossless=lossless))
    assert len(pixels) == 8
    assert durations == TIMES


def test_imageio_reads_the_same(frames):
    data = encode_webp(frames, TIMES, lossless=True)
    got = iio.imread(data, extension=".webp", index=...)
    np.testing.assert_array_equal(got[..., :3], frames)


def test_runs_for_ever(frames):
    with Image.open(io.BytesIO(encode_webp(frames, TIMES))) as image:
        assert image.info["loop"] == 0


@pytest.mark.parametrize("exif", [b"", b"odd", b"even"])
@pytest.mark.parametrize("count", [1, 2])
def test_exif_chunk(frames, count, exif):
    data = encode_webp(frames[:count], TIMES[:count], exif)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == count
        assert image.info.get("exif", b"") == exif
        image.load()


def test_too_long_a_side():
    with pytest.raises(UsageError, match="16383"):
        encode_webp(np.zeros((1, 1, 16384, 3), np.uint8), [100])
