"""`infer.py`: a prompt becomes a GIF."""

import dataclasses
import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from hotshot_jax.builtin import NAME as BUILTIN_NAME
from hotshot_jax.builtin import builtin_checkpoint
from hotshot_jax.cli.compilation_cache import chosen_folder, compilation_cache
from hotshot_jax.cli.devices import explained_memory_errors, use_device
from hotshot_jax.cli.flags import flags_of
from hotshot_jax.cli.hosts import on_hosts
from hotshot_jax.cli.infer.arguments import parse_arguments
from hotshot_jax.cli.infer.control import (
    ControlPlan,
    control_inputs,
    control_outputs,
    plan_control,
    save_control,
)
from hotshot_jax.cli.infer.effects import check_effects, check_effort
from hotshot_jax.cli.infer.native_settings import native_settings
from hotshot_jax.cli.infer.outputs import Job, batches, plan_jobs
from hotshot_jax.cli.infer.presets import describe_preset
from hotshot_jax.cli.infer.prompts import check_prompts, has_break, warn_of_unknown
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.cli.infer.sources import SOURCES, check_not_replaced, digests, public_settings
from hotshot_jax.cli.infer.stored_settings import STORED
from hotshot_jax.cli.run import program_name, run, say
from hotshot_jax.cli.terminal_progress import TerminalProgress
from hotshot_jax.compile_effort import effort_options
from hotshot_jax.conditioning.text.textual_inversion import parse_embedding
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.lora import parse_lora
from hotshot_jax.media import aspect_ratios
from hotshot_jax.media.pixels import to_uint8
from hotshot_jax.media.write import write_video
from hotshot_jax.models.unet.encoder_config import TemporalShape
from hotshot_jax.parallel.hosts import is_first
from hotshot_jax.parallel.mesh import MeshConfig, create_mesh, mesh_config, slice_count
from hotshot_jax.pipelines.control import ControlInput
from hotshot_jax.pipelines.hotshot_xl import HotshotXLPipeline
from hotshot_jax.pipelines.memory import MemoryEstimate, describe_size, estimate_memory
from hotshot_jax.runtime.precision import current_platform
from hotshot_jax.runtime.request import Request
from hotshot_jax.schedulers import make_scheduler
from hotshot_jax.version import __version__

logger = logging.getLogger(__name__)

PROGRAM = "infer.py"
_DEFAULT_SIZE = (672, 384)
# What every SDXL model has; the pipeline checks again with what the loaded one has.
_LATENT_PIXELS = 8
_ENCODER_DEPTH = 12
_MOST_STEPS = 1000
_SEEDS = 2**64
_SIZE_FLAGS = {
    "original_size": "--og_width or --og_height",
    "target_size": "--target_width or --target_height",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit status: 0, 1 (run failed) or 2 (wrong usage)."""
    program = program_name(PROGRAM) if arguments is None else PROGRAM

    def body() -> None:
        parsed = parse_arguments(arguments, program)
        generate(parsed.settings, parsed.given, parsed.config)

    return run(program, body)


def generate(
    settings: InferSettings, given: Collection[str] = (), config: str | None = None
) -> None:
    """Makes the videos that the settings ask for.

    Args:
        settings: of the run.
        given: those that stand on the command line itself, and therefore have to act.
        config: the file that others come from, which is not to be replaced.

    Raises:
        UsageError: the settings cannot be met.
        HotshotError: the run failed.
    """
    settings = settings.sized()
    _check(settings)
    check_effects(given, settings)
    with on_hosts(PROGRAM, dataclasses.asdict(settings)):
        jobs = plan_jobs(settings)
        check_prompts(settings, [job.prompt for job in jobs])
        outputs = [output for job in jobs for output in job.outputs]
        saved = control_outputs(settings, len(settings.controlnet or settings.control_type))
        check_not_replaced(settings, {"--output": outputs, "--save_control": saved}, config)
        control = plan_control(settings, outputs)
        device = use_device(settings.device)
        check_effort(current_platform(), settings.compile_effort, given)
        if settings.compile_effort is not None:
            effort_options(current_platform(), settings.compile_effort)
        mesh = _mesh_config(settings, jobs)
        with compilation_cache(chosen_folder(settings.compilation_cache)):
            _generate(settings, jobs, control, device, mesh)


def _generate(
    settings: InferSettings,
    jobs: Sequence[Job],
    control: ControlPlan,
    device: str,
    mesh: MeshConfig,
) -> None:
    progress = TerminalProgress(quiet=not is_first())
    if settings.preset is not None:
        _say(describe_preset(settings.preset, settings))

    builtin = settings.pretrained_path is None
    if builtin:
        logger.warning(
            "Using %s, a toy that knows five shapes, eight colours and what they can do. Name the "
            "real one with --pretrained_path hotshotco/Hotshot-XL.",
            BUILTIN_NAME,
        )
    path = str(builtin_checkpoint()) if builtin else settings.pretrained_path
    assert path is not None
    settings = _with_size(settings)
    warn_of_unknown(settings, [job.prompt for job in jobs])
    with explained_memory_errors(lambda: _describe_loading(progress)):
        pipeline = HotshotXLPipeline.from_pretrained(
            path,
            precision=settings.precision,
            variant=settings.variant,
            scheduler=settings.scheduler,
            scheduler_options=_scheduler_options(settings),
            spatial_unet_base=settings.spatial_unet_base,
            base=settings.base,
            temporal=settings.temporal,
            vae=settings.vae,
            loras=[parse_lora(argument) for argument in settings.lora],
            lora_allow_partial=settings.lora_allow_partial,
            embeddings=[parse_embedding(argument) for argument in settings.embedding],
            controlnets=control.controlnets,
            control_types=control.control_types,
            low_vram_mode=settings.low_vram_mode,
            mesh=create_mesh(mesh) if mesh.size > 1 else None,
            compile_effort=settings.compile_effort,
            progress=progress,
        )
    for lora in pipeline.loras:
        _say(f"LoRA {lora}")
    for inversion in pipeline.components.inversions:
        _say(f"embedding {inversion}")
    controls = control_inputs(control, settings)
    if is_first():
        for path in save_control(controls, settings):
            _say(f"control frames written to {path}")
    if mesh.size > 1:
        device = f"{device} as {mesh}"
    memory = _estimate(pipeline, settings, mesh)
    _say(f"{device}; {memory}; {pipeline.precision.description}")

    read = digests(InferSettings, settings.stored(), InferSettings())
    written: list[str] = []
    # Prompts of a batch would be padded to the longest, which changes what they draw.
    alone = settings.long_prompts or any(has_break(settings, job.prompt) for job in jobs)
    for batch in batches(jobs, 1 if alone else mesh.data):
        with explained_memory_errors(lambda: str(memory)):
            videos = _sample(pipeline, settings, controls, batch.prompts)
        if not is_first():
            continue
        for job, of_job in zip(batch.jobs, np.split(videos, len(batch.prompts)), strict=False):
            for output in _write(of_job, settings, job, read):
                written.append(output)
                print(output)
    if settings.json and is_first():
        print(json.dumps(_report(settings, jobs, written, device, progress)))


def _mesh_config(settings: InferSettings, jobs: Sequence[Job]) -> MeshConfig:
    return mesh_config(
        settings.mesh,
        "infer",
        jax.device_count(),
        frames=settings.video_length,
        videos=settings.num_videos if settings.num_videos > 1 else len(jobs),
        guidance=settings.guidance_scale > 1,
        slices=slice_count(jax.devices()),
    )


def _estimate(
    pipeline: HotshotXLPipeline, settings: InferSettings, mesh: MeshConfig
) -> MemoryEstimate:
    assert settings.width is not None and settings.height is not None
    return estimate_memory(
        pipeline,
        height=settings.height,
        width=settings.width,
        frames=settings.video_length,
        videos=settings.num_videos * mesh.data,
        guided=settings.guidance_scale > 1,
    )


def _describe_loading(progress: TerminalProgress) -> str:
    return f"weights {describe_size(progress.totals.get('loading', 0))}"


def _check(settings: InferSettings) -> None:
    """Refuses what no model could do, before anything is loaded."""
    if not 0 <= settings.seed < _SEEDS:
        raise UsageError(f"--seed is {settings.seed}; expected a whole number from 0 to 2**64 - 1.")
    if not 1 <= settings.steps <= _MOST_STEPS:
        raise UsageError(f"--steps is {settings.steps}; expected 1 to {_MOST_STEPS}.")
    try:
        make_scheduler(settings.scheduler, {"_class_name": "EulerDiscreteScheduler"})
    except UsageError as error:
        raise UsageError(f"--scheduler {settings.scheduler}: {error}") from error
    width, height = _DEFAULT_SIZE
    Request(
        height=height if settings.height is None else settings.height,
        width=width if settings.width is None else settings.width,
        video_length=settings.video_length,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        guidance_rescale=settings.guidance_rescale,
        original_size=(settings.og_width, settings.og_height),
        crops_coords_top_left=(0, 0),
        target_size=(settings.target_width, settings.target_height),
        eta=settings.eta,
        clip_skip=settings.clip_skip,
        denoising_end=None,
    ).check(
        multiple=_LATENT_PIXELS,
        positions=TemporalShape.positions,
        encoder_depth=_ENCODER_DEPTH,
        spell=_flag_of,
    )


def _scheduler_options(settings: InferSettings) -> dict[str, Any]:
    # Only trailing timesteps begin where the noise is pure.
    spacing = settings.timestep_spacing or ("trailing" if settings.zero_terminal_snr else None)
    options = {
        "prediction_type": settings.prediction_type,
        "rescale_betas_zero_snr": settings.zero_terminal_snr,
        "timestep_spacing": spacing,
    }
    return {name: value for name, value in options.items() if value is not None}


def _flag_of(name: str) -> str:
    return _SIZE_FLAGS.get(name, f"--{name}")


def _sample(
    pipeline: HotshotXLPipeline,
    settings: InferSettings,
    controls: Sequence[ControlInput],
    prompts: Sequence[str],
) -> np.ndarray:
    """Videos of several prompts; each is what it would be alone."""
    output = pipeline(
        prompts,
        None if settings.prompt_2 is None else [settings.prompt_2] * len(prompts),
        negative_prompt=settings.negative_prompt,
        negative_prompt_2=settings.negative_prompt_2,
        height=settings.height,
        width=settings.width,
        video_length=settings.video_length,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        guidance_rescale=settings.guidance_rescale,
        num_videos_per_prompt=settings.num_videos,
        seed=settings.seed if len(prompts) == 1 else [settings.seed] * len(prompts),
        noise=settings.noise,
        original_size=(settings.og_width, settings.og_height),
        target_size=(settings.target_width, settings.target_height),
        eta=settings.eta,
        clip_skip=settings.clip_skip,
        prompt_weights=settings.prompt_weights,
        long_prompts=settings.long_prompts,
        controls=controls,
        guess_mode=settings.guess_mode,
    )
    return np.asarray(output.videos)


def _write(
    videos: np.ndarray, settings: InferSettings, job: Job, read: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    for number, (video, output) in enumerate(zip(videos, job.outputs, strict=True)):
        frames = to_uint8(video)
        if (frames == frames[:, :1, :1]).all():
            raise HotshotError(
                f"Every frame has a single colour; {output} was not written. The checkpoint is "
                "damaged, or a setting is far from what the model knows."
            )
        kept = dataclasses.replace(settings, prompt=job.prompt, prompts_file=None).stored()
        public = public_settings(InferSettings, kept)
        metadata = {
            STORED: json.dumps(public),
            **({SOURCES: json.dumps(read)} if read else {}),
            "model": public.get("pretrained_path", BUILTIN_NAME),
            "video": f"{number + 1} of {len(job.outputs)}",
            "versions": f"hotshot-jax {__version__}, jax {jax.__version__}",
        }
        path = write_video(output, frames, settings.video_duration, metadata, settings.overwrite)
        yield str(path)


def _with_size(settings: InferSettings) -> InferSettings:
    native = native_settings(settings.pretrained_path, flags_of(InferSettings))
    width, height = _DEFAULT_SIZE
    if settings.width is not None:
        width = settings.width
    if settings.height is not None:
        height = settings.height
    if not native and not aspect_ratios.is_trained_size(width, height):
        logger.warning(
            "Hotshot-XL was not trained on %d x %d; --aspect_ratio takes the sizes it knows.",
            width,
            height,
        )
    return dataclasses.replace(settings, width=width, height=height)


def _report(
    settings: InferSettings,
    jobs: Sequence[Job],
    written: Sequence[str],
    device: str,
    progress: TerminalProgress,
) -> dict[str, Any]:
    return {
        "outputs": list(written),
        "prompts": [job.prompt for job in jobs],
        "settings": settings.stored(),
        "device": device,
        "seconds": {name: round(seconds, 3) for name, seconds in progress.seconds.items()},
        "compiled": progress.compilations.misses,
        "taken_from_cache": progress.compilations.hits,
    }


def _say(text: str) -> None:
    if is_first():
        say(f"{PROGRAM}: {text}")
