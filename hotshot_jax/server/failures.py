"""What a server says no with, by the status that HTTP has for it."""

from hotshot_jax.errors import HotshotError, UsageError


class Refusal(HotshotError):  # noqa: N818, what it is for whoever asked
    """A request that is not met.

    Attributes:
        status: of HTTP.
        code: for programs.
        retry_after: seconds after which it may be tried again; None where that is of no use.
    """

    status = 500
    code = "server_error"
    retry_after: int | None = None


class BadRequest(Refusal, UsageError):  # noqa: N818
    """What was asked for cannot be made."""

    status = 400
    code = "invalid_value"


class Unknown(Refusal):
    """There is nothing of that name."""

    status = 404
    code = "not_found"


class NotReady(Refusal):
    """There is nothing to be had yet, or it never will."""

    status = 409
    code = "not_completed"


class QueueFull(Refusal):
    """So many wait that one more would not be served soon."""

    status = 429
    code = "queue_full"

    def __init__(self, message: str, retry_after: int):
        super().__init__(message)
        self.retry_after = retry_after


class ShuttingDown(Refusal):
    """The server ends."""

    status = 503
    code = "shutting_down"
    retry_after = 10


class NoRoom(Refusal):
    """The disk is full, or what is to be kept cannot be."""

    status = 507
    code = "no_room"
