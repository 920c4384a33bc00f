"""Signal handlers that raise, and where they cannot."""

import gc
import os
import signal
import threading
import types

_SECONDS = 0.05


def heard_too_early(number: int, frame: types.FrameType | None) -> bool:
    """Whether what a handler raises now would be lost; if so, the signal comes again soon.

    Python prints what is raised inside a callback of the garbage collector (JAX has one) or a
    finaliser, and drops it: Ctrl-C would be told, and the program would go on.

    Args:
        number: of the signal, as the handler got it.
        frame: where the program was interrupted, as the handler got it.
    """
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        if frame.f_code in callbacks or frame.f_code.co_name == "__del__":
            again = threading.Timer(_SECONDS, os.kill, (os.getpid(), signal.Signals(number)))
            again.daemon = True
            again.start()
            return True
        frame = frame.f_back
    return False
