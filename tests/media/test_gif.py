import io

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageSequence

from hotshot_jax.errors import UsageError
from hotshot_jax.media.ffmpeg import run_ffmpeg
from hotshot_jax.media.formats import gif
from hotshot_jax.media.formats.gif import encode_gif
from hotshot_jax.media.formats.gif_blocks import GifError, parse_gif
from hotshot_jax.media.reading.read import open_clip

TIMES = [12, 13, 12, 13, 12, 13, 12, 13]


def decode(data: bytes) -> tuple[np.ndarray, list[int]]:
    with Image.open(io.BytesIO(data)) as image:
        pairs = [
            (np.asarray(frame.convert("RGB")), frame.info.get("duration", 0))
            for frame in ImageSequence.Iterator(image)
        ]
    pixels, durations = zip(*pairs, strict=True)
    return np.stack(pixels), list(durations)


def few_colours(count: int, colours: int, height: int = 16, width: int = 24) -> np.ndarray:
    random = np.random.default_rng(colours)
    palettes = random.integers(0, 256, (count, colours, 3), np.uint8)
    index = np.arange(height * width).reshape(height, width) % colours
    return np.stack([palette[index] for palette in palettes])


def blurred_error(frames: np.ndarray, other: np.ndarray) -> float:
    """Root mean square error after a blur, as the eye mixes dithered dots."""

    def blur(clip: np.ndarray) -> np.ndarray:
        blurring = ImageFilter.GaussianBlur(1.5)
        return np.stack([np.asarray(Image.fromarray(f).filter(blurring)) for f in clip]) * 1.0

    return float(np.sqrt(np.mean((blur(frames) - blur(other)) ** 2)))


@pytest.mark.parametrize("colours", [1, 2, 3, 4, 5, 100, 255, 256])
def test_up_to_256_colours_a_frame_are_exact(colours):
    frames = few_colours(8, colours)
    pixels, durations = decode(encode_gif(frames, TIMES))
    np.testing.assert_array_equal(pixels, frames)
    assert durations == [10 * time for time in TIMES]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (15, 17), (33, 1)])
def test_small_and_odd_sizes(height, width):
    frames = few_colours(3, 5, height, width)
    pixels, _ = decode(encode_gif(frames, [2, 3, 4]))
    np.testing.assert_array_equal(pixels, frames)


def test_equal_neighbours_stay_frames_of_their_own(equal_frames):
    pixels, durations = decode(encode_gif(equal_frames, TIMES))
    assert len(pixels) == 8
    assert durations == [10 * time for time in TIMES]
    assert (pixels == pixels[0]).all()


def test_imageio_reads_the_same(frames):
    data = encode_gif(frames, TIMES)
    np.testing.assert_array_equal(iio.imread(data, extension=".gif"), decode(data)[0])


def test_gradients_show_no_steps(frames):
    pixels, _ = decode(encode_gif(frames, TIMES))
    ours = blurred_error(frames, pixels)
    plain = np.stack([np.asarray(Image.fromarray(f).quantize(256).convert("RGB")) for f in frames])
    # Pillow's default palette, without dithering, has 1.9 of 255.
    assert ours < 1.5
    assert ours < 0.8 * blurred_error(frames, plain)


def test_large_frames_sample_their_palette():
    y, x = np.mgrid[0:384, 0:672]
    frame = np.stack([x * 255 // 671, y * 255 // 383, (x + y) * 255 // 1054], -1)
    frames = frame[None].astype(np.uint8)
    pixels, _ = decode(encode_gif(frames, [100]))
    # Measured 1.4 of 255.
    assert blurred_error(frames, pixels) < 2


def peak_signal_to_noise(frames: np.ndarray, pixels: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((frames * 1.0 - pixels) ** 2)))


def moving_gradient() -> np.ndarray:
    """A smooth clip with a little noise that stands still, and a disc that moves over it."""
    y, x = np.mgrid[0:64, 0:96]
    noise = np.random.default_rng(0).normal(0, 3, (64, 96, 3))
    still = np.stack([60 + x, 90 + y, 200 - x - y / 2], -1) + noise
    disc = [(np.hypot(x - 20 - 12 * t, y - 30) < 12)[..., None] for t in range(5)]
    return np.stack([np.where(d, 255 - still, still) for d in disc]).clip(0, 255).astype(np.uint8)


def former_bytes(frames: np.ndarray) -> int:
    """What whole frames of the widest palette with full Floyd-Steinberg dithering take."""
    total = 0
    for frame in map(Image.fromarray, frames):
        palette = frame.quantize(256, method=Image.Quantize.MAXCOVERAGE)
        file = io.BytesIO()
        frame.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(file, "GIF")
        total += len(file.getvalue())
    return total


def test_little_grain_in_few_bytes():
    frames = moving_gradient()
    data = encode_gif(frames, TIMES[:5])
    # Measured 40.8 dB; maximum coverage with full dithering has 37.7, libimagequant 41.2.
    assert peak_signal_to_noise(frames, decode(data)[0]) > 40
    # Measured 0.37.
    assert len(data) < 0.5 * former_bytes(frames)


def test_our_reader_shows_what_others_show(tmp_path):
    frames = moving_gradient()
    file = tmp_path / "a.gif"
    file.write_bytes(encode_gif(frames, TIMES[:5]))
    shown = decode(file.read_bytes())[0]
    np.testing.assert_array_equal(open_clip(file).frames(range(5)), shown)
    np.testing.assert_array_equal(iio.imread(file), shown)
    raw = run_ffmpeg(
        ["-i", str(file), "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
        subject="a.gif",
    )
    np.testing.assert_array_equal(np.frombuffer(raw, np.uint8).reshape(shown.shape), shown)


def test_what_stands_still_does_not_change():
    frames = moving_gradient()
    pixels, _ = decode(encode_gif(frames, TIMES[:5]))
    standing = (frames == frames[0]).all((0, 3))
    assert standing.mean() > 0.5
    changed = (pixels != pixels[0]).any((0, 3))
    # Errors handed on from where the disc moves reach a little way.
    assert changed[standing].mean() < 0.1


def test_a_flat_colour_has_no_specks():
    random = np.random.default_rng(1)
    frames = np.full((2, 64, 64, 3), [200, 30, 40], np.uint8)
    frames[:, :16] = random.integers(0, 256, (2, 16, 64, 3), np.uint8)
    pixels, _ = decode(encode_gif(frames, [10, 10]))
    # Three rows away from the noise, whose errors are handed on.
    flat = pixels[:, 20:].astype(int)
    assert (flat == flat[0, 0, 0]).all()
    assert np.abs(flat - frames[:, 20:]).max() <= 2


def test_colours_of_few_pixels_are_not_missed():
    """One more than are kept exactly, most of them on one pixel of a large drawing each."""
    frames = np.zeros((1, 512, 512, 3), np.uint8)
    frames[0, 100, 10:266] = np.arange(256)[:, None]
    frames[0, 200, 10:20] = [255, 0, 0]
    pixels, _ = decode(encode_gif(frames, [10]))
    assert np.abs(pixels.astype(int) - frames).max() <= 8
    assert (pixels[0, 300:] == 0).all()


def test_frames_of_few_and_of_many_colours_mix():
    frames = moving_gradient()
    frames[2] = few_colours(1, 256, 64, 96)[0]
    pixels, _ = decode(encode_gif(frames, TIMES[:5]))
    np.testing.assert_array_equal(pixels[2], frames[2])
    assert peak_signal_to_noise(frames, pixels) > 40


def test_many_frames_are_mixed_in_parts(monkeypatch):
    monkeypatch.setattr(gif, "_MOST_FRAMES_TOGETHER", 2)
    frames = moving_gradient()
    pixels, _ = decode(encode_gif(frames, TIMES[:5]))
    assert peak_signal_to_noise(frames, pixels) > 40


@pytest.mark.parametrize(("height", "width"), [(1, 600), (600, 1), (17, 31)])
def test_many_colours_in_odd_sizes(height, width):
    place = np.arange(height * width).reshape(height, width)
    frames = np.stack(
        [np.stack([place // 3, place % 250 + t, 255 - place // 3], -1) for t in (0, 5)]
    )
    pixels, _ = decode(encode_gif(frames.astype(np.uint8), [2, 3]))
    assert 30 < peak_signal_to_noise(frames, pixels) < 60


def test_runs_for_ever(frames):
    with Image.open(io.BytesIO(encode_gif(frames, TIMES))) as image:
        assert image.info["loop"] == 0


def test_a_still_picture_has_one_frame_and_no_loop(frames):
    data = encode_gif(frames[:1], [100])
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 1
        assert "loop" not in image.info


@pytest.mark.parametrize("size", [0, 1, 254, 255, 256, 510, 1000])
def test_comment(frames, size):
    comment = bytes(range(32, 127)) * 11
    data = encode_gif(frames[:2], TIMES[:2], comment[:size])
    assert parse_gif(data).comment == comment[:size]
    with Image.open(io.BytesIO(data)) as image:
        assert image.info.get("comment", b"") == comment[:size]


def test_too_long_a_side():
    with pytest.raises(UsageError, match="65535"):
        encode_gif(np.zeros((1, 1, 65536, 3), np.uint8), [10])


def test_blocks(frames):
    blocks = parse_gif(encode_gif(frames, TIMES))
    assert (blocks.width, blocks.height) == (40, 24)
    assert [image.hundredths for image in blocks.images] == TIMES


def test_a_time_holds_for_one_image_only():
    timed = encode_gif(few_colours(1, 4), [7])
    start = timed.rindex(b",\0\0\0\0")
    assert [image.hundredths for image in parse_gif(timed[:-1] + timed[start:]).images] == [7, 0]


def test_counting_stops_above_the_limit(equal_frames):
    data = encode_gif(equal_frames, TIMES)
    assert len(parse_gif(data, most_images=3).images) == 4


def test_every_cut_is_noticed_or_harmless(frames):
    data = encode_gif(frames[:2, :6, :6], [10, 10], b"comment")
    whole = parse_gif(data)
    noticed = 0
    for length in range(len(data)):
        try:
            blocks = parse_gif(data[:length])
        except GifError:
            noticed += 1
        else:
            # Cut between blocks: what is left are whole images.
            assert blocks.images == whole.images[: len(blocks.images)]
    assert noticed > 0.98 * len(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a GIF"),
        (b"GIF90a" + bytes(20), "is not a GIF"),
        (b"GIF89a" + bytes(7) + b";", "without a frame"),
        (b"GIF89a" + bytes(7) + b"what", "begins no block"),
    ],
)
def test_not_a_gif(data, message):
    with pytest.raises(GifError, match=message):
        parse_gif(data)
