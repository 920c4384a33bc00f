"""Captions in every usual file, and never two for one clip."""

import json
from pathlib import Path

import pytest
from clips import write_sample
from PIL import Image
from test_build import write_gif

from hotshot_jax.data.folders import open_folders
from hotshot_jax.data.origins import VideoOrigin, find_origin
from hotshot_jax.errors import HotshotError

CLIP = "sub/clip.gif"


def json_text(value: object) -> str:
    return json.dumps(value)


CAPTIONS = {
    "sub/clip.txt": "a dög",
    "sub/clip.TXT": "a dög",
    "sub/clip.caption": "\ufeffa dög\n",
    "sub/clip.Caption": "a dög",
    "sub/clip.JSON": json_text({"caption": "a dög"}),
    "sub/clip.json": json_text("a dög"),
    "metadata.jsonl": json_text({"file_name": CLIP, "text": "a dög"}) + "\n\n",
    "Metadata.JSONL": json_text({"file_name": CLIP, "prompt": "a dög"}),
    "sub/metadata.jsonl": json_text({"file_name": "clip.gif", "text": "a dög"}),
    "sub/metadata.csv": 'file_name,text\r\nclip.gif,"a dög"\r\n',
    "metadata.CSV": f"\ufeffFile_Name,Caption\n./{CLIP},a dög\n",
    "captions.csv": f"video,caption,fps\n{CLIP},a dög,8\n",
    "train.jsonl": json_text({"video_path": CLIP, "caption": "a dög"}),
    # As kohya's scripts write them: by name, with or without ending.
    "meta_cap.json": json_text({CLIP: {"caption": "a dög"}}),
    "sub/meta.json": json_text({"clip": {"tags": "a dög"}}),
    "metadata.json": json_text([{"file_name": CLIP, "caption": "a dög"}]),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    write_gif(tmp_path / CLIP, 2, (8, 8))
    return tmp_path


@pytest.mark.parametrize("name", CAPTIONS)
def test_a_caption_is_read_from(root: Path, name: str) -> None:
    (root / name).write_text(CAPTIONS[name], encoding="utf-8", newline="")
    origin = VideoOrigin(root, 2)
    (clip,) = origin.clips(*origin.items())
    assert clip.prompt == "a dög"
    assert origin.left_out() == ()


def test_tags_follow_the_caption_and_absolute_paths_are_found(root: Path) -> None:
    entry = {str(root / CLIP): {"caption": "a dog", "tags": "brown, wet"}}
    (root / "meta_lat.json").write_text(json.dumps(entry))
    assert VideoOrigin(root, 2).clips(CLIP)[0].prompt == "a dog, brown, wet"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sub/clip.txt", "sub/clip.TXT"),
        ("sub/clip.txt", "sub/clip.caption"),
        ("sub/clip.json", "metadata.jsonl line 1"),
        ("sub/metadata.csv line 2", "metadata.jsonl line 1"),
    ],
)
def test_two_captions_for_one_clip_name_both(root: Path, one: str, other: str) -> None:
    for each in (one, other):
        name = each.partition(" line")[0]
        (root / name).write_text(CAPTIONS[name], encoding="utf-8", newline="")
    origin = VideoOrigin(root, 2)
    origin.items()
    with pytest.raises(HotshotError) as raised:
        origin.clips(CLIP)
    message = str(raised.value)
    assert message.startswith(f"{CLIP}: has 2 captions") and one in message and other in message


def test_two_rows_of_one_table_are_two_captions(root: Path) -> None:
    line = json.dumps({"file_name": CLIP, "text": "a"})
    (root / "metadata.jsonl").write_text(f"{line}\n{line}")
    with pytest.raises(HotshotError, match=r"line 1 and in metadata\.jsonl line 2"):
        VideoOrigin(root, 2).clips(CLIP)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("sub/clip.json", "{", "is not valid JSON"),
        ("sub/clip.json", '{"captions": "a"}', 'expected {"caption": "..."}'),
        ("sub/clip.json", '""', "is empty"),
        ("sub/clip.caption", " \n", "is empty"),
        ("metadata.csv", f"name,text\n{CLIP},a", "expected columns file_name and text"),
        ("metadata.csv", f"file_name,text\n{CLIP}\n", "line 2: expected"),
        ("metadata.csv", f'file_name,text\n{CLIP},"a', "is not CSV"),
        ("metadata.csv", "", "has no prompt"),
        ("metadata.json", "3", "expected a list of objects"),
        ("metadata.json", f'{{"{CLIP}": 3}}', "expected"),
        ("metadata.jsonl", f'{{"file_name": "{CLIP}", "text": " "}}', "line 1: is empty"),
    ],
)  # fmt: skip
def test_broken_captions_are_named(root: Path, name: str, text: str, message: str) -> None:
    (root / name).write_text(text)
    with pytest.raises(HotshotError) as raised:
        origin = VideoOrigin(root, 2)
        origin.clips(*origin.items())
    assert message in str(raised.value)


def test_tables_that_are_none_are_left_out(root: Path) -> None:
    (root / "sub/clip.txt").write_text("a")
    (root / "package.json").write_text('{"name": "x"}')
    (root / "numbers.csv").write_text("a,b\n1,2\n")
    (left_out,) = VideoOrigin(root, 2).left_out()
    assert left_out.kind == "other files" and left_out.count == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s/prompt.txt", "a dög"),
        ("s/Prompt.TXT", "a dög"),
        ("s/prompt.caption", "a dög"),
        ("s/prompt.json", '{"text": "a dög"}'),
        ("metadata.csv", "file_name,text\ns,a dög\n"),
        ("metadata.jsonl", '{"file_name": "s", "text": "a dög"}'),
    ],
)
def test_folders_of_frames_have_their_prompts_likewise(
    tmp_path: Path, name: str, text: str
) -> None:
    write_sample(tmp_path / "s", 2)
    (tmp_path / "s/prompt.txt").unlink()
    (tmp_path / name).write_text(text)
    source, scan = open_folders(tmp_path, 2)
    assert source[0].prompt == "a dög" and scan.left_out == ()
    origin = find_origin(tmp_path, 2)
    assert origin.clips("s")[0].prompt == "a dög"
    other = "s/PROMPT.caption" if name != "s/prompt.caption" else "s/prompt.txt"
    (tmp_path / other).write_text("another")
    with pytest.raises(HotshotError, match="has 2 captions") as raised:
        open_folders(tmp_path, 2)
    assert name in str(raised.value) and other in str(raised.value)


def test_an_animated_webp_is_a_video_and_a_still_one_a_picture(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), (index * 60, 0, 0)) for index in range(3)]
    frames[0].save(tmp_path / "a.WEBP", save_all=True, append_images=frames[1:], lossless=True)
    frames[0].save(tmp_path / "b.webp")
    (tmp_path / "a.txt").write_text("a")
    origin = find_origin(tmp_path, 3)
    assert isinstance(origin, VideoOrigin) and list(origin.items()) == ["a.WEBP"]
    assert [each.kind for each in origin.left_out()] == ["pictures among videos"]
    assert len(origin.clips("a.WEBP")[0].pictures) == 3
    write_sample(tmp_path / "s/s", 2, ending=".webp")
    assert not isinstance(find_origin(tmp_path / "s", 2), VideoOrigin)
