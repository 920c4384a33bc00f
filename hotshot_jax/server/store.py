"""Jobs on disk: a table of them (SQLite) and a folder for each.

A job is in the table before its sender hears of it, and its folder is complete before that. A
server that is killed finds all of them when it starts again.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.files.parsed import parse_json
from hotshot_jax.server.failures import NoRoom
from hotshot_jax.server.job import FINISHED, Job, Status, new_id

MOST_TRIES = 3
"""How often a job is begun before it is taken for what ends the server."""

_TABLE = """
create table if not exists jobs (
    number integer primary key autoincrement,
    id text not null unique,
    status text not null,
    values_ text not null,
    told text not null,
    created_at real not null,
    started_at real,
    completed_at real,
    tries integer not null default 0,
    error text,
    warnings text not null default '[]',
    bytes integer not null default 0
);
create index if not exists jobs_by_status on jobs (status, number);
"""
_COLUMNS = (
    "id, number, status, values_, told, created_at, started_at, completed_at, tries, error, "
    "warnings, bytes"
)


class JobStore:
    """The jobs of one server.

    Args:
        folder: made if missing; one server at a time has it.

    Raises:
        UsageError: another server has it.
        HotshotError: it cannot be written, or its table is damaged.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._jobs = folder / "jobs"
        self._lock = threading.RLock()
        try:
            self._jobs.mkdir(parents=True, exist_ok=True)
            self._held = _only_server_in(folder)
        except OSError as error:
            raise HotshotError(
                f"`jobs_dir` {folder} cannot be written: {error.strerror or error}."
            ) from error
        try:
            self._table = self._opened()
        except BaseException:
            os.close(self._held)
            raise

    def _opened(self) -> sqlite3.Connection:
        path = self.folder / "jobs.sqlite"
        try:
            table = sqlite3.connect(path, check_same_thread=False, timeout=30)
            table.execute("pragma journal_mode=wal")
            # What a sender was told of is there even if the machine loses its power.
            table.execute("pragma synchronous=full")
            table.executescript(_TABLE)
            (state,) = table.execute("pragma quick_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            raise HotshotError(f"{path}: {error}. Move it away, or make room.") from error
        if state != "ok":
            table.close()
            raise HotshotError(f"{path} is damaged ({state}). Move it away, with its jobs.")
        return table

    def __enter__(self) -> "JobStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets another server have the folder."""
        with self._lock:
            self._table.close()
            os.close(self._held)

    def job_folder(self, id: str) -> Path:
        """Where the files of a job are.

        Args:
            id: of a job that is in the table.
        """
        return self._jobs / id

    def recover(self) -> list[Job]:
        """Makes what a server that ended left behind fit to go on with; gives what is queued.

        What was being made is queued again, at its old place; what was begun too often has failed.
        """
        with self._changing() as table:
            table.execute(
                "update jobs set status = ?, completed_at = ?, error = ? "
                "where status = ? and tries >= ?",
                (
                    Status.FAILED,
                    time.time(),
                    _error("interrupted", f"The server ended {MOST_TRIES} times while making it."),
                    Status.IN_PROGRESS,
                    MOST_TRIES,
                ),
            )
            table.execute(
                "update jobs set status = ?, started_at = null where status = ?",
                (Status.QUEUED, Status.IN_PROGRESS),
            )
        # Nothing is kept of the others, and the server may have ended before it was removed.
        kept = (Status.QUEUED, Status.COMPLETED)
        known = {id for (id,) in self._all("select id from jobs where status in (?, ?)", kept)}
        for folder in self._jobs.iterdir():
            if folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)
        return self.of_status(Status.QUEUED)

    def add(
        self,
        kind: str,
        values: Mapping[str, Any],
        told: Mapping[str, Any],
        fill: Callable[[Path], object] = lambda folder: None,
    ) -> Job:
        """Adds a job.

        Args:
            kind: `video` or `image`.
            values: what is asked for.
            told: what is told of it.
            fill: puts files into its folder.

        Raises:
            NoRoom: the disk is full.
        """
        id = new_id(kind)
        folder = self.job_folder(id)
        row = (id, Status.QUEUED, json.dumps(values), json.dumps(told), time.time())
        try:
            with room_needed():
                folder.mkdir()
                fill(folder)
            with self._changing() as table:
                table.execute(
                    "insert into jobs (id, status, values_, told, created_at) "
                    "values (?, ?, ?, ?, ?)",
                    row,
                )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        job = self.get(id)
        assert job is not None
        return job

    def get(self, id: str) -> Job | None:
        """The job of that name, if there is one."""
        rows = self._all(f"select {_COLUMNS} from jobs where id = ?", (id,))
        return _job(rows[0]) if rows else None

    def of_status(self, *statuses: Status) -> list[Job]:
        """All jobs that stand somewhere, in their order of arrival."""
        marks = ", ".join("?" * len(statuses))
        query = f"select {_COLUMNS} from jobs where status in ({marks}) order by number"
        return [_job(row) for row in self._all(query, statuses)]

    def page(
        self, kind: str, limit: int, after: int | None = None, *, newest_first: bool = True
    ) -> list[Job]:
        """Some jobs, one after another.

        Args:
            kind: `video` or `image`.
            limit: how many, at most.
            after: number of the job that they follow; None for the first.
            newest_first: whether those that came last come first.
        """
        order, beyond = ("desc", "<") if newest_first else ("asc", ">")
        where, values = "id like ?", [f"{kind}\\_%"]
        query = f"select {_COLUMNS} from jobs where {where} escape '\\'"
        arguments: list[Any] = [*values]
        if after is not None:
            query += f" and number {beyond} ?"
            arguments.append(after)
        rows = self._all(f"{query} order by number {order} limit ?", (*arguments, limit))
        return [_job(row) for row in rows]

    def begin(self, ids: Sequence[str]) -> None:
        """Tells that jobs are being made; every time counts as a try."""
        self._change(
            "update jobs set status = ?, started_at = ?, tries = tries + 1 where id = ?",
            [(Status.IN_PROGRESS, time.time(), id) for id in ids],
        )

    def put_back(self, ids: Sequence[str]) -> None:
        """Tells that jobs wait again, at their old place; the try does not count."""
        self._change(
            "update jobs set status = ?, started_at = null, tries = max(tries - 1, 0) where id = ?",
            [(Status.QUEUED, id) for id in ids],
        )

    def complete(self, id: str, warnings: Iterable[str] = ()) -> None:
        """Tells that the files of a job are there."""
        self._change(
            "update jobs set status = ?, completed_at = ?, warnings = ?, bytes = ? where id = ?",
            [
                (
                    Status.COMPLETED,
                    time.time(),
                    json.dumps(list(warnings)),
                    size_of(self.job_folder(id)),
                    id,
                )
            ],
        )

    def fail(self, id: str, code: str, message: str) -> None:
        """Tells why there will be no result."""
        self._end(id, Status.FAILED, _error(code, message))

    def cancel(self, id: str) -> None:
        """Tells that nobody wants the result any more."""
        self._end(id, Status.CANCELLED, None)

    def measure(self, id: str) -> None:
        """Counts the bytes of a job's files again, which have become more."""
        self._change("update jobs set bytes = ? where id = ?", [(size_of(self.job_folder(id)), id)])

    def remove(self, id: str) -> None:
        """Removes a job and its files."""
        # In this order: what is without a row is removed when the server starts.
        try:
            self._change("delete from jobs where id = ?", [(id,)])
        except NoRoom:
            # The table grows before it shrinks.
            shutil.rmtree(self.job_folder(id), ignore_errors=True)
            self._change("delete from jobs where id = ?", [(id,)])
        shutil.rmtree(self.job_folder(id), ignore_errors=True)

    def remove_old(self, before: float, most_bytes: int) -> int:
        """Removes finished jobs, the oldest first.

        Args:
            before: those that ended before that time go.
            most_bytes: of what is kept; those above it go.

        Returns:
            Bytes that are kept.
        """
        marks = ", ".join("?" * len(FINISHED))
        rows = self._all(
            f"select id, completed_at, bytes from jobs where status in ({marks}) "
            "order by completed_at desc, number desc",
            FINISHED,
        )
        kept = 0
        for id, completed_at, bytes in rows:
            if completed_at < before or kept + bytes > most_bytes:
                self.remove(id)
            else:
                kept += bytes
        return kept

    def _end(self, id: str, status: Status, error: str | None) -> None:
        self._change(
            "update jobs set status = ?, completed_at = ?, error = ? where id = ?",
            [(status, time.time(), error, id)],
        )
        shutil.rmtree(self.job_folder(id), ignore_errors=True)

    def _change(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with self._changing() as table:
            table.executemany(statement, rows)

    def _all(self, query: str, values: Sequence[Any]) -> list[Any]:
        with self._lock:
            return self._table.execute(query, tuple(values)).fetchall()

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, room_needed(), self._table:
            yield self._table


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder, at any depth; 0 where there is none."""
    return sum(
        os.lstat(os.path.join(place, name)).st_size
        for place, _, names in os.walk(folder)
        for name in names
    )


@contextlib.contextmanager
def room_needed() -> Iterator[None]:
    """Says in words that something cannot be kept.

    Raises:
        NoRoom: the disk is full or fails.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        raise NoRoom(f"The server cannot keep this: {error}.") from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            raise
        raise NoRoom(f"The server cannot keep this: {error.strerror}.") from error


def _error(code: str, message: str) -> str:
    return json.dumps({"code": code, "message": message})


def _job(row: Sequence[Any]) -> Job:
    id, number, status, values, told, created, started, ended, tries, error, warnings, size = row
    return Job(
        id,
        number,
        Status(status),
        parse_json(values),
        parse_json(told),
        created,
        started,
        ended,
        tries,
        None if error is None else parse_json(error),
        tuple(parse_json(warnings)),
        size,
    )


def _only_server_in(folder: Path) -> int:
    """The open file that carries the lock, which is gone when its process is."""
    held = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(held)
        raise UsageError(
            f"`jobs_dir` {folder} is another server's, which is running. Name another folder."
        ) from error
    return held
