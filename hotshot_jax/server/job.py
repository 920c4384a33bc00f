"""What is known of a job."""

import dataclasses
import enum
import re
import secrets
from collections.abc import Mapping
from typing import Any

_ID = re.compile(r"(video|image)_[0-9a-f]{32}")


class Status(enum.StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINISHED = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)
"""Where a job stays."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A job as it is kept.

    Attributes:
        id: its name, which nobody can guess.
        number: its place in the order of arrival.
        status: where it stands.
        values: what was asked for, from which it can be planned again.
        told: what is told of it: size, frames, seconds, seed and so on.
        created_at: seconds since 1970, like the next two.
        started_at: when it was begun last.
        completed_at: when it came to its end, whichever that was.
        tries: how often it was begun without coming to an end.
        error: code and message of what failed.
        warnings: what the person should know of the result.
        bytes: of its files.
    """

    id: str
    number: int
    status: Status
    values: Mapping[str, Any]
    told: Mapping[str, Any]
    created_at: float
    started_at: float | None = None
    completed_at: float | None = None
    tries: int = 0
    error: Mapping[str, str] | None = None
    warnings: tuple[str, ...] = ()
    bytes: int = 0

    @property
    def kind(self) -> str:
        """`video` or `image`."""
        return self.id.partition("_")[0]

    @property
    def finished(self) -> bool:
        """Whether it has come to its end."""
        return self.status in FINISHED


def new_id(kind: str) -> str:
    """A name for a job.

    Args:
        kind: `video` or `image`.
    """
    return f"{kind}_{secrets.token_hex(16)}"


def is_id(text: str) -> bool:
    """Whether a text has the form of a job's name."""
    return _ID.fullmatch(text) is not None
