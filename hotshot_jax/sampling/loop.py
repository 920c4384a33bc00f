"""The sampling loop: noise in, latents out."""

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hotshot_jax.conditioning.control.windows import ControlWindow, scale_table
from hotshot_jax.errors import UsageError
from hotshot_jax.parallel.placement import (
    batch_devices,
    features_sharding,
    place_missing,
    video_sharding,
)
from hotshot_jax.runtime.runtime import Runtime
from hotshot_jax.sampling.guidance import Guidance
from hotshot_jax.sampling.known import (
    Known,
    Start,
    calls_with_repeats,
    known_levels,
    levels_at,
)
from hotshot_jax.sampling.noise import NoiseSource
from hotshot_jax.sampling.predict import Conditioning, Predictor, StepInput, UNetPredictor
from hotshot_jax.sampling.request import Request
from hotshot_jax.sampling.step_plan import StepPlan, guided_steps
from hotshot_jax.sampling.windowed import WindowedPredictor, window_plan
from hotshot_jax.sampling.windows import ContextConfig
from hotshot_jax.schedulers import DDIMScheduler, Schedule, Scheduler

AfterStep = Callable[[int, float, jax.Array], jax.Array]
"""Takes the call's number, the timestep and the latents; returns the latents to go on with."""

WrapPredictor = Callable[[Predictor], Predictor]
"""Makes one predictor of another, within a compiled step. What the predictor gives as
its cache is to come back to it."""

logger = logging.getLogger(__name__)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LoopState:
    """What one call of the model hands to the next.

    Attributes:
        latents: float32 `[videos, frames, height / 8, width / 8, channels]`.
        solver: the scheduler's history.
        cache: what the predictor keeps: features of the UNet in the compute dtype, by window where
            there are windows, `[turns, batch * windows, frames, height / 8, width / 8, channels]`.
    """

    latents: jax.Array
    solver: Any
    cache: Any = ()


@dataclasses.dataclass(frozen=True)
class _CallKind:
    """What a call of the model does; each kind has a program of its own.

    Attributes:
        text: which of the conditionings is its.
        controlled: whether a ControlNet acts.
        guided: whether there is an unconditional half, if there is guidance.
        full: whether the whole UNet is run.
    """

    text: int
    controlled: bool
    guided: bool
    full: bool = True


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How latents are denoised.

    Attributes:
        scheduler: turns predictions into steps.
        guidance: joins the predictions for negative prompt and prompt; None for no guidance.
        control_windows: strength of each ControlNet, and when it acts.
        guess_mode: the ControlNets see the conditional half alone.
        wrap: makes another predictor of the UNet's; programs are kept for it, so it has to be one
            object for all calls.
        context: which frames the UNet sees together; None for all at once.
        context_batch: windows of that context that are predicted at once; None for one on each
            device that a batch is split over.
    """

    scheduler: Scheduler
    guidance: Guidance | None = None
    control_windows: Sequence[ControlWindow] = ()
    guess_mode: bool = False
    wrap: WrapPredictor | None = None
    context: ContextConfig | None = None
    context_batch: int | None = None


def denoising_step(
    predict: Predictor,
    guidance: Guidance | None,
    scheduler: Scheduler,
    conditioning: Conditioning,
    state: LoopState,
    step: StepInput,
    known: Known | None = None,
) -> LoopState:
    """One call of the model: predict, guide, advance. Everything of it runs as one program.

    Args:
        predict: finds the noise in scaled latents.
        guidance: joins the predictions of two branches; None where there is one.
        scheduler: turns predictions into steps.
        conditioning: what the models are conditioned on.
        state: what the call before gave.
        step: what changes from call to call.
        known: what is put back after it; None for nothing.
    """
    latents = scheduler.scale_model_input(step.row, state.latents)
    if guidance is not None:
        latents = jnp.concatenate([latents, latents])
    # Windows blend what is said at key frames for their own frames only, which takes less memory.
    told = conditioning if step.windows else conditioning.blended()
    prediction, cache = predict(latents, step, told, state.cache)
    if guidance is not None:
        unconditional, conditional = jnp.split(prediction, 2)
        prediction = guidance(unconditional, conditional, step)
    latents, solver = scheduler.step(step.row, state.solver, prediction, state.latents, step.noise)
    if known is not None:
        assert step.known_levels is not None
        latents = known.put_back(latents, step.known_levels)
    return LoopState(latents, solver, cache if jax.tree.leaves(cache) else ())


def sample_latents(
    runtime: Runtime,
    sampling: Sampling,
    conditionings: Sequence[Conditioning],
    request: Request,
    noise: NoiseSource,
    shape: tuple[int, ...],
    *,
    of_step: Sequence[int],
    initial: np.ndarray | jax.Array | None = None,
    source_frames: np.ndarray | None = None,
    start: Start | None = None,
    after_step: AfterStep | None = None,
) -> jax.Array:
    """Denoises latents from standard normal noise.

    Args:
        runtime: holds the models.
        sampling: how latents are denoised.
        conditionings: what the models are conditioned on: one for each text of the run, all of the
            same shapes.
        request: numbers of the run.
        noise: gives the initial noise and that of the steps.
        shape: `[videos, frames, height / 8, width / 8, 4]`.
        of_step: which of the conditionings serves each step of the whole schedule.
        initial: standard normal noise to start from, instead of a draw.
        source_frames: which frame of that noise each frame starts from, int `[videos, frames]`;
            None for its own.
        start: what the run starts from; None for noise alone.
        after_step: called after each call of the model.

    Returns:
        Latents of that shape, float32.

    Raises:
        UsageError: the number of steps is out of range, or `initial` has another shape.
    """
    scheduler = sampling.scheduler
    if isinstance(scheduler, DDIMScheduler):
        scheduler = dataclasses.replace(scheduler, eta=request.eta)
        sampling = dataclasses.replace(sampling, scheduler=scheduler)
    first_step = 0 if start is None else start.first_step(request.num_inference_steps)
    schedule = scheduler.schedule(request.num_inference_steps, first_step)
    keeps = start is not None and start.mask is not None
    calls = _calls_until(schedule, request.denoising_end, scheduler.num_train_timesteps)
    positions = range(schedule.calls_before, schedule.calls_before + calls)
    scales = scale_table(sampling.control_windows, schedule.whole_calls, positions)
    guided = guided_steps(request.guidance_interval, request.num_inference_steps)
    # A call in which no ControlNet acts runs the program without ControlNets.
    kinds = [
        _CallKind(
            of_step[step], bool(row.any()), sampling.guidance is not None and bool(guided[step])
        )
        for step, row in zip(schedule.step_of_call[:calls], scales, strict=True)
    ]
    if sampling.guidance is not None and not any(kind.guided for kind in kinds):
        logger.warning(
            "There is no guidance: none of the %d steps that are made lies within the guidance "
            "interval.",
            calls,
        )

    steps = schedule.step_of_call - schedule.step_of_call[0]
    plan = StepPlan.of(
        request.cache_interval,
        steps[:calls],
        [(kind, *row) for kind, row in zip(kinds, scales.tolist(), strict=True)],
    )
    kinds = [
        dataclasses.replace(kind, full=full) for kind, full in zip(kinds, plan.full, strict=True)
    ]
    devices, rows = batch_devices(runtime.mesh), shape[0] * min(1 + kind.guided for kind in kinds)
    windows = window_plan(
        sampling.context,
        shape[1],
        int(steps[-1]) + 1,
        sampling.context_batch or devices,
        devices // math.gcd(devices, rows),
    )

    def inputs(call: int) -> StepInput:
        used = None
        if scheduler.stochastic:
            drawn = schedule.draws_noise[call]
            used = noise.draw(shape) if drawn else np.zeros(shape, np.float32)
        timestep = np.float32(schedule.timesteps[call])
        progress = np.float32(positions[call] / schedule.whole_calls)
        seen = windows[plan.steps[call]]
        levels = known_levels(schedule, call) if keeps else None
        row = schedule.row(call)
        given = StepInput(timestep, progress, row, used, scales[call], seen, levels)
        if runtime.mesh is None:
            return jax.device_put(given)
        if used is not None:
            given = dataclasses.replace(given, noise=runtime.place(used, video_sharding))
        return place_missing(given, runtime.mesh)

    first = noise.draw(shape) if initial is None else np.asarray(initial, np.float32)
    if first.shape != shape:
        raise UsageError(f"latents has the shape {first.shape}; expected {shape}.")
    if source_frames is not None:
        first = np.take_along_axis(first, source_frames[..., None, None, None], axis=1)
    known = None
    if start is None:
        latents = runtime.place(first * np.float32(schedule.init_noise_sigma), video_sharding)
    else:
        placed = runtime.place(first, video_sharding)
        clean = runtime.place(np.broadcast_to(start.clean, shape), video_sharding)
        start = dataclasses.replace(start, clean=clean)
        latents = runtime.place(start.first_latents(schedule, placed), video_sharding)
        if start.mask is not None:
            mask = np.broadcast_to(start.mask, (*shape[:-1], 1))
            known = Known(clean, placed, runtime.place(mask, video_sharding))
    # Copies, since a history of equal zeros may be one array, and each is donated.
    solver = jax.tree.map(
        lambda leaf: runtime.place(jnp.copy(leaf), video_sharding), scheduler.init_state(latents)
    )
    state = LoopState(latents, solver)
    pending = inputs(0)
    programs: dict[_CallKind, _Program] = {}
    for kind in dict.fromkeys(kinds):
        told = conditionings[kind.text]
        given = state
        if not kind.full:
            given = dataclasses.replace(
                state, cache=programs[dataclasses.replace(kind, full=True)].cache
            )
        programs[kind] = _step_program(
            runtime,
            sampling if kind.guided else dataclasses.replace(sampling, guidance=None),
            told if kind.controlled else dataclasses.replace(told, controls=()),
            known,
            (given, pending),
            keeps_features=not all(plan.full),
            first_frame_attention=start is not None and start.first_frame_attention,
        )
    repeats = start.repaint if start is not None and known is not None else 1
    order = calls_with_repeats(steps[:calls].tolist(), repeats)
    before = state.solver
    with runtime.progress.stage("denoising", len(order), "step") as advance:
        for call, following in zip(order, [*order[1:], None], strict=True):
            if plan.full[call]:
                state = dataclasses.replace(state, cache=())
            if repeats > 1 and (call == 0 or steps[call] != steps[call - 1]):
                before = jax.tree.map(jnp.copy, state.solver)
            state = programs[kinds[call]].run(state, pending)
            if following is not None:
                # Drawn while the device is at work.
                pending = inputs(following)
            if following is not None and following <= call:
                drawn = runtime.place(noise.draw(shape), video_sharding)
                levels = known_levels(schedule, call), levels_at(schedule, following)
                again = (known, state.latents, drawn, *levels)
                go_back = runtime.program("step back", None, Known.gone_back, again)
                latents = runtime.place(go_back(*again), video_sharding)
                solver = jax.tree.map(jnp.copy, before)
                state = dataclasses.replace(state, latents=latents, solver=solver)
            jax.block_until_ready(state.latents)
            if after_step is not None:
                latents = after_step(call, float(schedule.timesteps[call]), state.latents)
                latents = runtime.place(latents, video_sharding)
                state = dataclasses.replace(state, latents=latents)
            advance(1)
    return state.latents


@dataclasses.dataclass(frozen=True)
class _Program:
    """A compiled call of the model.

    Attributes:
        run: the call.
        cache: of what kind the cache is that it gives, `jax.ShapeDtypeStruct`s.
    """

    run: Callable[[LoopState, StepInput], LoopState]
    cache: Any


def _step_program(
    runtime: Runtime,
    sampling: Sampling,
    conditioning: Conditioning,
    known: Known | None,
    example: tuple[LoopState, StepInput],
    *,
    keeps_features: bool,
    first_frame_attention: bool,
) -> _Program:
    """The compiled step, with everything bound that stays the same; the state is donated."""
    unet_arrays, build_unet = runtime.model("unet")
    count = len(conditioning.controls)
    controlnets = [runtime.model(f"controlnets.{index}") for index in range(count)]
    enable_temporal_attentions = example[0].latents.shape[1] > 1
    scheduler, wrap, guess_mode = sampling.scheduler, sampling.wrap, sampling.guess_mode

    def step(
        unet: list[jax.Array],
        nets: list[list[jax.Array]],
        conditioning: Conditioning,
        guidance: Guidance | None,
        known: Known | None,
        state: LoopState,
        inputs: StepInput,
    ) -> LoopState:
        predict: Predictor = UNetPredictor(
            build_unet(unet),
            [build(net) for (_, build), net in zip(controlnets, nets, strict=True)],
            guess_mode=guess_mode,
            enable_temporal_attentions=enable_temporal_attentions,
            keeps_features=keeps_features,
            first_frame_attention=first_frame_attention,
        )
        if guidance is None:
            conditioning = conditioning.conditional()
        if wrap is not None:
            predict = wrap(predict)
        if inputs.windows:
            predict = WindowedPredictor(predict)
        return denoising_step(predict, guidance, scheduler, conditioning, state, inputs, known)

    nets = [arrays for arrays, _ in controlnets]
    bound = (unet_arrays, nets, conditioning, sampling.guidance, known)
    out_shardings, mesh, cache = None, runtime.mesh, example[0].cache
    if mesh is not None:
        bound = place_missing(bound, mesh)
    if keeps_features and not jax.tree.leaves(cache):
        cache = jax.eval_shape(step, *bound, *example).cache
        if mesh is not None:
            cache = jax.tree.map(
                lambda leaf: leaf.update(sharding=features_sharding(mesh, leaf.shape)), cache
            )
    if mesh is not None:
        # The state comes back where it was, which the compiler need not choose.
        out_shardings = jax.tree.map(
            lambda leaf: leaf.sharding, dataclasses.replace(example[0], cache=cache)
        )
    program = runtime.program(
        f"denoising step{' with ControlNet' * (count > 0)}"
        f"{' on kept features' * bool(jax.tree.leaves(example[0].cache))}"
        f"{' without guidance' * (sampling.guidance is None and conditioning.branches > 1)}",
        (
            (scheduler, wrap, guess_mode and count > 0),
            (enable_temporal_attentions, keeps_features, first_frame_attention),
        ),
        step,
        (*bound, *example),
        donate=(5,),
        out_shardings=out_shardings,
    )
    return _Program(lambda state, inputs: program(*bound, state, inputs), cache)


def _calls_until(schedule: Schedule, end: float | None, num_train_timesteps: int) -> int:
    if end is None or not 0.0 < end < 1.0:
        return schedule.calls
    cutoff = round(num_train_timesteps * (1.0 - end))
    return max(1, int((schedule.timesteps >= cutoff).sum()))
