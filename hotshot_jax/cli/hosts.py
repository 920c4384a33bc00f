"""Devices and hosts: choosing them, starting and ending together, and what goes wrong with them."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from hotshot_jax.choices import AUTO
from hotshot_jax.cli.run import run
from hotshot_jax.errors import HotshotError, causes, is_out_of_memory
from hotshot_jax.parallel.hosts import HostsConfig, compare, join
from hotshot_jax.signals import STOPPING
from hotshot_jax.training.running.interruption import Interrupted
from hotshot_jax.version import __version__

# The first is the default; what waits in host memory needs the other.
_PLATFORMS = {"cpu": "cpu", "gpu": "cuda,rocm", "tpu": "tpu,cpu"}

SAMPLING_WAYS_OUT = (
    "--low_vram_mode; a smaller --width, --height or --video_length; --precision f16 or bf16"
)
TRAINING_WAYS_OUT = (
    "--remat full; a smaller --train_batch_size, with --gradient_accumulation_steps in its place; "
    "--mixed_precision bf16 with --use_8bit_adam"
)


def choose_platforms(name: str) -> None:
    """Tells JAX what to start, for `name` as of `use_device`; to be called before it starts."""
    chosen = jax.config.values["jax_platforms"]
    if name == "gpu":
        # Of the two makers' plugins at most one is installed; JAX would ask for both.
        jax.config.update("jax_platforms", None)
    elif name != AUTO:
        jax.config.update("jax_platforms", _PLATFORMS[name])
    elif chosen and "cpu" not in chosen.split(","):
        # As JAX_PLATFORMS=cuda in the environment: what waits in host memory needs the other.
        jax.config.update("jax_platforms", f"{chosen},cpu")


def use_device(name: str) -> str:
    """Makes `name` ("auto", "cpu", "gpu" or "tpu") the device of this process and describes it.

    Raises:
        HotshotError: it is not there, or another process holds it.
    """
    choose_platforms(name)
    try:
        devices = jax.devices("gpu") if name == "gpu" else jax.devices()
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise HotshotError(
            f"--device {name} cannot be used: it is not there, its JAX plugin is not installed, or "
            f"another process holds it ({reason}). --device cpu always works."
        ) from error
    if threading.current_thread() is threading.main_thread():
        # What starts a TPU may put handlers of its own in the place of ours.
        for number in STOPPING:
            if (handler := signal.getsignal(number)) is not None:
                signal.signal(number, handler)
    kind = devices[0].device_kind
    return f"{len(devices)} x {kind}" if len(devices) > 1 else kind


@contextlib.contextmanager
def explained_memory_errors(
    estimate: Callable[[], str], ways_out: str = SAMPLING_WAYS_OUT
) -> Iterator[None]:
    """Turns a device's out-of-memory error into what can be done about it.

    Args:
        estimate: tells what the run needs, for the message.
        ways_out: three of them.

    Raises:
        HotshotError: in place of JAX's error.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, HotshotError) or not is_out_of_memory(error):
            raise
        pool = ""
        if jax.default_backend() == "gpu" and not any(map(os.environ.get, _POOL_VARIABLES)):
            pool = (
                f" JAX leaves a quarter of a GPU's memory to others: {_POOL_VARIABLES[0]}=0.95 in "
                "the environment takes more."
            )
        raise HotshotError(
            f"The device is out of memory: {estimate()}.\nThree ways out: {ways_out}.{pool}"
        ) from error


# What every process has for itself.
_OWN = ("process_index",)
# The second name is the older one.
_POOL_VARIABLES = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")

# Waits for the command's end in a process of its own, since JAX's runtime aborts the command
# without a way back to Python.
_WATCHER = """
import os, sys
said = b""
while True:
    part = os.read(0, 16)
    if not part:
        break
    said += part
if not said:
    os.write(2, sys.argv[1].encode())
"""


@contextlib.contextmanager
def on_hosts(program: str, settings: Mapping[str, Any]) -> Iterator[None]:
    """Runs a command's body together with the other processes, if there are any.

    Without others it does nothing. With them, it does not come back from an error: leaving Python
    the ordinary way waits for the others, which may be waiting for this process.

    Args:
        program: name of the command.
        settings: all that has to be the same everywhere, with `coordinator_address`,
            `process_count` and `process_index` among it.

    Raises:
        UsageError: the flags make no sense.
    """
    config = HostsConfig.given(
        settings["coordinator_address"], settings["process_count"], settings["process_index"]
    )
    if config.alone or (settings.get("device") == "cpu" and config.coordinator_address is None):
        yield
        return
    # A SIGTERM ends the process, and with it the run, unless the body has something to save.
    jax.config.update("jax_enable_preemption_service", False)
    # To compare settings is to start devices.
    choose_platforms(settings.get("device", AUTO))
    watcher = _Watcher(program)
    try:
        if join(config):
            shared = {name: value for name, value in settings.items() if name not in _OWN}
            compare({**shared, "jax": jax.__version__, "hotshot-jax": __version__})
        yield
    except BaseException as error:
        status = _tell(program, error)
        if isinstance(error, Interrupted) or getattr(error, "everywhere", False):
            # All have this error at once. The first to leave would cut the others short.
            jax.distributed.shutdown()
        watcher.dismiss()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    jax.distributed.shutdown()
    watcher.dismiss()


def _tell(program: str, error: BaseException) -> int:
    """Shows an error as `run` does, and gives its exit status."""
    failed = _failed_communication(error)
    if failed is not None and jax.distributed.is_initialized() and jax.process_count() > 1:
        reason = " ".join(str(failed).split())[:200]
        error = HotshotError(
            f"Communication with another process failed ({reason}).\n"
            "It has died or cannot be reached: look at its output. Start the command again on all "
            "hosts; training goes on from the last checkpoint."
        )

    def fail() -> None:
        raise error

    try:
        return run(program, fail)
    except BaseException:
        traceback.print_exc()
        return HotshotError.exit_status


def _failed_communication(error: BaseException | None) -> BaseException | None:
    """JAX's own error among the causes of an error, unless it is about memory.

    Whoever was at work when a process died, such as the one who writes checkpoints, may have taken
    it for a failure of its own.
    """
    if is_out_of_memory(error):
        return None
    failed = (each for each in causes(error) if isinstance(each, jax.errors.JaxRuntimeError))
    return next(failed, None)


class _Watcher:
    """Says what has happened if this process is ended without being able to say it."""

    def __init__(self, program: str):
        message = (
            f"\n{program}: error: The run ended because another of its processes has died or "
            "cannot be reached (look at the output of the others), or because this one was "
            "killed.\nStart the command again on all hosts; training goes on from the last "
            "checkpoint.\n"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WATCHER, message],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            # Signals to the whole group are for the command.
            start_new_session=True,
        )

    def dismiss(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(b"done")
            self._process.stdin.close()
        self._process.wait()
