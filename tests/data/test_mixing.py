"""Several data sets at once: in the shares asked for, resumable, the same on every host."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import write_data, write_sample
from PIL import Image

from hotshot_jax.cli.data.command import build
from hotshot_jax.data.batch import Batch, BatchPlan, ClipRequest, decode_frames
from hotshot_jax.data.buckets import fit_to_bucket, spanned_frames
from hotshot_jax.data.loader import Loader, LoaderConfig
from hotshot_jax.data.mixing.caption_edits import CaptionEdits
from hotshot_jax.data.mixing.data_place import DataPlace, parse_place, parse_places
from hotshot_jax.data.mixing.joined import open_joined
from hotshot_jax.data.mixing.mixed_plan import MixedPlan, Part
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.media.resize import room_to_crop

CONFIG = LoaderConfig(batch_size=4, frames=2, resolution=32, seed=5, threads=1)
# Lengths and options of data sets; their clips lie in one bucket or in several.
MIXES = [
    [(7, "repeats=3"), (5, "repeats=1"), (1, "repeats=20")],
    [(40, ""), (3, "repeats=2")],
    [(3, "weight=1"), (50, "weight=2"), (8, "weight=5.5")],
    [(9, "weight=0.02"), (2, "weight=7")],
    [(100, ""), (4, "weight=3")],
]


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize(
    ("batch_size", "spread"), [(4, 1), (7, 3)], ids=["one bucket", "three buckets"]
)
@pytest.mark.parametrize("mix", MIXES, ids=lambda mix: "+".join(f"{n}?{o}" for n, o in mix))
def test_shares_come_out_as_asked(mix: list[tuple[int, str]], batch_size: int, spread: int) -> None:
    places = parse_places([f"d?{options}" if options else "d" for _, options in mix])
    parts = [place.part(clips) for place, (clips, _) in zip(places, mix, strict=True)]
    total = sum(part.clips for part in parts)
    buckets = (np.random.default_rng(1).integers(spread, size=total)).astype(np.uint8)
    owners = np.repeat(np.arange(len(parts)), [part.clips for part in parts])
    draws = 20_000
    plan = MixedPlan(buckets, parts, batch_size, 3)
    drawn = [plan.clip(*divmod(n, batch_size)) for n in range(draws)]
    # What was asked, computed another way: of each clip.
    weights = np.array([p.clips * p.repeats if p.weight is None else p.weight for p in parts])
    if any(part.weight is not None for part in parts):
        weights = np.array([1.0 if part.weight is None else part.weight for part in parts])
    shares = weights / weights.sum()
    # 10.8 is the 99.9 % point of chi-square of one degree of freedom, the least there is.
    of_parts = np.bincount(owners[drawn], minlength=len(parts))
    assert chi_square(of_parts, shares * draws) < 10.8
    lengths = np.array([part.clips for part in parts])
    of_clips = np.bincount(drawn, minlength=total)
    expected = (shares / lengths)[owners] * draws
    assert chi_square(of_clips, expected) < max(10.8, total)
    for batch in range(300):
        in_batch = {int(buckets[plan.clip(batch, slot)]) for slot in range(batch_size)}
        assert in_batch == {plan.locate(batch)[1]}


def test_every_stretch_has_the_shares_and_no_clip_comes_twice_in_a_pass() -> None:
    parts = [Part(30), Part(10, 3)]
    plan = MixedPlan(np.zeros(40, np.uint8), parts, 4, 0)
    assert plan.batches_per_epoch == 15
    drawn = [plan.clip(batch, slot) for batch in range(15 * 40) for slot in range(4)]
    for start in range(0, len(drawn) - 60, 60):
        assert abs(sum(clip < 30 for clip in drawn[start : start + 60]) - 30) <= 3
    first = [clip for clip in drawn if clip < 30]
    for start in range(0, len(first) - 30, 30):
        assert sorted(first[start : start + 30]) == list(range(30))
    assert [plan.locate(batch)[0] for batch in (0, 14, 15, 31)] == [0, 0, 1, 2]


def test_a_broken_clip_is_replaced_from_its_data_set_and_then_from_its_bucket() -> None:
    plan = MixedPlan(np.array([0, 0, 0, 1, 0], np.uint8), [Part(2), Part(3)], 2, 0)
    for batch in range(50):
        _, bucket, _ = plan.locate(batch)
        tried = [plan.clip(batch, 0, other) for other in range(plan.count(bucket))]
        assert sorted(tried) == ([3] if bucket else [0, 1, 2, 4])
        if not bucket:
            own = tried[0] < 2
            assert all((clip < 2) == own for clip in tried[:2])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mixed")
    write_data(root / "a", [(32, 32)] * 5 + [(64, 36)] * 2, frames=9)
    write_data(root / "b", [(32, 32)] * 2 + [(40, 30)] * 2, frames=6)
    return root


def texts(batch: Batch) -> list[str]:
    return [f"{name}: {prompt}" for name, prompt in zip(batch.samples, batch.prompts, strict=True)]


def equal(a: Batch, b: Batch) -> bool:
    return texts(a) == texts(b) and all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("frames", "time_ids", "indices", "first_frames", "number", "epoch")
    )


def take(loader: Iterator[Batch], count: int) -> list[Batch]:
    return [next(loader) for _ in range(count)]


CHANGES = replace(
    CONFIG,
    stride=2,
    mirror=True,
    random_crop=True,
    captions=CaptionEdits("zzz", shuffle_tags=True, tag_dropout=0.2),
)


@pytest.mark.parametrize("config", [CONFIG, CHANGES], ids=["plain", "changes"])
@pytest.mark.parametrize("options", [("", "?repeats=3"), ("?weight=1", "?weight=2.5")])
def test_a_mix_goes_on_bit_for_bit_and_is_shared_by_hosts(
    root: Path, config: LoaderConfig, options: tuple[str, str]
) -> None:
    joined = open_joined([f"{root}/a{options[0]}", f"{root}/b{options[1]}"], 2, config.stride)
    source = joined.opened.source
    with Loader(source, config, mix=joined.mix) as loader:
        take(loader, 3)
        state = json.loads(json.dumps(loader.get_state()))
        expected = take(loader, 5)
    with Loader(source, replace(config, threads=2), mix=joined.mix) as fresh:
        fresh.set_state(state)
        assert all(map(equal, expected, take(fresh, 5)))
    hosts = []
    for host in range(2):
        half = Loader(source, replace(config, host_index=host, host_count=2), mix=joined.mix)
        half.set_state(state)
        hosts.append(half)
    for whole in expected:
        shares = [next(host) for host in hosts]
        assert [text for share in shares for text in texts(share)] == texts(whole)
        np.testing.assert_array_equal(np.concatenate([s.frames for s in shares]), whole.frames)
    for half in hosts:
        half.close()


def test_a_position_in_another_mix_is_refused(root: Path) -> None:
    def loader(*options: str) -> Loader:
        joined = open_joined([f"{root}/{option}" for option in options], 2)
        return Loader(joined.opened.source, CONFIG, mix=joined.mix)

    once, twice = loader("a", "b"), loader("a", "b?repeats=2")
    for saved, here in ((once, twice), (twice, once), (loader("a"), loader("a?repeats=2")),
                        (loader("a?repeats=2"), loader("a"))):  # fmt: skip
        with pytest.raises(HotshotError, match="mix was"):
            here.set_state(saved.get_state())
    alone = loader("a")
    assert alone.mix is None and isinstance(alone.plan, BatchPlan)
    assert "mix" not in alone.get_state()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("d?weight=0", "weight is 0; expected a number above 0"),
        ("d?weight=-1", "weight is -1"),
        ("d?weight=nan", "weight is nan"),
        ("d?weight=inf", "weight is inf"),
        ("d?weight=", "weight is ;"),
        ("d?repeats=0", "repeats is 0; expected a whole number"),
        ("d?repeats=-2", "repeats is -2"),
        ("d?repeats=1.5", "repeats is 1.5"),
        ("d?repeats=nan", "repeats is nan"),
        ("d?repeats=99999999999", "repeats is 99999999999"),
        ("d?fps=0", "fps is 0"),
        ("d?repeats=2&weight=2", "repeats or a weight"),
        ("d?weight=2&weight=3", "given twice"),
        ("d?repeat=2", "unknown option 'repeat'"),
        ("d?", "unknown option ''"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        open_joined([text])
    assert message in str(raised.value) or (text == "d?" and "does not exist" in str(raised.value))


def test_places_are_told_from_their_options(root: Path) -> None:
    assert parse_place("shapes:train?length=4&repeats=2&fps=8") == DataPlace(
        "shapes:train?length=4&repeats=2&fps=8", "shapes:train?length=4", 2, None, 8.0
    )
    (root / "a?weight=0").mkdir()
    assert parse_place(f"{root}/a?weight=0").place == f"{root}/a?weight=0"
    with pytest.raises(UsageError, match="give repeats or weights to all"):
        open_joined([f"{root}/a?repeats=2", f"{root}/b?weight=2"])
    joined = open_joined([f"{root}/a", "shapes:train?length=3&size=32&weight=2"], 2)
    assert joined.opened.total == 10 and joined.opened.kind == "folders and shapes"
    assert joined.opened.source[7].name == "shape 0"
    with pytest.raises(UsageError, match=r"gone does not exist"):
        open_joined([f"{root}/a", f"{root}/gone?repeats=2"])


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_frames_are_a_stride_apart(root: Path, stride: int) -> None:
    joined = open_joined([root / "a"], 3, stride)
    config = replace(CONFIG, frames=3, stride=stride)
    with Loader(joined.opened.source, config) as loader:
        for batch in take(loader, 4):
            for place, index in enumerate(batch.indices):
                clip, first = joined.opened.source[int(index)], int(batch.first_frames[place])
                expected = [
                    fit_to_bucket(clip.frame(first + stride * k), batch.size) for k in range(3)
                ]
                np.testing.assert_array_equal(batch.frames[place], np.stack(expected))
    assert spanned_frames(3, stride) == 2 * stride + 1


def test_frames_a_second_choose_the_stride(root: Path, tmp_path: Path) -> None:
    joined = open_joined([f"{root}/a?fps=24", f"{root}/b?fps=8.1"], 2, fps=8)
    config = replace(CONFIG, fps=8.0)
    strides: Counter[tuple[bool, int]] = Counter()

    def prepare(request: ClipRequest) -> dict[str, np.ndarray]:
        long = len(request.clip.pictures) == 9
        strides[long, request.frames.step] += 1
        return {"x": np.zeros(1)}

    with Loader(joined.opened.source, config, prepare, joined.mix) as loader:
        take(loader, 5)
    assert set(strides) == {(True, 3), (False, 1)}
    with pytest.raises(UsageError, match=rf"write {root}/a\?fps=24"):
        open_joined([root / "a"], 2, fps=8)
    with pytest.raises(HotshotError, match="has 6 frames, but 7 are needed"):
        open_joined([f"{root}/a?fps=24", f"{root}/b?fps=24"], 3, fps=8)
    # Drawn clips last a second; data sets that are built say what they have.
    assert open_joined(["shapes:train?length=2&size=8&frames=24"], 8, fps=8).opened.total == 2
    arguments = ["--kind", "shapes", "--length", "2", "--size", "8", "--frames", "24"]
    assert build([*arguments, "--output", f"{tmp_path}/set"]) == 0
    source = open_joined([f"{tmp_path}/set"], 8, fps=8).opened.source
    assert [source[index].fps for index in range(2)] == [24, 24]
    with pytest.raises(HotshotError, match="has 24 frames, but 29 are needed"):
        open_joined([f"{tmp_path}/set"], 8, fps=6)


def test_mirrored_and_cropped_frames_are_those_of_the_clip(tmp_path: Path) -> None:
    write_sample(tmp_path / "s", 3, (64, 40))
    source = open_joined([tmp_path], 2).opened.source
    requests: list[ClipRequest] = []

    def prepare(request: ClipRequest) -> dict:
        requests.append(request)
        return decode_frames(request)

    config = replace(CONFIG, mirror=True, random_crop=True, aspect_ratio="1.00")
    with Loader(source, config, prepare) as loader:
        batches = take(loader, 12)
    room = room_to_crop((64, 40), (32, 32))
    assert room == (19, 0)
    corners = {request.corner for request in requests}
    assert len(corners) > 10 and all(0 <= left <= 19 and upper == 0 for left, upper in corners)
    assert 10 < sum(request.mirrored for request in requests) < len(requests) - 10
    frames = np.concatenate([batch.frames for batch in batches])
    ids = np.concatenate([batch.time_ids for batch in batches])
    found = {}
    for request in requests:
        pictures = [request.clip.frame(index) for index in request.frames]
        turned = [p[:, ::-1] if request.mirrored else p for p in pictures]
        # The same by Pillow alone.
        left, upper = request.corner
        whole = [Image.fromarray(np.ascontiguousarray(p)).resize((51, 32), 1) for p in turned]
        cut = np.stack([np.asarray(w.crop((left, upper, left + 32, upper + 32))) for w in whole])
        found[cut.tobytes()] = request.corner
    for frame, row in zip(frames, ids, strict=True):
        assert tuple(row) == (64, 40, *found[frame.tobytes()], 32, 32)


def test_captions_are_edited_as_told() -> None:
    edits = CaptionEdits("ohwx", "photo of", "in 4k", shuffle_tags=True, keep_tags=1)
    found = {edits.drawn("a dog, b, c,d", (0, n)) for n in range(60)}
    assert len(found) == 6
    assert all(
        text.startswith("photo of ohwx, a dog, ") and text.endswith(" in 4k") for text in found
    )
    tags = {tuple(sorted(text.split(", ")[1:-1])) for text in found}
    assert tags <= {("a dog", "b", "c"), ("a dog", "b", "d"), ("a dog", "c", "d")}
    assert edits.drawn("a, b, c", (4,)) == edits.drawn("a, b, c", (4,))
    # What stands there already is not written twice, and captions are otherwise untouched.
    assert edits.fixed("an OHWX dog,  x") == "photo of an OHWX dog,  x in 4k"
    assert CaptionEdits("man").fixed("a woman") == "man, a woman"
    assert CaptionEdits().drawn(" a,b ,  c", (0,)) == " a,b ,  c"
    dropped = [CaptionEdits(keep_tags=1, tag_dropout=0.25).drawn("a, b, c, d, e", (n,))
               for n in range(1000)]  # fmt: skip
    left = sum(len(text.split(", ")) - 1 for text in dropped)
    assert all(text.startswith("a") for text in dropped) and abs(left - 3000) < 120


def test_plain_data_are_read_as_ever(root: Path) -> None:
    """The order and frames that were read before there was any of this."""
    with Loader(open_joined([root / "a"], 2).opened.source, CONFIG) as loader:
        found = [(batch.indices.tolist(), batch.first_frames.tolist()) for batch in take(loader, 4)]
    # As the release before it read them.
    assert found == [
        ([6, 5, 6, 5], [6, 0, 6, 0]),
        ([3, 4, 1, 2], [6, 1, 7, 1]),
        ([0, 3, 4, 1], [5, 6, 1, 7]),
        ([0, 3, 2, 1], [1, 4, 3, 7]),
    ]
