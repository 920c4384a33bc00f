"""An app at an address, until a signal ends it."""

import contextlib
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from hotshot_jax.errors import HotshotError
from hotshot_jax.server.service import Service

# Connections that are still answered after the signal.
_SECONDS_TO_END = 3


class _Server(uvicorn.Server):
    """Tells the service at once, so that whoever waits for a job is let go."""

    def __init__(self, config: uvicorn.Config, service: Service):
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See uvicorn."""
        self._service.closing = True
        super().handle_exit(sig, frame)


def bound_socket(host: str, port: int) -> socket.socket:
    """The socket of an address, before anything is loaded.

    Args:
        host: a name or an address.
        port: 0 for a free one.

    Raises:
        HotshotError: it cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, protocol)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
        except BaseException:
            made.close()
            raise
    except OSError as error:
        raise HotshotError(
            f"`host` {host}, `port` {port}: {error.strerror or error}. Name another."
        ) from error
    return made


def run_app(app: FastAPI, service: Service, listening: socket.socket) -> None:
    """Serves until a signal ends the process.

    Args:
        app: what answers.
        service: is started, and stopped at the end.
        listening: where.
    """
    config = uvicorn.Config(
        app,
        # Requests are not logged: paths are of no use, and bodies are nobody's business.
        log_config=None,
        access_log=False,
        lifespan="auto",
        server_header=False,
        timeout_graceful_shutdown=_SECONDS_TO_END,
        proxy_headers=False,
    )
    service.start()
    try:
        with contextlib.closing(listening):
            _Server(config, service).run(sockets=[listening])
    except KeyboardInterrupt as stop:
        # For the message of whoever runs commands.
        setattr(stop, "outcome", "what is not finished is made at the next start")  # noqa: B010
        raise
    finally:
        service.stop()
