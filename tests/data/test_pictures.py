import io
from pathlib import Path

import numpy as np
import pytest
from clips import picture
from PIL import Image

from hotshot_jax.data.clip_source import picture_bytes, picture_size, read_picture
from hotshot_jax.errors import HotshotError
from hotshot_jax.media.reading.image_file import opened_image, rgb_pixels


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def sideways() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


RGB = Image.fromarray(picture(1, 20, 12))
HALF = Image.merge("RGBA", (*RGB.split(), Image.new("L", (20, 12), 128)))
PICTURES = {
    "jpeg": encoded(RGB, "jpeg"),
    "grey jpeg": encoded(RGB.convert("L"), "jpeg"),
    "cmyk jpeg": encoded(RGB.convert("CMYK"), "jpeg"),
    "turned jpeg": encoded(RGB, "jpeg", exif=sideways()),
    "png": encoded(RGB, "png"),
    "turned png": encoded(RGB, "png", exif=sideways()),
    "grey png": encoded(RGB.convert("L"), "png"),
    "16-bit png": encoded(Image.fromarray(np.full((12, 20), 40000, np.uint16)), "png"),
    "palette png": encoded(RGB.quantize(16), "png"),
    "transparent png": encoded(HALF, "png"),
    "png with a transparent colour": encoded(RGB, "png", transparency=(0, 0, 0)),
    "webp": encoded(RGB, "webp", lossless=True),
    "transparent webp": encoded(HALF, "webp", lossless=True),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures_are_read_as_everywhere_else(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(PICTURES[kind])
    with opened_image(path) as image:
        expected = rgb_pixels(image)
    for picture_ in (path, PICTURES[kind]):
        found = read_picture(picture_, "name")
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.uint8
        assert picture_size(picture_, "name") == (found.shape[1], found.shape[0])
        assert picture_bytes(picture_, "name") == PICTURES[kind]
    assert found.shape == ((20, 12, 3) if "turned" in kind else (12, 20, 3))


def test_pixels_pass_through() -> None:
    pixels = picture(0, 6, 4)
    assert read_picture(pixels, "name") is pixels
    assert picture_size(pixels, "name") == (6, 4)
    assert picture_bytes(pixels, "name") != picture_bytes(pixels.reshape(6, 4, 3), "name")


@pytest.mark.parametrize("kind", ["gif", "bmp", "tiff"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(HotshotError, match="name: is not a JPEG, PNG or WebP"):
        read_picture(encoded(RGB, kind), "name")


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_every_cut_is_an_error_and_never_another(kind: str) -> None:
    whole = PICTURES[kind]
    for end in range(0, len(whole) - 20, 23):
        with pytest.raises(HotshotError, match="name: is "):
            read_picture(whole[:end], "name")
