import itertools
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from benchmarks import clip_eval
from benchmarks.running.results_file import ResultsFile
from benchmarks.toy.clip_tasks import (
    LONG,
    TRAVEL,
    ClipTask,
    Way,
    Windows,
    clip_tasks,
    ping_pong,
    setback,
)
from benchmarks.toy.shapes_evaluator import COLOUR_WORDS, shape_colours
from benchmarks.toy.start_tasks import start_tasks
from hotshot_jax.data.shapes import is_held_out, parse_prompt, render
from hotshot_jax.errors import HotshotError, UsageError

TASKS = clip_tasks(Windows())
STILL = "a red square standing still on a black background"
BLUE = STILL.replace("red", "blue")


def squares(colours: Any, at: Any = None) -> np.ndarray:
    """A square in each colour, on black: uint8 [frames, 64, 64, 3]."""
    frames = []
    for index, colour in enumerate(colours):
        image = Image.new("RGB", (64, 64), (10, 10, 10))
        left = 20 if at is None else at[index]
        ImageDraw.Draw(image).rectangle([left, 20, left + 22, 42], tuple(map(int, colour)))
        frames.append(np.asarray(image))
    return np.stack(frames)


def blend(count: int) -> list[np.ndarray]:
    red, purple, blue = (np.array(COLOUR_WORDS[name]) for name in ("red", "purple", "blue"))
    path = []
    for part in np.linspace(0, 2, count):
        a, b = (red, purple) if part <= 1 else (purple, blue)
        path.append(a + (b - a) * (part if part <= 1 else part - 1))
    return path


def test_prompts_are_held_out_and_those_of_fewer_clips_are_the_first_of_more() -> None:
    for name, motions in (("loops", 2), ("long", 8), ("travel", 8)):
        task = TASKS[name]
        many = task.chosen(task.count)
        assert many[:7] == task.chosen(7)
        assert all(any(is_held_out(prompt) for prompt in keys.values()) for keys in many)
        if name != "travel":
            assert all(is_held_out(keys[0]) for keys in many)
        counts = Counter(parse_prompt(keys[0]).motion for keys in many)
        assert len(counts) == motions
    assert {parse_prompt(keys[0]).motion for keys in TASKS["loops"].prompts} == {
        "spinning",
        "standing still",
    }
    repeats = Counter(keys[0] for keys in TASKS["loops"].chosen(200))
    assert len(repeats) == len(TASKS["loops"].prompts) and max(repeats.values()) == 4
    for keys in TASKS["travel"].chosen(40):
        assert list(keys) == [0, TRAVEL - 1]
        assert keys[0].replace("red", "blue") == keys[TRAVEL - 1] != keys[0]


def test_the_colour_of_the_shape_in_each_frame() -> None:
    path = blend(24)
    found = shape_colours(squares(path))
    np.testing.assert_allclose(np.stack(found), np.trunc(path), atol=0.5)
    assert shape_colours(np.full((2, 32, 32, 3), 10, np.uint8)) == [None, None]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ([0, 350, 340, 300], 0),
        ([350, 10, 30], 0),
        ([30, 10, 12, 350], 2),
        ([0, 10, 4, 8, 3, 20], 7),
        ([5], 0),
        ([], 0),
    ],
)
def test_how_far_a_path_of_hues_goes_back(path: list[float], expected: float) -> None:
    assert setback(path) == pytest.approx(expected)


def record(task: ClipTask, way: str, frames: np.ndarray, **keys: str) -> dict[str, Any]:
    made = {0: STILL} if not keys else {int(k[1:]): v for k, v in keys.items()}
    return task.record(made, task.ways.get(way, Way(len(frames))), frames)


def test_a_loop_that_closes_and_a_clip_that_jumps() -> None:
    task = TASKS["loops"]
    red = [COLOUR_WORDS["red"]] * 8
    there_and_back = squares(red, [10, 14, 18, 22, 26, 22, 18, 14])
    one_way = squares(red, range(4, 36, 4))
    closed, jumps = record(task, "loop", there_and_back), record(task, "plain", one_way)
    assert closed["loop_gap"] == pytest.approx(1) and jumps["loop_gap"] > 4
    assert closed["colour"] and closed["shape"] and closed["background"]
    there = record(task, "ping-pong", ping_pong(one_way))
    assert there["loop_gap"] == pytest.approx(1) and len(ping_pong(one_way)) == 14
    wrong = {**closed, "shape": False, "loop_gap": 2.0}
    figures = {
        f.name: f
        for f in task.figures(
            {"loop": [closed] * 9 + [wrong], "plain": [jumps] * 10, "ping-pong": [there] * 10}
        )
    }
    gap = figures["loop gap at most 1.25"]
    assert gap.values == {"loop": 0.9, "plain": 0, "ping-pong": 1} and gap.holds
    assert figures["colour right"].holds and not figures["shape right"].holds
    assert figures["loop gap, median"].values["loop"] == pytest.approx(1)


def test_long_clips_are_judged_by_slices_and_steps_into_windows() -> None:
    task = TASKS["long"]
    steady = squares([COLOUR_WORDS["red"]] * LONG, [10 + f % 2 for f in range(LONG)])
    found = record(task, "windows", steady)
    assert found["colour"] == found["shape"] == [True] * 8
    assert found["at_starts"] == pytest.approx(found["elsewhere"])
    turned = steady.copy()
    turned[16:24] = squares([COLOUR_WORDS["green"]] * 8)
    assert record(task, "windows", turned)["colour"] == [True, True, False] + [True] * 5
    jumps = squares(
        [COLOUR_WORDS["red"]] * LONG, [10 + f % 2 + 9 * (f // 8 % 2) for f in range(LONG)]
    )
    seams = record(task, "batched", jumps)
    differences = np.abs(np.diff(jumps.astype(float), axis=0)).mean(axis=(1, 2, 3))
    starts = np.arange(8, 64, 8) - 1
    assert seams["at_starts"] == pytest.approx(differences[starts].mean())
    assert seams["elsewhere"] == pytest.approx(np.delete(differences, starts).mean())
    plain = record(task, "plain, 8 frames", steady[:8])
    assert plain["at_starts"] is None
    figures = {
        f.name: f
        for f in task.figures(
            {"windows": [found] * 9 + [seams], "batched": [seams], "plain, 8 frames": [plain]}
        )
    }
    step = figures["step into windows, over others"]
    assert set(step.values) == {"windows", "batched"} and step.values["batched"] > 4
    assert not step.holds and figures["all slices right"].values["windows"] == 1


@pytest.mark.parametrize(
    ("way", "starts"), [("windows", range(4, 60, 4)), ("batched", range(8, 64, 8))]
)
def test_starts_of_windows(way: str, starts: range) -> None:
    assert TASKS["long"].ways[way].window_starts == list(starts)


def test_travel_arrives_or_not() -> None:
    task = TASKS["travel"]
    keys = {"k0": STILL, "k23": BLUE}
    path = blend(TRAVEL)
    good = record(task, "windows", squares(path), **keys)
    stays = record(task, "plain, red", squares([COLOUR_WORDS["red"]] * TRAVEL), **keys)
    back = record(task, "batched", squares([*path[:12], *path[8:20]]), **keys)
    # Nearly gray, with a tinge of green, on the way.
    gray = record(task, "windows", squares([*path[:11], (120, 124, 120), *path[12:]]), **keys)
    assert all(good["first"].values()) and all(good["last"].values())
    assert stays["first"]["colour"] and not stays["last"]["colour"]
    gone = {**good, "colours": [None, *good["colours"][1:]]}
    found = {
        "windows": [good, good, gray, gone],
        "one window": [stays],
        "batched": [back],
        "plain, red": [stays],
    }
    figures = {f.name: f for f in task.figures(found)}
    ends = figures["colour right at both ends"]
    assert ends.values["windows"] == 1 and ends.values["plain, red"] == 0 and not ends.holds
    steady = figures["hue never back by 3 degrees"]
    assert steady.values == {"windows": 0.5, "one window": 1, "batched": 0, "plain, red": 1}
    assert not steady.holds
    assert figures["the same, saturation from 0.25"].values["windows"] == 0.75


class Drawn:
    """Draws what a model should make, and counts its calls."""

    components = SimpleNamespace(name="drawn")
    native_size = 64

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(self, prompts: list[Any], *, seed: list[int], **call: Any) -> Any:
        self.calls.append({"prompts": prompts, "seeds": seed, **call})
        videos = [
            render(prompt[0] if isinstance(prompt, dict) else prompt, number, 64, 8)
            for prompt, number in zip(prompts, seed, strict=True)
        ]
        count = call["video_length"]
        return SimpleNamespace(
            videos=np.stack([video[np.arange(count) % 8] for video in videos]) / 255.0
        )


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Drawn:
    monkeypatch.chdir(tmp_path)
    pipeline = Drawn()
    monkeypatch.setattr(clip_eval, "load_pipeline", lambda *_: pipeline)
    return pipeline


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = clip_eval.main([*arguments, "--device", "cpu", "--compilation_cache", "none"])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return status, out, err


def test_all_tasks_with_every_way_once(drawn: Drawn, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "--count", "2", "--json", "--save", "clips")
    assert status == 0, err
    report = json.loads(out.splitlines()[-1])
    every = 0
    for name, task in (TASKS | start_tasks()).items():
        ways = [*task.ways, *itertools.chain(*(way.also for way in task.ways.values()))]
        assert report["tasks"][name]["clips"] == dict.fromkeys(ways, 2)
        every += len(ways)
    loops = {f["name"]: f for f in report["tasks"]["loops"]["figures"]}
    assert loops["colour right"]["values"] == {"loop": 1, "plain": 1, "ping-pong": 1}
    assert "90 %" in out and len(list(Path("clips").rglob("*.gif"))) == 2 * every
    calls = {(c["video_length"], c.get("loop"), c.get("context") is None) for c in drawn.calls}
    assert {(8, True, True), (8, None, True), (64, None, False), (24, None, True)} <= calls
    # A batch is filled up, so that one program serves all.
    whole = [c for c in drawn.calls if c["video_length"] == 8 and "start" not in c]
    assert {len(c["prompts"]) for c in whole} == {10}
    travels = [c["prompts"][0] for c in drawn.calls if c["video_length"] == TRAVEL]
    assert sum(isinstance(prompt, dict) for prompt in travels) == 3


def test_a_run_goes_on_where_it_was_stopped(
    drawn: Drawn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "loops", "--count", "3")[0] == 0
    results = Path("clip_eval.jsonl")
    whole = results.read_text()
    status, _, err = run(capsys, "loops", "--count", "3")
    assert status == 2 and "--resume" in err
    calls = len(drawn.calls)
    _, out, _ = run(capsys, "loops", "--count", "3", "--resume")
    assert len(drawn.calls) == calls and "0 clips made" in out and results.read_text() == whole
    # A killed run leaves half a line, here of a clip that came of another.
    lines = whole.splitlines(keepends=True)
    results.write_text("".join(lines[:-1]) + lines[-1][:20])
    _, out, _ = run(capsys, "loops", "--count", "3", "--resume")
    assert "1 clips made" in out and results.read_text() == whole
    _, out, _ = run(capsys, "loops", "--count", "5", "--resume")
    assert "4 clips made" in out and results.read_text().startswith(whole)
    status, _, err = run(capsys, "loops", "--resume", "--steps", "5")
    assert status == 2 and "was made with steps 30, not 5" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["loop"], "there is no task 'loop'"),
        (["--count", "0"], "at least 1"),
        (["--context_overlap", "8"], "context_overlap is 8"),
        (["--context_fuse", "cone"], "cone"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, drawn: Drawn, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run(capsys, *arguments)
    assert status == 2 and message in err and not list(Path().iterdir())


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    for text in ("no JSON\n", "[]\n", "{}\n", '{"settings": {}}\nnothing\n'):
        (tmp_path / "r").write_text(text)
        with pytest.raises(HotshotError, match="does not hold results"):
            ResultsFile(tmp_path / "r", {}, True)
        with pytest.raises(UsageError, match="--resume"):
            ResultsFile(tmp_path / "r", {}, False)
        assert (tmp_path / "r").read_text() == text


def test_a_way_without_windows_has_no_starts() -> None:
    assert Way(64).window_starts == []
