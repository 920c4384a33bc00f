"""`hotshot-jax-serve`: loads a model and serves it."""

import contextlib
import dataclasses
import ipaddress
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from hotshot_jax.builtin import NAME as BUILTIN_NAME
from hotshot_jax.cli.compilation_cache import chosen_folder, compilation_cache
from hotshot_jax.cli.flags import flags_of
from hotshot_jax.cli.hosts import explained_memory_errors, use_device
from hotshot_jax.cli.infer.effects import check_effort
from hotshot_jax.cli.infer.job_settings import model_settings, run_settings
from hotshot_jax.cli.infer.presets import preset_values
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.cli.infer.stored_settings import public_name
from hotshot_jax.cli.run import program_name, say
from hotshot_jax.cli.serve.offered import named_models, offered_controlnets
from hotshot_jax.cli.serve.planner import InferPlanner
from hotshot_jax.cli.serve.settings import ServeSettings
from hotshot_jax.cli.terminal_progress import TerminalProgress
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.jobs.maker import ClipMaker
from hotshot_jax.parallel.mesh import mesh_config, slice_count
from hotshot_jax.pipelines.latent_colors import LatentColors
from hotshot_jax.runtime.precision import current_platform
from hotshot_jax.runtime.program_folder import ProgramFolder
from hotshot_jax.server.api.app import create_app
from hotshot_jax.server.api.guard import Access
from hotshot_jax.server.limits import Limits, ServedModel
from hotshot_jax.server.models import LoadedModels
from hotshot_jax.server.page.login import LOGIN_PATH
from hotshot_jax.server.running import bound_socket, run_app
from hotshot_jax.server.service import Service
from hotshot_jax.server.store import JobStore
from hotshot_jax.server.warm import warm
from hotshot_jax.server.worker import Pace

logger = logging.getLogger(__name__)

PROGRAM = "hotshot-jax-serve"
KEY_VARIABLE = "HOTSHOT_JAX_API_KEY"
_USUAL_BATCH = 4
# What a request may ask for otherwise.
_USUAL = ("steps", "guidance_scale", "negative_prompt", "preset")
_SHORTEST_KEY = 16
# Connections until the first is answered; then the app's own number counts.
_MOST_UNANSWERED = 128


def serve(settings: ServeSettings, given: Mapping[str, Any]) -> None:
    """Serves until it is stopped.

    Args:
        settings: of the server.
        given: those that are named.

    Raises:
        UsageError: they cannot be met.
        HotshotError: a model cannot be loaded, or the address cannot be had.
    """
    access = _access(settings)
    with prepared(settings, given) as (service, listening):
        app = create_app(service, access)
        if settings.page:
            # Takes seconds to be imported.
            from hotshot_jax.server.page.app import add_page

            add_page(app, service, access)
        tell_address(listening)
        run_app(app, service, listening)


@contextlib.contextmanager
def prepared(
    settings: ServeSettings, given: Mapping[str, Any]
) -> Iterator[tuple[Service, socket.socket]]:
    """A service with its model loaded, not yet started, and the socket of its address.

    Args:
        settings: of the server.
        given: those that are named.

    Raises:
        UsageError: they cannot be met.
        HotshotError: a model cannot be loaded, or the address cannot be had.
    """
    _check_numbers(settings)
    loras = named_models("lora_dir", settings.lora_dir)
    controlnets = offered_controlnets(
        settings.controlnet_dir, builtin=settings.pretrained_path is None
    )
    device = use_device(settings.device)
    check_effort(current_platform(), settings.compile_effort, given)
    calls_at_once = _calls_at_once(settings)
    with (
        bound_socket(settings.host, settings.port) as listening,
        JobStore(Path(os.path.expanduser(settings.jobs_dir))) as store,
        compilation_cache(chosen_folder(settings.compilation_cache)) as programs,
    ):
        models, batch_sizes = _loaded(settings, given, loras, controlnets, programs)
        planner = _planner(settings, given, loras, controlnets)
        for size in settings.warm:
            say(f"{program_name(PROGRAM)}: compiling {'x'.join(map(str, size))} ...")
            with explained_memory_errors(lambda: "clips to warm up with do not fit"):
                warm(models, planner, size, batch_sizes)
        service = Service(
            store,
            models,
            planner,
            ServedModel(_model_id(settings), tuple(loras), tuple(controlnets)),
            _limits(settings),
            Pace(batch_sizes, settings.job_seconds, calls_at_once),
            _colors(models) if settings.page else None,
        )
        say(f"{program_name(PROGRAM)}: {_model_id(settings)} on {device}")
        yield service, listening


def _colors(models: LoadedModels) -> LatentColors | None:
    try:
        with models.lent() as maker:
            return LatentColors.of_vae(maker.pipeline)
    except HotshotError as error:
        logger.warning("There will be no previews: %s", error)
        return None


def tell_address(listening: socket.socket) -> None:
    """Prints where a server is; whoever reads it can connect, and is answered in a moment."""
    listening.listen(_MOST_UNANSWERED)
    host, port = listening.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    print(f"http://{name}:{port}", flush=True)


def _access(settings: ServeSettings) -> Access:
    key = settings.api_key or os.environ.get(KEY_VARIABLE) or None
    if key is not None and (len(key) < _SHORTEST_KEY or not key.isascii() or not key.isprintable()):
        raise UsageError(
            f"The key is too easily guessed: give {_SHORTEST_KEY} printable characters or more, "
            "such as those of `openssl rand -hex 32`."
        )
    if key is None and not is_loopback(settings.host):
        raise UsageError(
            f"--host {settings.host} is reached from other machines: set a key in {KEY_VARIABLE}, "
            "or give --api_key."
        )
    for origin in settings.allow_origin:
        scheme, separator, rest = origin.partition("://")
        if scheme not in ("http", "https") or not separator or not rest or "/" in rest:
            raise UsageError(
                f"--allow_origin {origin}: expected scheme and host, such as https://example.com."
            )
    login = LOGIN_PATH if settings.page else None
    return Access(key, settings.allow_origin, settings.max_request_mb << 20, login_path=login)


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_numbers(settings: ServeSettings) -> None:
    for name in (
        "max_queue",
        "max_frames",
        "max_side",
        "max_steps",
        "max_request_mb",
        "job_seconds",
        "keep_hours",
        "keep_gb",
    ):
        if not getattr(settings, name) > 0:
            raise UsageError(f"--{name} is {getattr(settings, name):g}; expected more than 0.")
    for name in ("max_batch", "calls_at_once"):
        number = getattr(settings, name)
        if number is not None and number < 1:
            raise UsageError(f"--{name} is {number}; expected 1 or more.")
    if not 0 <= settings.port < 1 << 16:
        raise UsageError(f"--port is {settings.port}; expected 0 to 65535.")


def _limits(settings: ServeSettings) -> Limits:
    return Limits(
        most_waiting=settings.max_queue,
        most_frames=settings.max_frames,
        most_side=settings.max_side,
        most_steps=settings.max_steps,
        most_body_bytes=settings.max_request_mb << 20,
        kept_seconds=settings.keep_hours * 3600,
        kept_bytes=int(settings.keep_gb * 2**30),
    )


def _loaded(
    settings: ServeSettings,
    given: Mapping[str, Any],
    loras: Mapping[str, str],
    controlnets: Mapping[str, str],
    programs: ProgramFolder | None,
) -> tuple[LoadedModels, tuple[int, ...]]:
    infer = InferSettings(**_of_infer(given) | _preset(settings, given))
    platform = current_platform()
    most = settings.max_batch or (1 if platform == "cpu" else _USUAL_BATCH)
    mesh = mesh_config(
        settings.mesh,
        "infer",
        jax.device_count(),
        frames=infer.video_length,
        videos=most,
        guidance=True,
        slices=slice_count(jax.devices()),
    )
    model = model_settings(infer)
    model = dataclasses.replace(
        model,
        loras=(*model.loras, *((path, 0.0) for path in loras.values())),
        controlnets=tuple(controlnets.values()),
        control_types=None,
    )
    if settings.pretrained_path is None:
        logger.warning("Serving %s, a toy. Name the real one with --pretrained_path.", BUILTIN_NAME)
    with explained_memory_errors(lambda: "the weights do not fit"):
        maker = ClipMaker.load(model, run_settings(infer, mesh), TerminalProgress())
    loaded = LoadedModels(maker, loras, tuple(controlnets), settings.compile_effort, programs)
    return loaded, batch_sizes(most, mesh.data)


def _calls_at_once(settings: ServeSettings) -> int:
    several = jax.device_count() > 1
    if settings.calls_at_once is None:
        idle = current_platform() == "cpu" and (os.cpu_count() or 1) > 1
        return 2 if idle and not several and not settings.low_vram_mode else 1
    if several and settings.calls_at_once > 1:
        raise UsageError(
            f"--calls_at_once is {settings.calls_at_once}; {jax.device_count()} devices make one "
            "call at a time, as their programs would wait for each other."
        )
    return settings.calls_at_once


def batch_sizes(most: int, data: int) -> tuple[int, ...]:
    """Sizes of batches: few, so that few programs are compiled.

    Args:
        most: the largest.
        data: devices that a batch is split over.
    """
    sizes = [1]
    size = data if data > 1 else 2
    while size <= most:
        sizes.append(size)
        size *= 2
    return tuple(sizes)


def _of_infer(given: Mapping[str, Any]) -> dict[str, Any]:
    names = flags_of(InferSettings)
    return {name: value for name, value in given.items() if name in names}


def _preset(settings: ServeSettings, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a preset says of the model, which is loaded once."""
    if settings.preset is None:
        return {}
    files = InferSettings(**_of_infer(given)).model_files
    values = preset_values(settings.preset, files)
    return {name: value for name, value in values.items() if name not in given}


def _planner(
    settings: ServeSettings,
    given: Mapping[str, Any],
    loras: Mapping[str, str],
    controlnets: Mapping[str, str],
) -> InferPlanner:
    of_infer = _of_infer(given)
    of_infer.pop("depth_checkpoint", None)
    usual = {name: of_infer.pop(name) for name in _USUAL if name in of_infer}
    return InferPlanner(of_infer, usual, loras, controlnets, settings.depth_checkpoint)


def _model_id(settings: ServeSettings) -> str:
    path = settings.pretrained_path
    return "hotshot-jax-builtin" if path is None else public_name("pretrained_path", path)
