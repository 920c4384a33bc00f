"""`--report`: what whoever reads an issue needs to know, without paths, names or prompts."""

import os
import platform
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from hotshot_jax.cli.flags import Flag, flags_of
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.version import __version__

_PACKAGES = (
    "jax jaxlib libtpu jax-cuda13-plugin jax-cuda12-plugin jax-rocm7-plugin flax optax "
    "orbax-checkpoint grain numpy safetensors tokenizers huggingface_hub pillow imageio-ffmpeg "
    "transformers torch diffusers"
).split()
# Others of JAX and of TPU machines hold addresses and names.
_VARIABLES = (
    "XLA_FLAGS LIBTPU_INIT_ARGS JAX_PLATFORMS JAX_ENABLE_X64 JAX_DEFAULT_MATMUL_PRECISION "
    "XLA_PYTHON_CLIENT_PREALLOCATE XLA_PYTHON_CLIENT_MEM_FRACTION XLA_CLIENT_MEM_FRACTION "
    "CUDA_VISIBLE_DEVICES TPU_CHIPS_PER_PROCESS_BOUNDS TPU_ACCELERATOR_TYPE HF_HUB_OFFLINE"
).split()
# Texts that say nothing of whoever wrote them.
_PLAIN_TEXTS = ("scheduler", "mesh")
# Also of Windows, and home folders.
_PATH = re.compile(r"(?:[A-Za-z]:\\|~|\.{0,2}/)[^\s,;:'\"]*")
_HIDDEN = "(hidden)"


def describe_installation(given: Mapping[str, Any]) -> str:
    """Versions, devices and settings, a line each.

    Args:
        given: settings that the command line names.
    """
    return "\n".join(
        [
            f"hotshot-jax {__version__}",
            f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, "
            f"{os.cpu_count()} processors",
            *_packages(),
            *_devices(),
            *_variables(),
            *_settings(given),
        ]
    )


def _packages() -> Iterator[str]:
    for name in _PACKAGES:
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue


def _devices() -> Iterator[str]:
    import jax

    try:
        devices = jax.devices()
    # What a driver has to say is what the issue will be about.
    except Exception as error:
        yield f"no devices: {_without_paths(str(error).splitlines()[0])}"
        return
    first = devices[0]
    memory = (first.memory_stats() or {}).get("bytes_limit")
    size = "" if memory is None else f", {memory / 2**30:.1f} GiB each"
    yield f"devices: {len(devices)} x {first.device_kind} ({first.platform}{size})"


def _variables() -> Iterator[str]:
    for name in _VARIABLES:
        if name in os.environ:
            yield f"{name}={_without_paths(os.environ[name])}"


def _settings(given: Mapping[str, Any]) -> Iterator[str]:
    flags = flags_of(InferSettings)
    for name, value in sorted(given.items()):
        yield f"--{name} {_shown(flags.get(name), name, value)}"


def _shown(flag: Flag | None, name: str, value: Any) -> str:
    is_number = isinstance(value, bool | int | float)
    if flag is not None and (is_number or flag.choices or name in _PLAIN_TEXTS):
        return _without_paths(str(value))
    return _HIDDEN


def _without_paths(text: str) -> str:
    return _PATH.sub(_HIDDEN, text)
