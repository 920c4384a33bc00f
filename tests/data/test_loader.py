import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import write_data, write_sample

from hotshot_jax.data.batch import Batch, ClipRequest
from hotshot_jax.data.folders import FolderSource, open_folders
from hotshot_jax.data.loader import Loader, LoaderConfig
from hotshot_jax.errors import HotshotError, UsageError

CONFIG = LoaderConfig(batch_size=4, frames=2, resolution=32, seed=5, threads=2)
SIZES = [(32, 32)] * 7 + [(64, 36)] * 6 + [(20, 48)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    root = tmp_path_factory.mktemp("data")
    write_data(root, SIZES, frames=3)
    return open_folders(root, 2)[0]


def equal(a: Batch, b: Batch) -> bool:
    return (
        np.array_equal(a.frames, b.frames)
        and np.array_equal(a.time_ids, b.time_ids)
        and (a.prompts, a.samples, a.size, a.number) == (b.prompts, b.samples, b.size, b.number)
    )


def take(loader: Iterator[Batch], count: int) -> list[Batch]:
    return [next(loader) for _ in range(count)]


def test_batches_are_exactly_shaped_and_of_one_bucket(source: FolderSource) -> None:
    with Loader(source, CONFIG) as loader:
        assert loader.batches_per_epoch == 2 + 2 + 1
        assert loader.used_sizes == [(16, 48), (32, 32), (40, 24)]
        batches = take(loader, 5)
    for number, batch in enumerate(batches):
        width, height = batch.size
        assert batch.frames.shape == (4, 2, height, width, 3) and batch.frames.dtype == np.uint8
        assert batch.time_ids.shape == (4, 6) and batch.time_ids.dtype == np.float32
        assert (batch.number, batch.epoch) == (number, 0)
        for place in range(4):
            index = int(batch.indices[place])
            assert batch.samples[place] == f"sample_{index}"
            assert batch.prompts[place] == f"prompt {index}"
            assert tuple(batch.time_ids[place, :2]) == SIZES[index]
            assert tuple(batch.time_ids[place, 4:]) == batch.size
    assert {int(i) for batch in batches for i in batch.indices} == set(range(len(SIZES)))


def test_frames_are_the_clip_s_own_from_a_random_start(source: FolderSource) -> None:
    with Loader(source, CONFIG) as loader:
        starts = set()
        for batch in take(loader, 10):
            starts |= set(batch.first_frames.tolist())
            if batch.size == (32, 32):
                first = int(batch.first_frames[0])
                clip = source[int(batch.indices[0])]
                np.testing.assert_array_equal(batch.frames[0, 1], clip.frame(first + 1))
    assert starts == {0, 1}


@pytest.mark.parametrize("at", [0, 1, 4, 5, 7])
def test_a_restored_position_goes_on_bit_for_bit(source: FolderSource, at: int) -> None:
    with Loader(source, CONFIG) as loader:
        take(loader, at)
        state = json.loads(json.dumps(loader.get_state()))
        expected = take(loader, 6)
        # Back in the same loader, and in a fresh one that reads with another number of threads.
        loader.set_state(state)
        assert all(map(equal, expected, take(loader, 6)))
    with Loader(source, replace(CONFIG, threads=1)) as fresh:
        fresh.set_state(state)
        assert all(map(equal, expected, take(fresh, 6)))


def test_hosts_share_the_global_batches(source: FolderSource) -> None:
    with Loader(source, CONFIG) as whole:
        expected = take(whole, 6)
    for count in (2, 4):
        hosts = [
            Loader(source, replace(CONFIG, host_index=host, host_count=count))
            for host in range(count)
        ]
        for batch in expected:
            shares = [next(host) for host in hosts]
            np.testing.assert_array_equal(np.concatenate([s.frames for s in shares]), batch.frames)
            assert tuple(name for share in shares for name in share.samples) == batch.samples
        for host in hosts:
            host.close()


def test_hosts_read_the_places_that_are_theirs(source: FolderSource) -> None:
    """Also where these do not lie side by side, and where hosts have the same."""
    config = replace(CONFIG, host_count=3, mirror=True, random_crop=True)
    with Loader(source, replace(config, host_count=1)) as whole:
        expected = take(whole, 6)
    for slots in ((0, 3), (1, 2), (1,)):
        with Loader(source, replace(config, host_index=2, slots=slots)) as host:
            for batch in expected:
                share = next(host)
                np.testing.assert_array_equal(share.frames, batch.frames[list(slots)])
                np.testing.assert_array_equal(share.time_ids, batch.time_ids[list(slots)])
                assert share.samples == tuple(batch.samples[slot] for slot in slots)


def test_a_position_does_not_depend_on_the_number_of_hosts(source: FolderSource) -> None:
    with Loader(source, CONFIG) as one:
        take(one, 3)
        state = one.get_state()
        expected = next(one)
    with Loader(source, replace(CONFIG, host_index=1, host_count=2)) as half:
        half.set_state(state)
        np.testing.assert_array_equal(next(half).frames, expected.frames[2:])


def test_batches_end_after_the_last_epoch(source: FolderSource) -> None:
    with Loader(source, replace(CONFIG, epochs=2)) as loader:
        batches = list(loader)
        assert [batch.epoch for batch in batches] == [0] * 5 + [1] * 5
        state = loader.get_state()
        with pytest.raises(StopIteration):
            next(loader)
        loader.set_state(state)
        assert list(loader) == []


@pytest.mark.parametrize(
    "change",
    [{"batch_size": 2}, {"seed": 6}, {"resolution": 64}, {"frames": 3}, {"aspect_ratio": "1.00"}],
)
def test_a_position_of_other_settings_is_refused(source: FolderSource, change: dict) -> None:
    state = Loader(source, replace(CONFIG, **change)).get_state()
    with pytest.raises(HotshotError, match="does not fit"):
        Loader(source, CONFIG).set_state(state)


def test_a_position_in_other_data_is_refused(source: FolderSource, tmp_path: Path) -> None:
    write_data(tmp_path, [*SIZES[:-1], (48, 20)], frames=3)
    other = open_folders(tmp_path, 2)[0]
    with pytest.raises(HotshotError, match="table was"):
        Loader(source, CONFIG).set_state(Loader(other, CONFIG).get_state())


def test_one_aspect_ratio_takes_all_clips(source: FolderSource) -> None:
    with Loader(source, replace(CONFIG, aspect_ratio="1.75")) as loader:
        assert loader.used_sizes == [(40, 24)] and loader.batches_per_epoch == 4
        assert next(loader).frames.shape == (4, 2, 24, 40, 3)


def break_later(root: Path) -> FolderSource:
    write_data(root, [(32, 32)] * 5, frames=2)
    source = open_folders(root, 2)[0]
    (root / "sample_2/1.png").write_bytes(b"")
    return source


def test_a_frame_that_breaks_in_mid_run_is_named(tmp_path: Path) -> None:
    with Loader(break_later(tmp_path), CONFIG) as loader, pytest.raises(HotshotError) as raised:
        take(loader, 2)
    assert "sample_2/1.png: is empty" in str(raised.value)
    assert "`on_bad_sample` skip" in str(raised.value)


def test_a_frame_that_breaks_in_mid_run_can_be_skipped(tmp_path: Path) -> None:
    source = break_later(tmp_path)
    config = replace(CONFIG, on_bad_sample="skip")
    with Loader(source, config) as loader:
        batches = take(loader, 4)
        state = loader.get_state()
        after = next(loader)
    assert list(loader.skipped) == ["sample_2/1.png: is empty (zero bytes)"]
    assert sum(loader.skipped.values()) >= 2
    assert not any("sample_2" in batch.samples for batch in batches)
    with Loader(source, config) as fresh:
        fresh.set_state(state)
        assert equal(next(fresh), after)


def test_no_clip_left_in_mid_run_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    write_sample(tmp_path / "s", 2)
    source = open_folders(tmp_path, 2)[0]
    (tmp_path / "s/0.png").unlink()
    with (
        Loader(source, replace(CONFIG, on_bad_sample="skip")) as loader,
        pytest.raises(HotshotError, match=r"s/0\.png|has 1 frames"),
    ):
        next(loader)


def test_frames_that_changed_size_are_named(tmp_path: Path) -> None:
    write_sample(tmp_path / "s", 2)
    source = open_folders(tmp_path, 2)[0]
    write_sample(tmp_path / "t", 2, (16, 16))
    os.replace(tmp_path / "t/1.png", tmp_path / "s/1.png")
    with Loader(source, CONFIG) as loader, pytest.raises(HotshotError, match="is 16x16 pixels"):
        next(loader)


def test_prepare_may_stand_in_for_decoding(source: FolderSource) -> None:
    def digest(request: ClipRequest) -> dict[str, np.ndarray]:
        return {"key": np.array(request.clip.digest(request.frames))}

    with Loader(source, CONFIG, digest) as loader:
        batch = next(loader)
        clip = source[int(batch.indices[0])]
        first = int(batch.first_frames[0])
        assert batch.arrays["key"][0] == clip.digest(range(first, first + 2))
        assert clip.digest([0]) != clip.digest([1])


def test_no_thread_is_left_behind(source: FolderSource) -> None:
    before = threading.active_count()
    with Loader(source, CONFIG) as loader:
        next(loader)
    # grain tells its threads to end but does not wait for them.
    patience = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < patience:
        time.sleep(0.01)
    assert threading.active_count() <= before


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 0},
        {"batch_size": 3, "host_count": 2},
        {"host_index": 1},
        {"slots": ()},
        {"slots": (3, 4)},
        {"frames": 0},
        {"epochs": 0},
        {"resolution": 30},
    ],
)
def test_settings_that_make_no_sense_are_wrong_usage(source: FolderSource, change: dict) -> None:
    with pytest.raises(UsageError):
        Loader(source, replace(CONFIG, **change))


WORKERS = """
import dataclasses, sys
from hotshot_jax.data.folders import open_folders
from hotshot_jax.data.loader import Loader, LoaderConfig
if __name__ == "__main__":
    config = LoaderConfig(batch_size=4, frames=2, resolution=32, seed=5, workers=int(sys.argv[2]))
    with Loader(open_folders(sys.argv[1], 2)[0], config) as loader:
        next(loader)
        state = loader.get_state()
        a = [next(loader) for _ in range(6)]
        loader.set_state(state)
        b = [next(loader) for _ in range(6)]
    for x, y in zip(a, b):
        assert (x.frames == y.frames).all() and x.samples == y.samples
        print(x.number, x.samples, int(x.frames.sum()))
"""


@pytest.mark.slow
def test_worker_processes_give_the_same_batches(tmp_path: Path) -> None:
    write_data(tmp_path / "data", SIZES, frames=3)
    (tmp_path / "program.py").write_text(WORKERS)
    root = Path(__file__).parents[2]
    printed = [
        subprocess.run(
            [sys.executable, tmp_path / "program.py", tmp_path / "data", workers],
            env={**os.environ, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for workers in ("0", "2")
    ]
    assert printed[0] == printed[1] and len(printed[0].splitlines()) == 6
