"""Jobs on disk: what a server finds that was killed, what it keeps, and a disk without room."""

import sqlite3
from pathlib import Path

import pytest

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.server.failures import NoRoom
from hotshot_jax.server.job import Job, Status
from hotshot_jax.server.store import MOST_TRIES, JobStore


def add(store: JobStore, prompt: str = "a", size: int = 0) -> Job:
    return store.add(
        "video", {"prompt": prompt}, {"size": "16x16"}, lambda f: (f / "x").write_bytes(bytes(size))
    )


def test_what_was_queued_or_begun_is_queued_in_its_order(tmp_path: Path) -> None:
    with JobStore(tmp_path) as store:
        first, second, third, done, cancelled = (add(store, prompt) for prompt in "abcde")
        store.cancel(cancelled.id)
        # As if it had ended between the two.
        store.job_folder(cancelled.id).mkdir()
        store.begin([done.id, second.id])
        store.complete(done.id)
        stray = store.job_folder("video_" + "0" * 32)
        stray.mkdir()
    with JobStore(tmp_path) as store:
        queued = store.recover()
        assert [job.id for job in queued] == [first.id, second.id, third.id]
        assert [job.tries for job in queued] == [0, 1, 0]
        assert queued[1].values == {"prompt": "b"}
        assert store.job_folder(first.id).is_dir() and not stray.exists()
        assert not store.job_folder(cancelled.id).exists()
        kept = store.get(done.id)
        assert kept is not None and kept.status == Status.COMPLETED


def test_a_job_that_ends_the_server_again_and_again_has_failed(tmp_path: Path) -> None:
    with JobStore(tmp_path) as store:
        job = add(store)
    for _ in range(MOST_TRIES):
        with JobStore(tmp_path) as store:
            assert [each.id for each in store.recover()] == [job.id]
            store.begin([job.id])
    with JobStore(tmp_path) as store:
        assert store.recover() == []
        failed = store.get(job.id)
        assert failed is not None and failed.status == Status.FAILED
        assert failed.error is not None and "3 times" in failed.error["message"]
        assert not store.job_folder(job.id).exists()


def test_a_try_that_was_stopped_does_not_count(tmp_path: Path) -> None:
    with JobStore(tmp_path) as store:
        job = add(store)
        store.begin([job.id])
        store.put_back([job.id])
        assert [(each.tries, each.status) for each in store.recover()] == [(0, Status.QUEUED)]


def test_one_server_has_a_folder(tmp_path: Path) -> None:
    with JobStore(tmp_path), pytest.raises(UsageError, match="another server's"):
        JobStore(tmp_path)
    JobStore(tmp_path).close()


def test_pages_follow_each_other(tmp_path: Path) -> None:
    with JobStore(tmp_path) as store:
        jobs = [add(store) for _ in range(5)]
        picture = store.add("image", {}, {})
        newest = [job.id for job in reversed(jobs)]
        assert [job.id for job in store.page("video", 10)] == newest
        page = store.page("video", 2, jobs[3].number)
        assert [job.id for job in page] == newest[2:4]
        upwards = store.page("video", 2, jobs[0].number, newest_first=False)
        assert [job.id for job in upwards] == [jobs[1].id, jobs[2].id]
        assert [job.id for job in store.page("image", 10)] == [picture.id]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    with JobStore(tmp_path) as store:
        before = add(store)
        (pages,) = store._table.execute("pragma page_count").fetchone()
        store._table.execute(f"pragma max_page_count = {pages}")
        with pytest.raises(NoRoom, match="full"):
            for _ in range(1000):
                store.add("video", {"prompt": "a" * 5000}, {})
        folders = {path.name for path in (tmp_path / "jobs").iterdir()}
        assert folders == {job.id for job in store.page("video", 2000)} >= {before.id}


def test_what_cannot_be_filled_leaves_nothing(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with JobStore(tmp_path) as store:
        with pytest.raises(NoRoom, match="No space"):
            store.add("video", {}, {}, fill)
        assert list((tmp_path / "jobs").iterdir()) == []
        assert store.page("video", 10) == []


def test_the_oldest_go_by_age_and_by_bytes(tmp_path: Path) -> None:
    with JobStore(tmp_path) as store:
        old, middle, new = (add(store, size=100) for _ in range(3))
        waiting = add(store, size=1000)
        for moment, job in enumerate((old, middle, new)):
            store.complete(job.id)
            store._change("update jobs set completed_at = ? where id = ?", [(moment, job.id)])
        assert store.remove_old(before=0.5, most_bytes=10_000) == 200
        assert store.get(old.id) is None and not store.job_folder(old.id).exists()
        assert store.remove_old(before=0, most_bytes=150) == 100
        assert [job.id for job in store.page("video", 9)] == [waiting.id, new.id]


def test_a_damaged_table_is_told(tmp_path: Path) -> None:
    with JobStore(tmp_path) as store:
        add(store)
    (tmp_path / "jobs.sqlite").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(HotshotError, match="Move it away"):
        JobStore(tmp_path)
    # Nobody holds the folder after that.
    (tmp_path / "jobs.sqlite").unlink()
    JobStore(tmp_path).close()


def test_the_table_is_written_ahead(tmp_path: Path) -> None:
    with JobStore(tmp_path):
        table = sqlite3.connect(tmp_path / "jobs.sqlite")
        assert table.execute("pragma journal_mode").fetchone() == ("wal",)
        table.close()
