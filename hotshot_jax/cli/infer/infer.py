"""`infer.py`: a prompt becomes a GIF."""

import dataclasses
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax

from hotshot_jax.builtin import NAME as BUILTIN_NAME
from hotshot_jax.cli.compilation_cache import chosen_folder, compilation_cache
from hotshot_jax.cli.hosts import explained_memory_errors, on_hosts, use_device
from hotshot_jax.cli.infer.checks import check_settings, with_size
from hotshot_jax.cli.infer.clip import check_clip, windows_of_clip
from hotshot_jax.cli.infer.command import PROGRAM
from hotshot_jax.cli.infer.control import (
    ControlPlan,
    control_inputs,
    control_outputs,
    plan_control,
    save_control,
)
from hotshot_jax.cli.infer.effects import check_effects, check_effort
from hotshot_jax.cli.infer.job_settings import clip_settings, model_settings, run_settings
from hotshot_jax.cli.infer.outputs import Job, plan_jobs
from hotshot_jax.cli.infer.presets import describe_preset
from hotshot_jax.cli.infer.prompts import check_prompts, warn_of_unknown
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.cli.infer.start import (
    StartPlan,
    opened_source,
    plan_start,
    start_input,
    with_source,
)
from hotshot_jax.cli.infer.stored_settings import check_not_replaced, digests, result_metadata
from hotshot_jax.cli.run import program_name, say
from hotshot_jax.cli.terminal_progress import TerminalProgress
from hotshot_jax.compile_effort import effort_options
from hotshot_jax.conditioning.key_frames import extremes
from hotshot_jax.jobs.maker import Clip, ClipMaker
from hotshot_jax.media.stored_frames import StoredFrames
from hotshot_jax.media.write import write_video
from hotshot_jax.parallel.hosts import is_first
from hotshot_jax.parallel.mesh import MeshConfig, mesh_config, slice_count
from hotshot_jax.pipelines.hotshot_xl import HotshotXLPipeline
from hotshot_jax.pipelines.memory import MemoryEstimate, describe_size, estimate_memory
from hotshot_jax.runtime.precision import current_platform
from hotshot_jax.runtime.program_folder import ProgramFolder

logger = logging.getLogger(__name__)


def generate(
    settings: InferSettings,
    given: Collection[str] = (),
    config: str | None = None,
    named: Collection[str] = (),
) -> None:
    """Makes the videos that the settings ask for.

    Args:
        settings: of the run.
        given: those that stand on the command line itself, and therefore have to act.
        config: the file that others come from, which is not to be replaced.
        named: the settings that stand on the command line or in that file, or that a preset sets.

    Raises:
        UsageError: the settings cannot be met.
        HotshotError: the run failed.
    """
    with opened_source(settings) as source:
        settings = with_source(settings, source, {*given, *named}).sized()
        check_settings(settings)
        check_clip(settings, given)
        check_effects(given, settings)
        start = plan_start(settings, source)
    with on_hosts(program_name(PROGRAM), dataclasses.asdict(settings)):
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
        mesh = _mesh_config(_of_the_run(settings, start), jobs)
        with compilation_cache(chosen_folder(settings.compilation_cache)) as programs:
            _generate(settings, jobs, control, start, device, mesh, programs)


def _generate(
    settings: InferSettings,
    jobs: Sequence[Job],
    control: ControlPlan,
    start: StartPlan,
    device: str,
    mesh: MeshConfig,
    programs: ProgramFolder | None,
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
    settings = with_size(settings)
    warn_of_unknown(settings, [job.prompt for job in jobs])
    with explained_memory_errors(lambda: _describe_loading(progress)):
        maker = ClipMaker.load(
            model_settings(settings, control), run_settings(settings, mesh), progress
        )
    pipeline = maker.pipeline
    if programs is not None:
        pipeline.runtime.keep_programs(programs)
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
    memory = _estimate(pipeline, _of_the_run(settings, start), mesh)
    vae = pipeline.precision.of_vae(force_upcast=pipeline.components.vae.config.force_upcast)
    _say(f"{device}; {memory}; {pipeline.precision.description}; {vae.description}")

    read = digests(InferSettings, settings.stored(), InferSettings())
    written: list[str] = []
    targets = [(job, output) for job in jobs for output in job.outputs]
    asked = [clip_settings(settings, job.prompt) for job in jobs]
    extension = start.extension
    if extension is not None:
        asked = [extension.settings(clip) for clip in asked]
        controls = [extension.control(control) for control in controls]
    with explained_memory_errors(lambda: str(memory)):
        clips = maker.make(asked, controls, start_input(start, settings))
        for clip, (job, output) in zip(clips, targets, strict=True):
            if is_first():
                frames = clip.frames if extension is None else extension.joined(clip.frames)
                if extension is not None and settings.ping_pong:
                    frames = frames.back_and_forth()
                written.append(_write(clip, frames, settings, job, output, read))
                print(written[-1])
    if settings.json and is_first():
        print(json.dumps(_report(settings, jobs, written, device, progress)))


def _of_the_run(settings: InferSettings, start: StartPlan) -> InferSettings:
    """The settings with what decides the shapes of the run, which may make more than is added."""
    if start.extension is None:
        return settings
    run = start.extension.settings(clip_settings(settings, settings.prompt))
    return dataclasses.replace(
        settings,
        **{name: getattr(run, name) for name in ("video_length", "loop", "context_length")},
    )


def _mesh_config(settings: InferSettings, jobs: Sequence[Job]) -> MeshConfig:
    seen, windows = windows_of_clip(settings)
    videos = settings.num_videos if settings.num_videos > 1 else len(jobs)
    if windows > 1:
        videos = max(each for each in range(1, windows + 1) if jax.device_count() % each == 0)
    return mesh_config(
        settings.mesh,
        "infer",
        jax.device_count(),
        frames=seen,
        videos=videos,
        guidance=extremes(settings.guidance_scale)[1] > 1,
        slices=slice_count(jax.devices()),
    )


def _estimate(
    pipeline: HotshotXLPipeline, settings: InferSettings, mesh: MeshConfig
) -> MemoryEstimate:
    assert settings.width is not None and settings.height is not None
    seen, windows = windows_of_clip(settings)
    at_once = mesh.data if windows == 1 else min(windows, settings.context_batch or mesh.data)
    return estimate_memory(
        pipeline,
        height=settings.height,
        width=settings.width,
        frames=seen,
        videos=settings.num_videos * at_once,
        guided=extremes(settings.guidance_scale)[1] > 1,
        kept_frames=0
        if settings.cache_interval == 1
        else settings.num_videos * max(windows, at_once) * seen,
    )


def _describe_loading(progress: TerminalProgress) -> str:
    return f"weights {describe_size(progress.totals.get('loading', 0))}"


def _write(
    clip: Clip,
    frames: StoredFrames,
    settings: InferSettings,
    job: Job,
    output: str,
    read: Mapping[str, Sequence[str]],
) -> str:
    metadata = {**result_metadata(settings, job.prompt, read), **clip.metadata}
    # Played back and forth, or behind those of a clip, every frame still lasts as long.
    duration = settings.video_duration * len(frames) / settings.video_length
    return str(write_video(output, frames, duration, metadata, settings.overwrite))


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
        say(f"{program_name(PROGRAM)}: {text}")
