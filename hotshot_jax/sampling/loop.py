"""The sampling loop: noise in, latents out."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hotshot_jax.control.residuals import Control
from hotshot_jax.errors import UsageError
from hotshot_jax.parallel.placement import place_missing, video_sharding
from hotshot_jax.pipelines.control import ControlRun
from hotshot_jax.pipelines.denoise import Conditioning, Guidance, StepInput, denoising_step
from hotshot_jax.sampling.noise import NoiseSource
from hotshot_jax.pipelines.request import Request
from hotshot_jax.pipelines.runtime import Runtime
from hotshot_jax.schedulers import DDIMScheduler, Schedule, Scheduler

AfterStep = Callable[[int, float, jax.Array], jax.Array]
"""Takes the call's number, the timestep and the latents; returns the latents to go on with."""


def sample_latents(
    runtime: Runtime,
    scheduler: Scheduler,
    conditioning: Conditioning,
    request: Request,
    noise: NoiseSource,
    shape: tuple[int, ...],
    *,
    control: ControlRun | None = None,
    initial: np.ndarray | jax.Array | None = None,
    after_step: AfterStep | None = None,
) -> jax.Array:
    """Denoises latents from standard normal noise.

    Args:
        runtime: holds the UNet.
        scheduler: turns predictions into steps.
        conditioning: what the UNet is conditioned on, negative prompts first.
        request: numbers of the run.
        noise: gives the initial noise and that of the steps.
        shape: `[videos, frames, height / 8, width / 8, 4]`.
        control: the ControlNets of the run.
        initial: standard normal noise to start from, instead of a draw.
        after_step: called after each call of the model.

    Returns:
        Latents of that shape, float32.

    Raises:
        UsageError: the number of steps is out of range, or `initial` has another shape.
    """
    if isinstance(scheduler, DDIMScheduler):
        scheduler = dataclasses.replace(scheduler, eta=request.eta)
    schedule = scheduler.schedule(request.num_inference_steps)
    calls = _calls_until(schedule, request.denoising_end, scheduler.num_train_timesteps)
    scales = np.zeros((calls, 0), np.float32)
    if control is not None:
        scales = control.scales(schedule.calls, range(calls))
    acting = [bool(row.any()) for row in scales]

    def inputs(call: int) -> StepInput:
        used = None
        if scheduler.stochastic:
            drawn = schedule.draws_noise[call]
            used = noise.draw(shape) if drawn else np.zeros(shape, np.float32)
        timestep = np.float32(schedule.timesteps[call])
        given = StepInput(timestep, schedule.row(call), used, scales[call])
        if runtime.mesh is None:
            return jax.device_put(given)
        if used is not None:
            given = dataclasses.replace(given, noise=runtime.place(used, video_sharding))
        return place_missing(given, runtime.mesh)

    first = noise.draw(shape) if initial is None else np.asarray(initial, np.float32)
    if first.shape != shape:
        raise UsageError(f"latents has the shape {first.shape}; expected {shape}.")
    latents = runtime.place(first, video_sharding) * np.float32(schedule.init_noise_sigma)
    # Copies, since a history of equal zeros may be one array, and each is donated.
    solver = jax.tree.map(
        lambda leaf: runtime.place(jnp.copy(leaf), video_sharding), scheduler.init_state(latents)
    )
    pending = inputs(0)
    # A call in which no ControlNet acts runs the program without ControlNets.
    programs = {
        acts: _step_program(
            runtime,
            scheduler,
            conditioning,
            request,
            control if acts else None,
            (latents, solver, pending),
        )
        for acts in set(acting)
    }
    with runtime.progress.stage("denoising", calls, "step") as advance:
        for call in range(calls):
            latents, solver = programs[acting[call]](latents, solver, pending)
            if call + 1 < calls:
                # Drawn while the device is at work.
                pending = inputs(call + 1)
            jax.block_until_ready(latents)
            if after_step is not None:
                latents = after_step(call, float(schedule.timesteps[call]), latents)
                latents = runtime.place(latents, video_sharding)
            advance(1)
    return latents


def _step_program(
    runtime: Runtime,
    scheduler: Scheduler,
    conditioning: Conditioning,
    request: Request,
    control: ControlRun | None,
    example: tuple[jax.Array, Any, StepInput],
) -> Callable[[jax.Array, Any, StepInput], tuple[jax.Array, Any]]:
    """The compiled step, with everything bound that stays the same; latents are donated."""
    unet_arrays, build_unet = runtime.model("unet")
    controls = [] if control is None else control.controls
    controlnets = [runtime.model(f"controlnets.{index}") for index in range(len(controls))]
    guess_mode = control is not None and control.guess_mode
    enable_temporal_attentions = request.video_length > 1
    guidance = None
    if request.guided:
        guidance = Guidance(
            jnp.float32(request.guidance_scale), jnp.float32(request.guidance_rescale)
        )

    def step(
        unet: list[jax.Array],
        nets: list[list[jax.Array]],
        controls: list[Control],
        conditioning: Conditioning,
        guidance: Guidance | None,
        latents: jax.Array,
        solver: Any,
        inputs: StepInput,
    ) -> tuple[jax.Array, Any]:
        return denoising_step(
            build_unet(unet),
            conditioning,
            guidance,
            scheduler,
            latents,
            solver,
            inputs,
            enable_temporal_attentions=enable_temporal_attentions,
            controlnets=[build(net) for (_, build), net in zip(controlnets, nets, strict=True)],
            controls=controls,
            guess_mode=guess_mode,
        )

    bound = (unet_arrays, [arrays for arrays, _ in controlnets], controls, conditioning, guidance)
    out_shardings = None
    if runtime.mesh is not None:
        bound = place_missing(bound, runtime.mesh)
        # Latents and solver come back where they were, which the compiler need not choose.
        out_shardings = jax.tree.map(lambda leaf: leaf.sharding, example[:2])
    program = runtime.program(
        "denoising step" if control is None else "denoising step with ControlNet",
        (scheduler, enable_temporal_attentions, guess_mode),
        step,
        (*bound, *example),
        donate=(5, 6),
        out_shardings=out_shardings,
    )
    return lambda latents, solver, inputs: program(*bound, latents, solver, inputs)


def _calls_until(schedule: Schedule, end: float | None, num_train_timesteps: int) -> int:
    if end is None or not 0.0 < end < 1.0:
        return schedule.calls
    cutoff = round(num_train_timesteps * (1.0 - end))
    return max(1, int((schedule.timesteps >= cutoff).sum()))
