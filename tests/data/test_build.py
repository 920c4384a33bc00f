import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import picture, write_data, write_sample
from PIL import Image
from test_folders import BROKEN, break_samples

from hotshot_jax.cli.data.command import build
from hotshot_jax.data.folders import open_folders
from hotshot_jax.data.loader import Loader, LoaderConfig
from hotshot_jax.data.open_data import open_data
from hotshot_jax.data.records import RecordSource, find_data_set
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.media.ffmpeg import run_ffmpeg
from hotshot_jax.media.write import write_video
from hotshot_jax.writing.places import LIST

# Beam's protobuf is newer than what TFDS was written for.
pytestmark = pytest.mark.filterwarnings("ignore:label\\(\\) is deprecated:DeprecationWarning")

CONFIG = LoaderConfig(batch_size=3, frames=2, resolution=32, threads=2)


def built(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    status = build([str(argument) for argument in (*arguments, "--json")])
    out, err = capsys.readouterr()
    assert status == 0, err
    return json.loads(out)


def failed(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    status = build([str(argument) for argument in arguments])
    assert status != 0
    return status, capsys.readouterr().err


def write_gif(path: Path, frames: int, size: tuple[int, int] = (32, 24), ms: int = 120) -> None:
    images = [Image.fromarray(picture(index, *size)).quantize(32) for index in range(frames)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=ms, loop=0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folders")
    write_data(root, [(32, 32)] * 4 + [(64, 36)] * 3, frames=3)
    write_sample(root / "sample_10", 3, (32, 32), prompt="ein Kätzchen", ending=".jpg", seed=10)
    return root


@pytest.fixture(scope="module")
def records(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("records") / "set"
    assert build(["--source", str(folders), "--output", str(output), "--frames", "2"]) == 0
    return output


def test_records_load_as_the_folders_that_they_were_built_from(
    folders: Path, records: Path
) -> None:
    from_records, from_folders = open_data(records, 2), open_data(folders, 2)
    assert (from_records.kind, from_folders.kind) == ("records", "folders")
    np.testing.assert_array_equal(from_records.source.table, from_folders.source.table)
    with Loader(from_records.source, CONFIG) as a, Loader(from_folders.source, CONFIG) as b:
        for _ in range(8):
            left, right = next(a), next(b)
            assert (left.samples, left.prompts, left.size) == (
                right.samples,
                right.prompts,
                right.size,
            )
            np.testing.assert_array_equal(left.frames, right.frames)
            np.testing.assert_array_equal(left.time_ids, right.time_ids)
        assert a.get_state() == b.get_state()


def test_the_table_of_sizes_is_mapped_and_made_anew_where_it_is_missing(
    records: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "set"
    shutil.copytree(records, copy)
    folder = find_data_set(copy)
    assert folder is not None
    assert isinstance(RecordSource(folder).table, np.memmap)
    (table,) = folder.glob("clip_table-*.npy")
    expected = np.load(table)
    table.unlink()
    np.testing.assert_array_equal(RecordSource(folder).table, expected)
    assert table.exists()
    table.write_bytes(b"not a table")
    with pytest.raises(HotshotError, match="delete it"):
        RecordSource(folder)


def test_a_source_can_be_sent_to_a_process(records: Path) -> None:
    source = open_data(records, 2).source
    again = pickle.loads(pickle.dumps(source))
    assert again[1].digest([0, 1]) == source[1].digest([0, 1])


def test_clips_with_too_few_frames_are_told_or_skipped(tmp_path: Path) -> None:
    write_sample(tmp_path / "in/a", 2)
    write_sample(tmp_path / "in/b", 4, prompt="long")
    assert (
        build(["--source", f"{tmp_path}/in", "--output", f"{tmp_path}/out", "--frames", "2"]) == 0
    )
    with pytest.raises(
        HotshotError, match=r"1 of 2 samples[^\n]*\n  a: has 2 frames, but 4 are needed"
    ):
        open_data(tmp_path / "out", 4)
    opened = open_data(tmp_path / "out", 4, "skip")
    assert len(opened.source) == len(opened.source.table) == 1
    assert opened.source[0].prompt == "long" and len(opened.problems) == 1


def test_broken_folders_are_told_whole_and_nothing_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    break_samples(tmp_path / "in")
    write_sample(tmp_path / "in/good")
    status, message = failed(capsys, "--source", tmp_path / "in", "--output", tmp_path / "out")
    assert status == 1 and all(line in message for line in BROKEN.values())
    assert "Traceback" not in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]

    skipping = (
        "--source",
        tmp_path / "in",
        "--output",
        tmp_path / "out",
        "--on_bad_sample",
        "skip",
    )
    report = built(capsys, *skipping)
    assert report["clips"] == 1 and len(report["left_out"]) >= len(BROKEN)
    assert open_data(tmp_path / "out").source[0].name == "good"


def test_what_is_there_is_not_overwritten_unless_asked(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = ("--kind", "shapes", "--size", 16, "--output", tmp_path / "set", "--length")
    assert built(capsys, *shapes, 3)["clips"] == 3
    status, message = failed(capsys, *shapes, 4)
    assert status == 2 and "--overwrite" in message
    (tmp_path / "bad/s").mkdir(parents=True)
    assert failed(capsys, "--source", tmp_path / "bad", "--output", tmp_path / "set", "--overwrite")
    assert len(open_data(tmp_path / "set").source) == 3
    assert built(capsys, *shapes, 4, "--overwrite")["clips"] == 4
    assert len(open_data(tmp_path / "set").source) == 4


def spell(way: str, root: Path, name: str) -> Path:
    """Another path to `root/name`."""
    if way == "link":
        (root / "link").symlink_to(name)
        return root / "link"
    return root / name / ".." / name if way == "dots" else root / name


@pytest.mark.parametrize("way", ["plain", "dots", "link"])
@pytest.mark.parametrize("output", ["raw", ".", "raw/set", "raw/a"])
def test_what_is_read_is_never_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str, output: str
) -> None:
    write_sample(tmp_path / "raw/a", 8)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    source = spell(way, tmp_path, "raw")
    status, message = failed(
        capsys, "--source", source, "--output", tmp_path / output, "--overwrite"
    )
    assert status == 2 and "--output" in message and "Traceback" not in message
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("what", ["videos", "a file more", "a file changed", "no list"])
def test_only_a_data_set_that_was_built_here_is_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    output = tmp_path / "set"
    shapes = ("--kind", "shapes", "--size", 16, "--length", 2, "--output", output)
    if what == "videos":
        output.mkdir()
        write_gif(output / "holiday.gif", 8)
    else:
        built(capsys, *shapes)
    if what == "a file more":
        (output / "hotshot_clips/notes.txt").write_text("mine")
    if what == "a file changed":
        with next(output.rglob("features.json")).open("a") as file:
            file.write(" ")
    if what == "no list":
        (output / LIST).unlink()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    status, message = failed(capsys, *shapes, "--overwrite")
    assert status == 2 and str(output) in message
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_shapes_are_built_as_they_are_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        "--kind",
        "shapes",
        "--length",
        5,
        "--size",
        24,
        "--seed",
        3,
        "--split",
        "held_out",
    )
    built(capsys, *arguments, "--output", tmp_path / "set")
    stored = open_data(tmp_path / "set").source
    drawn = open_data("shapes:held_out?length=5&size=24&seed=3").source
    np.testing.assert_array_equal(stored.table, drawn.table)
    for index in range(5):
        assert (stored[index].prompt, stored[index].name) == (
            drawn[index].prompt,
            drawn[index].name,
        )
        np.testing.assert_array_equal(stored[index].frame(7), drawn[index].frame(7))


@pytest.mark.parametrize(
    "query", ["test", "?length=0", "?wide=3", "?size", "?moment=soon", "?says=nothing"]
)
def test_shapes_that_cannot_be_drawn_are_wrong_usage(query: str) -> None:
    with pytest.raises(UsageError):
        open_data(f"shapes:{query}")


def test_videos_become_clips_of_key_frames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in"
    (source / "more").mkdir(parents=True)
    write_gif(source / "clip_2.gif", 40, ms=50)
    (source / "clip_2.txt").write_text("a dog")
    write_gif(source / "more/clip_1.GIF", 8)
    lines = [{"file_name": "more/clip_1.GIF", "text": "a cät"}]
    (source / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    report = built(capsys, "--source", source, "--output", tmp_path / "one")
    assert report["clips"] == 2
    clips = open_data(tmp_path / "one").source
    assert [clips[0].prompt, clips[1].prompt] == ["a cät", "a dog"]
    # 40 frames of 50 ms: every second or third frame from the middle spans about a second.
    with Image.open(source / "clip_2.gif") as gif:
        frames = [np.asarray(gif.seek(index) or gif.convert("RGB")) for index in range(40)]
    chosen = [
        next(i for i, frame in enumerate(frames) if np.array_equal(frame, clips[1].frame(place)))
        for place in range(8)
    ]
    strides = set(np.diff(chosen).tolist())
    assert strides <= {2, 3} and len(strides) == 1 and 8 <= chosen[0] <= 14

    many = ("--source", source, "--output", tmp_path / "many", "--clips_per_video", 5)
    assert built(capsys, *many)["clips"] == 3
    names = [open_data(tmp_path / "many").source[index].name for index in range(3)]
    assert names == ["more/clip_1.GIF", "clip_2.gif#0", "clip_2.gif#1"]


@pytest.mark.parametrize("ending", ["mp4", "webm"])
def test_compressed_videos_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    frames = np.stack([np.full((32, 48, 3), 20 * index, np.uint8) for index in range(10)])
    (tmp_path / "in").mkdir()
    video = write_video(tmp_path / "clip.mp4", frames, 1250, {})
    if ending == "webm":
        codec = ["-c:v", "libvpx", "-b:v", "1M"]
        run_ffmpeg(["-i", str(video), *codec, str(tmp_path / "in/clip.webm")], subject="webm")
    else:
        video.rename(tmp_path / "in/clip.mp4")
    (tmp_path / "in/clip.txt").write_text("getting brighter")
    options = (
        "--source",
        tmp_path / "in",
        "--output",
        tmp_path / "out",
        "--picture_format",
        "jpeg",
    )
    assert built(capsys, *options)["clips"] == 1
    clip = open_data(tmp_path / "out").source[0]
    levels = [clip.frame(place).mean() for place in range(8)]
    assert clip.frame(0).shape == (32, 48, 3) and (np.diff(levels) > 10).all()


def test_broken_videos_are_told_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("good", "short", "mute", "cut", "text", "void", "latin"):
        write_gif(source / f"{name}.gif", 7 if name == "short" else 9)
        (source / f"{name}.txt").write_text("a dog")
    (source / "mute.txt").unlink()
    (source / "cut.gif").write_bytes((source / "cut.gif").read_bytes()[:900])
    (source / "text.gif").write_text("<html>")
    (source / "void.gif").write_bytes(b"")
    (source / "latin.txt").write_bytes(b"caf\xe9")
    status, message = failed(capsys, "--source", source, "--output", tmp_path / "out")
    assert status == 1 and "6 of 7 samples" in message
    for part in (
        "short.gif: has 7 frames, but 8 are needed",
        "mute.gif: has no prompt; expected mute.txt beside it",
        "cut.gif ",
        "text.gif is not a picture or clip",
        "void.gif is empty",
        "latin.txt: is not UTF-8",
    ):
        assert part in message
    assert "good.gif" not in message and not (tmp_path / "out").exists()


def test_videos_must_be_built_before_training(tmp_path: Path) -> None:
    write_gif(tmp_path / "clip.gif", 8)
    with pytest.raises(UsageError, match=r"python -m hotshot_jax\.data\.build"):
        open_data(tmp_path)


@pytest.mark.parametrize("line", ["[]", "{", '{"file_name": "a.gif"}', '{"prompt": "a"}'])
def test_a_broken_line_of_metadata_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    (tmp_path / "in").mkdir()
    write_gif(tmp_path / "in/a.gif", 8)
    (tmp_path / "in/metadata.jsonl").write_text('{"file_name": "b", "prompt": "b"}\n' + line)
    _, message = failed(capsys, "--source", tmp_path / "in", "--output", tmp_path / "out")
    assert "metadata.jsonl line 2: expected" in message


@pytest.mark.parametrize(
    "arguments",
    [
        ["--output", "out"],
        ["--source", "missing", "--output", "out"],
        ["--kind", "shapes", "--output", "out", "--frames", "0"],
        ["--kind", "shapes", "--output", "out", "--seed", "-1"],
        ["--kind", "shapes", "--output", "out", "--duration", "nan"],
        ["--kind", "shapes", "--output", "out", "--unknown"],
        ["--kind", "shapes"],
    ],
)
def test_wrong_flags_end_with_status_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments
) -> None:
    monkeypatch.chdir(tmp_path)
    status, message = failed(capsys, *arguments)
    assert status == 2 and "Traceback" not in message
    assert not list(tmp_path.iterdir())


def test_other_data_sets_are_refused(tmp_path: Path, records: Path) -> None:
    shutil.copytree(records, tmp_path / "a")
    shutil.copytree(records, tmp_path / "b")
    folder = find_data_set(tmp_path / "a")
    assert folder is not None
    shutil.copytree(folder, folder.with_name("1.0.1"))
    with pytest.raises(UsageError, match="several data sets"):
        open_data(tmp_path / "a")
    assert find_data_set(folder) == folder
    shutil.rmtree(folder.with_name("1.0.1"))
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(HotshotError, match="cannot be opened"):
        open_data(tmp_path / "a")
    for shard in find_data_set(tmp_path / "b").glob("*array_record*"):
        shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(HotshotError):
        Loader(open_data(tmp_path / "b").source, CONFIG).__next__()


def test_folders_and_records_give_equal_batches_in_a_fixed_bucket(
    folders: Path, records: Path
) -> None:
    config = replace(CONFIG, aspect_ratio="1.00")
    a, b = Loader(open_folders(folders, 2)[0], config), Loader(open_data(records, 2).source, config)
    with a, b:
        np.testing.assert_array_equal(next(a).frames, next(b).frames)


def test_beam_builds_the_same_data_set(
    folders: Path, records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("apache_beam")
    source = ("--source", folders, "--output", tmp_path / "set", "--frames", 2)
    assert built(capsys, *source, "--beam", "--runner=DirectRunner")["clips"] == 8
    here, there = open_data(records, 2).source, open_data(tmp_path / "set", 2).source
    assert [here[i].name for i in range(8)] == [there[i].name for i in range(8)]
    assert [here[i].digest([0, 1]) for i in range(8)] == [there[i].digest([0, 1]) for i in range(8)]
    for file in filter(Path.is_file, records.rglob("*")):
        assert (tmp_path / "set" / file.relative_to(records)).read_bytes() == file.read_bytes()
