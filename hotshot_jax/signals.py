"""Signal handlers that raise, and where they cannot."""

import contextlib
import gc
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM)
"""Signals that ask a program to stop."""

_SECONDS = 0.05


def heard_too_early(number: int, frame: types.FrameType | None) -> bool:
    """Whether what a handler raises now would cut short a clean-up; the signal then comes again.

    Python prints what is raised inside a callback of the garbage collector (JAX has one) or a
    finaliser, and drops it: Ctrl-C would be told, and the program would go on.

    Args:
        number: of the signal, as the handler got it.
        frame: where the program was interrupted, as the handler got it.
    """
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        if frame.f_code in callbacks or frame.f_code.co_name == "__del__":
            _send_again(number)
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def heard_again(kind: type[Any], forget: Callable[[], None]) -> Iterator[None]:
    """While it lasts, a signal comes again if Python drops what its handler raised.

    No look at the frames finds every such place: callbacks of weak references are called from C.

    Args:
        kind: of what the handler raises; its `number` is the signal's.
        forget: called before the signal comes again, for handlers that pass over repetitions.
    """
    previous = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, kind):
            forget()
            _send_again(unraisable.exc_value.number)
        else:
            previous(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = previous


def _send_again(number: int) -> None:
    again = threading.Timer(_SECONDS, os.kill, (os.getpid(), signal.Signals(number)))
    again.daemon = True
    again.start()
