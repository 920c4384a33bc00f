"""Choosing the device, and saying what went wrong with it."""

import contextlib
from collections.abc import Callable, Iterator

import jax

from hotshot_jax.errors import HotshotError

# The first is the default; what waits in host memory needs the other.
_PLATFORMS = {"cpu": "cpu", "gpu": "cuda,rocm", "tpu": "tpu,cpu"}
_OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"

SAMPLING_WAYS_OUT = (
    "--low_vram_mode; a smaller --width, --height or --video_length; --precision f16 or bf16"
)
TRAINING_WAYS_OUT = (
    "--remat full; a smaller --train_batch_size, with --gradient_accumulation_steps in its place; "
    "--mixed_precision bf16 with --use_8bit_adam"
)


def use_device(name: str) -> str:
    """Makes `name` ("auto", "cpu", "gpu" or "tpu") the device of this process and describes it.

    Raises:
        HotshotError: it is not there, or another process holds it.
    """
    if name == "gpu":
        # Of the two makers' plugins at most one is installed; JAX would ask for both.
        jax.config.update("jax_platforms", None)
    elif name != "auto":
        jax.config.update("jax_platforms", _PLATFORMS[name])
    try:
        devices = jax.devices("gpu") if name == "gpu" else jax.devices()
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise HotshotError(
            f"--device {name} cannot be used: it is not there, its JAX plugin is not installed, or "
            f"another process holds it ({reason}). --device cpu always works."
        ) from error
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
    except jax.errors.JaxRuntimeError as error:
        if _OUT_OF_MEMORY not in str(error):
            raise
        raise HotshotError(
            f"The device is out of memory: {estimate()}.\nThree ways out: {ways_out}."
        ) from error
