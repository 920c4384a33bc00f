import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.media.metadata import pack_metadata, read_metadata, unpack_metadata
from hotshot_jax.media.write import write_video

SMALL = np.arange(3 * 4 * 6 * 3, dtype=np.uint8).reshape(3, 4, 6, 3)
PROMPT = {"prompt": "Ein Bär – 日本 🐻\n= ; # \\ \" ' \0 \ud800", "seed": "455"}
# Surrogates too: command lines that are not UTF-8 reach Python with them.
any_text = st.text(st.characters(exclude_categories=()), max_size=40)


@given(st.dictionaries(any_text, any_text, max_size=4))
def test_any_text_survives_packing(metadata):
    packed = pack_metadata(metadata)
    assert packed.isascii()
    assert packed.isprintable()
    assert unpack_metadata(packed) == metadata


@pytest.mark.parametrize(
    "text",
    ["", "x", "[]", "{}", '"a"', '{"hotshot_jax": []}', '{"hotshot_jax": {"a": 1}}', "[" * 9999],
)
def test_other_text_is_not_settings(text):
    assert unpack_metadata(text) is None


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.mp4", "folder"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    "metadata", [PROMPT, {}, {"long": "é" * 50_000}], ids=["text", "none", "long"]
)
def test_a_clip_tells_its_settings(tmp_path, name, count, metadata):
    path = write_video(tmp_path / name, SMALL[:count], 1000, metadata)
    assert read_metadata(path) == metadata


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.png", "a.PNG"])
@pytest.mark.parametrize(
    "metadata", [PROMPT, {}, {"long": "é" * 50_000}], ids=["text", "none", "long"]
)
def test_a_picture_tells_its_settings(tmp_path, name, metadata):
    path = write_video(tmp_path / name, SMALL[:1], 1000, metadata)
    assert read_metadata(path) == metadata
    with Image.open(path) as image:
        image.load()


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.jpg", "a.png"])
@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(metadata=st.dictionaries(any_text, any_text, max_size=3))
def test_any_settings_survive_a_file(tmp_path, name, metadata):
    path = write_video(tmp_path / name, SMALL[:1], 1000, metadata, overwrite=True)
    assert read_metadata(path) == metadata


@pytest.mark.parametrize("ending", ["gif", "webp", "jpg", "png"])
def test_a_file_of_another_program(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(SMALL[0]).save(path)
    with pytest.raises(HotshotError, match="no settings of hotshot-jax"):
        read_metadata(path)


@pytest.mark.parametrize("ending", ["gif", "webp", "jpg", "png", "mp4"])
@pytest.mark.parametrize("content", [b"", b"no picture", b"GIF89a\0", b"RIFF\0\0\0\0WEBPVP8X"])
def test_a_damaged_file(tmp_path, ending, content):
    path = tmp_path / f"a.{ending}"
    path.write_bytes(content)
    with pytest.raises(HotshotError, match=rf"a\.{ending}"):
        read_metadata(path)


def test_nothing_there(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        read_metadata(tmp_path / "a.gif")


def test_a_folder_without_frames(tmp_path):
    with pytest.raises(HotshotError, match="no frames"):
        read_metadata(tmp_path)


def test_unknown_ending(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"a\.txt.*\.gif"):
        read_metadata(tmp_path / "a.txt")
