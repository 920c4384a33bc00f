import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.media.formats.gif import encode_gif
from hotshot_jax.media.reading.clip import ReadLimits
from hotshot_jax.media.reading.read import natural_order, open_clip, read_key_frames
from hotshot_jax.media.write import write_video


def counted(count: int, height: int = 8, width: int = 12) -> np.ndarray:
    """Frames that are uniformly grey, each with its index as value."""
    grey = np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1)
    return np.broadcast_to(grey, (count, height, width, 3)).copy()


def indices_of(frames: np.ndarray) -> list[int]:
    assert (frames == frames[:, :1, :1, :1]).all()
    return frames[:, 0, 0, 0].tolist()


def test_gif(tmp_path):
    path = write_video(tmp_path / "a.gif", counted(8), 1000, {})
    clip = open_clip(path)
    assert (clip.width, clip.height, clip.is_picture) == (12, 8, False)
    assert clip.durations_ms == (120, 130) * 4
    frames = clip.frames([3, 0, 7, 3])
    assert frames.shape == (4, 8, 12, 3)
    assert frames.dtype == np.uint8
    assert indices_of(frames) == [3, 0, 7, 3]


@pytest.mark.parametrize("name", ["a.webp", "folder"])
def test_other_exact_forms(tmp_path, name):
    path = write_video(tmp_path / name, counted(12), 1200, {}, lossless=True)
    clip = open_clip(str(path))
    assert clip.durations_ms == ((100,) if name == "a.webp" else (0,)) * 12
    assert indices_of(clip.frames([11, 5])) == [11, 5]


def test_animated_png(tmp_path):
    first, *others = [Image.fromarray(frame) for frame in counted(3)]
    first.save(tmp_path / "a.png", save_all=True, append_images=others, duration=40)
    clip = open_clip(tmp_path / "a.png")
    assert clip.durations_ms == (40, 40, 40)
    assert indices_of(clip.frames([2])) == [2]


def test_mp4(tmp_path, frames):
    path = write_video(tmp_path / "a.mp4", frames, 1600, {})
    clip = open_clip(path)
    assert (clip.width, clip.height, clip.is_picture) == (40, 24, False)
    assert clip.durations_ms == (200,) * 8
    got = clip.frames([6, 1])
    # Lossy; measured 4.4 of 255, while neighbouring frames are 15 apart.
    assert np.sqrt(np.mean((got * 1.0 - frames[[6, 1]]) ** 2)) < 6


def test_webm(tmp_path, frames):
    from hotshot_jax.media.ffmpeg import run_ffmpeg

    raw = ["-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", "40x24", "-framerate", "10"]
    target = ["-i", "pipe:0", "-c:v", "libvpx-vp9", "-f", "webm", str(tmp_path / "a.webm")]
    run_ffmpeg([*raw, *target], subject="a.webm", feed=frames)
    clip = open_clip(tmp_path / "a.webm")
    assert clip.durations_ms == (100,) * 8
    assert clip.frames(range(8)).shape == (8, 24, 40, 3)


def test_the_content_tells_the_form(tmp_path, frames):
    gif = write_video(tmp_path / "a.gif", frames, 1000, {})
    gif.rename(tmp_path / "a.mp4")
    assert len(open_clip(tmp_path / "a.mp4").durations_ms) == 8


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_a_picture_is_held_still(tmp_path, name):
    clip = open_clip(write_video(tmp_path / name, counted(1) + 99, 1000, {}, lossless=True))
    assert clip.is_picture
    assert indices_of(read_key_frames(clip, 5, 1000)) == [99] * 5


def test_key_frames_of_an_animation(tmp_path):
    clip = open_clip(write_video(tmp_path / "a.gif", counted(20), 2000, {}))
    # A stride of 2 spans 1.4 s; a stride of 1 spans 0.7 s, which is nearer to 0.8 s.
    assert indices_of(read_key_frames(clip, 8, 1500)) == [2, 4, 6, 8, 10, 12, 14, 16]
    assert indices_of(read_key_frames(clip, 8, 800)) == [6, 7, 8, 9, 10, 11, 12, 13]


@pytest.mark.parametrize("count", [1, 7])
def test_too_few_frames(tmp_path, count):
    clip = open_clip(write_video(tmp_path / "a.gif", counted(count), 1000, {}))
    with pytest.raises(UsageError, match=rf"a\.gif: The clip has {count} frame.*asks for 8"):
        read_key_frames(clip, 8, 1000)


def test_zero_delays_are_no_times(tmp_path):
    (tmp_path / "a.gif").write_bytes(encode_gif(counted(9), [0] * 9))
    clip = open_clip(tmp_path / "a.gif")
    assert clip.durations_ms == (0,) * 9
    assert indices_of(read_key_frames(clip, 8, 1000)) == list(range(8))


def test_transparency_is_shown_on_white(tmp_path):
    pictures = []
    for colour in (1, 2):
        picture = Image.new("P", (6, 4), colour)
        picture.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
        picture.paste(0, (0, 0, 3, 4))
        pictures.append(picture)
    first, second = pictures
    animation = {"save_all": True, "append_images": [second], "disposal": 2, "duration": 50}
    first.save(tmp_path / "a.gif", transparency=0, **animation)
    first.save(tmp_path / "a.png", transparency=0)
    white, red, blue = [255] * 3, [255, 0, 0], [0, 0, 255]
    frames = open_clip(tmp_path / "a.gif").frames([0, 1])
    assert frames[:, 0, [0, 5]].tolist() == [[white, red], [white, blue]]
    assert open_clip(tmp_path / "a.png").frames([0])[0, 0, [0, 5]].tolist() == [white, red]


def test_half_transparency_is_mixed(tmp_path):
    Image.new("RGBA", (2, 2), (0, 0, 0, 128)).save(tmp_path / "a.png")
    assert open_clip(tmp_path / "a.png").frames([0])[0, 0, 0].tolist() == [127] * 3


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA"])
def test_other_modes_become_rgb(tmp_path, mode):
    ending = "jpg" if mode == "CMYK" else "png"
    Image.new("RGB", (8, 8), "white").convert(mode).save(tmp_path / f"a.{ending}")
    assert (open_clip(tmp_path / f"a.{ending}").frames([0]) == 255).all()


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    Image.fromarray(np.full((2, 2), 0x80FF, np.uint16)).save(tmp_path / "a.png")
    assert (open_clip(tmp_path / "a.png").frames([0]) == 0x80).all()


def test_floating_point_pixels_are_refused(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(HotshotError, match=r"a\.tiff .*floating-point"):
        open_clip(tmp_path / "a.tiff")


def test_orientation_tag_is_obeyed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    clip = open_clip(tmp_path / "a.jpg")
    assert (clip.width, clip.height) == (4, 8)
    assert clip.frames([0]).shape == (1, 8, 4, 3)


def test_folder_is_read_in_natural_order(tmp_path):
    for index, frame in enumerate(counted(12)):
        Image.fromarray(frame).save(tmp_path / f"Frame {index}.{'PNG' if index % 2 else 'png'}")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "prompt.txt").write_bytes(b"")
    (tmp_path / "nested").mkdir()
    clip = open_clip(tmp_path)
    assert indices_of(clip.frames(range(12))) == list(range(12))
    assert not clip.is_picture


def test_natural_order():
    names = ["a2b10", "a2b9", "a10", "A1", "10", "9", "a"]
    assert sorted(names, key=lambda name: natural_order(Path(name))) == [
        "9",
        "10",
        "a",
        "A1",
        "a2b9",
        "a2b10",
        "a10",
    ]


def test_folder_of_unequal_sizes(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    Image.new("RGB", (9, 8)).save(tmp_path / "2.png")
    with pytest.raises(HotshotError, match=r"2\.png is 9x8 pixels, but 1\.png is 8x8"):
        open_clip(tmp_path)


def test_folder_that_changes_after_it_was_opened(tmp_path, frames):
    folder = write_video(tmp_path / "clip", frames, 1000, {})
    clip = open_clip(folder)
    Image.new("RGB", (9, 8)).save(folder / "frame_0003.png")
    with pytest.raises(HotshotError, match="unequal size, such as frame 3"):
        clip.frames([2, 3])
    (folder / "frame_0003.png").unlink()
    with pytest.raises(HotshotError, match=r"frame_0003\.png cannot be read: No such file"):
        clip.frames([2, 3])


def test_folder_with_a_damaged_frame(tmp_path, frames):
    folder = write_video(tmp_path / "clip", frames, 1000, {})
    damaged = folder / "frame_0003.png"
    data = damaged.read_bytes()
    damaged.write_bytes(data[: len(data) // 2])
    clip = open_clip(folder)
    with pytest.raises(HotshotError, match=r"frame_0003\.png is cut short or damaged"):
        clip.frames([3])


def test_folder_without_pictures(tmp_path):
    (tmp_path / "prompt.txt").write_bytes(b"")
    with pytest.raises(HotshotError, match="holds no pictures"):
        open_clip(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        open_clip(tmp_path / "a.gif")
    (tmp_path / "link.gif").symlink_to(tmp_path / "nowhere")
    with pytest.raises(HotshotError, match="link to a file that does not exist"):
        open_clip(tmp_path / "link.gif")


@pytest.mark.parametrize("name", ["a.gif", "a.mp4", "a.webp", "a.png"])
def test_zero_bytes(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(HotshotError, match="zero bytes"):
        open_clip(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html></html>",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        bytes(100),
        b"\0",
    ],
)
def test_something_else(tmp_path, content):
    (tmp_path / "a.gif").write_bytes(content)
    with pytest.raises(HotshotError, match="is not a picture or clip"):
        open_clip(tmp_path / "a.gif")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.mp4", "a.png", "a.jpg"])
def test_cut_short(tmp_path, frames, name, part):
    frames = frames if name in ("a.gif", "a.webp", "a.mp4") else frames[:1]
    path = write_video(tmp_path / name, frames, 1000, {})
    data = path.read_bytes()
    # A PNG's last 20 bytes hold no pixels.
    path.write_bytes(data[: min(int(len(data) * part), len(data) - 30)])
    with pytest.raises(HotshotError, match=rf"a\.{name[2:]} .*(cut short|damaged|not a picture)"):
        clip = open_clip(path)
        clip.frames(range(len(clip.durations_ms)))


def test_broken_palette(tmp_path, frames):
    data = bytearray(encode_gif(frames, [12] * 8))
    # Claims a global palette of two colours where one of 256 follows.
    data[10] = 0xF0
    (tmp_path / "a.gif").write_bytes(data)
    with pytest.raises(HotshotError, match=r"a\.gif is (damaged|cut short|a GIF without a frame)"):
        open_clip(tmp_path / "a.gif")


def test_broken_pixels(tmp_path, frames):
    data = bytearray(encode_gif(frames, [12] * 8))
    data[1200:1500] = b"\xff" * 300
    (tmp_path / "a.gif").write_bytes(data)
    with pytest.raises(HotshotError, match=r"a\.gif is (damaged|cut short)"):
        open_clip(tmp_path / "a.gif").frames(range(8))


def test_mp4_without_a_video_track(tmp_path):
    from hotshot_jax.media.ffmpeg import run_ffmpeg

    tone = ["-f", "lavfi", "-i", "sine=duration=0.2", "-c:a", "aac"]
    run_ffmpeg([*tone, str(tmp_path / "a.mp4")], subject="a.mp4")
    with pytest.raises(HotshotError, match=r"a\.mp4 has no video track"):
        open_clip(tmp_path / "a.mp4")


def test_a_cover_picture_is_no_video_track(tmp_path):
    from hotshot_jax.media.ffmpeg import run_ffmpeg

    Image.new("RGB", (16, 16)).save(tmp_path / "cover.png")
    inputs = ["-f", "lavfi", "-i", "sine=duration=0.2", "-i", str(tmp_path / "cover.png")]
    tracks = ["-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v", "attached_pic"]
    run_ffmpeg([*inputs, *tracks, str(tmp_path / "a.m4a")], subject="a.m4a")
    with pytest.raises(HotshotError, match=r"a\.m4a has no video track"):
        open_clip(tmp_path / "a.m4a")


def test_mp4_without_ffmpeg(tmp_path, frames, monkeypatch):
    path = write_video(tmp_path / "a.mp4", frames, 1000, {})
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")
    with pytest.raises(HotshotError, match="ffmpeg, which was not found"):
        open_clip(path)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.mp4", "folder"])
def test_too_many_frames(tmp_path, frames, name):
    path = write_video(tmp_path / name, frames, 1000, {})
    assert len(open_clip(path, ReadLimits(most_frames=8)).durations_ms) == 8
    with pytest.raises(HotshotError, match="more than 7 frames"):
        open_clip(path, ReadLimits(most_frames=7))


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.mp4", "folder"])
def test_too_large(tmp_path, frames, name):
    path = write_video(tmp_path / name, frames, 1000, {})
    assert open_clip(path, ReadLimits(most_pixels_a_side=40)).width == 40
    with pytest.raises(HotshotError, match="40x24 pixels large; at most 39 a side"):
        open_clip(path, ReadLimits(most_pixels_a_side=39))


def test_huge_canvas_of_a_gif(tmp_path):
    data = bytearray(encode_gif(counted(8), [12] * 8))
    data[6:10] = struct.pack("<HH", 20_000, 20_000)
    (tmp_path / "a.gif").write_bytes(data)
    with pytest.raises(HotshotError, match="20000x20000 pixels large"):
        open_clip(tmp_path / "a.gif")


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_decompression_bomb(tmp_path, side):
    # A header alone is enough: Pillow warns at the first size and refuses the second.
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(HotshotError, match="too many pixels"):
            open_clip(tmp_path / "a.png")


def test_frames_out_of_range(tmp_path, frames):
    clip = open_clip(write_video(tmp_path / "a.gif", frames, 1000, {}))
    for index in (-1, 8):
        with pytest.raises(IndexError):
            clip.frames([index])
    assert clip.frames([]).shape == (0, 24, 40, 3)
