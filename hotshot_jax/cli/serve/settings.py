"""What `hotshot-jax-serve` is asked to do."""

import argparse
import dataclasses
import re
from typing import Any

from hotshot_jax.cli.flags import flag, same_flag
from hotshot_jax.cli.infer.settings import InferSettings

_ADDRESS, _JOBS, _LIMITS = "address", "jobs", "limits"
_OFFERED = "what can be asked for by name"
_SIZE = re.compile(r"([0-9]{1,4})x([0-9]{1,4})x([0-9]{1,4})")


def warm_size(value: Any) -> tuple[int, int, int]:
    """Width, height and frames, as in `512x512x8`.

    Args:
        value: of a command line or a file.

    Raises:
        ArgumentTypeError: it is something else.
    """
    found = _SIZE.fullmatch(str(value))
    if found is None:
        raise argparse.ArgumentTypeError(f"{value!r}; expected WIDTHxHEIGHTxFRAMES, as 512x512x8")
    width, height, frames = map(int, found.groups())
    return width, height, frames


@dataclasses.dataclass(frozen=True)
class ServeSettings:
    """The settings of one server; each field is a flag of the same name."""

    host: str = flag(
        "127.0.0.1", "address to serve at; any but this machine's own needs a key", str, _ADDRESS
    )
    port: int = flag(8000, "port, 0 for a free one", int, _ADDRESS)
    api_key: str | None = flag(
        None,
        "what has to be sent as Authorization: Bearer KEY; better in the environment, as "
        "HOTSHOT_JAX_API_KEY, where other users of the machine do not see it",
        str,
        _ADDRESS,
    )
    allow_origin: tuple[str, ...] = flag(
        (), "origin of another page that may ask, as https://example.com; repeatable", str,
        _ADDRESS, repeatable=True,
    )  # fmt: skip
    page: bool = flag(True, "serve a page for people at /, beside the API", bool, _ADDRESS)

    jobs_dir: str = flag(
        "jobs", "folder of the jobs, which survive in it; one server at a time", str, _JOBS,
        local=True,
    )  # fmt: skip
    warm: tuple[tuple[int, int, int], ...] = flag(
        (),
        "size that is compiled before the first request, as 512x512x8; repeatable",
        warm_size,
        _JOBS,
        repeatable=True,
        metavar="WxHxFRAMES",
    )
    max_batch: int | None = flag(
        None,
        "clips that are made in one call, where they are alike (default: 4; 1 on a CPU, where "
        "more are no faster)",
        int,
        _JOBS,
    )
    calls_at_once: int | None = flag(
        None,
        "calls that are made side by side (default: 1; 2 on a CPU of several cores, where one "
        "leaves half of them idle)",
        int,
        _JOBS,
    )

    lora_dir: str | None = flag(
        None, "folder whose LoRAs can be asked for by name, with a strength", str, _OFFERED,
        local=True,
    )  # fmt: skip
    controlnet_dir: str | None = flag(
        None, "folder whose ControlNets can be asked for by name", str, _OFFERED, local=True
    )

    max_queue: int = flag(64, "jobs that may wait; more are told to come back", int, _LIMITS)
    max_frames: int = flag(128, "frames of a clip", int, _LIMITS)
    max_side: int = flag(1024, "pixels of width and height", int, _LIMITS)
    max_steps: int = flag(100, "denoising steps", int, _LIMITS)
    max_request_mb: int = flag(64, "size of a request with its files, in MiB", int, _LIMITS)
    job_seconds: int = flag(3600, "time that making a job may take", int, _LIMITS)
    keep_hours: float = flag(168.0, "how long jobs are kept after their end", float, _LIMITS)
    keep_gb: float = flag(10.0, "disk that they may take, in GiB; the oldest go", float, _LIMITS)

    pretrained_path: str | None = same_flag(InferSettings, "pretrained_path")
    variant: str | None = same_flag(InferSettings, "variant")
    spatial_unet_base: str | None = same_flag(InferSettings, "spatial_unet_base")
    base: str | None = same_flag(InferSettings, "base")
    temporal: str | None = same_flag(InferSettings, "temporal")
    vae: str | None = same_flag(InferSettings, "vae")
    lora: tuple[str, ...] = same_flag(InferSettings, "lora")
    lora_allow_partial: bool = same_flag(InferSettings, "lora_allow_partial")
    embedding: tuple[str, ...] = same_flag(InferSettings, "embedding")
    precision: str = same_flag(InferSettings, "precision")
    vae_precision: str | None = same_flag(InferSettings, "vae_precision")
    low_vram_mode: bool = same_flag(InferSettings, "low_vram_mode")
    device: str = same_flag(InferSettings, "device")
    compilation_cache: str | None = same_flag(InferSettings, "compilation_cache")
    compile_effort: str | None = same_flag(InferSettings, "compile_effort")
    mesh: str = same_flag(InferSettings, "mesh")
    depth_checkpoint: str | None = flag(
        None,
        "depth-estimation model for `control_type` depth, a folder or Hub id (default: depth "
        "cannot be asked for)",
        str,
        _OFFERED,
        source=True,
    )

    scheduler: str = same_flag(InferSettings, "scheduler")
    timestep_spacing: str | None = same_flag(InferSettings, "timestep_spacing")
    prediction_type: str | None = same_flag(InferSettings, "prediction_type")
    zero_terminal_snr: bool | None = same_flag(InferSettings, "zero_terminal_snr")
    preset: str | None = same_flag(InferSettings, "preset")
    steps: int = same_flag(
        InferSettings, "steps", help="denoising steps, unless others are asked for"
    )
    guidance_scale: Any = same_flag(
        InferSettings,
        "guidance_scale",
        help="how closely to follow the prompt, unless asked for otherwise",
    )
    negative_prompt: str = same_flag(
        InferSettings, "negative_prompt", help="what to avoid, likewise"
    )
