"""The programs that `compile_for` compiles: one denoising step, decoding, one training step."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from benchmarks.compile.abstract_arrays import (
    Abstract,
    Program,
    Size,
    bytes_per_device,
    latents_shape,
    unet_of,
    vae_of,
)
from hotshot_jax.parallel.placement import batch_devices, projected_text_shardings
from hotshot_jax.parallel.rules import parameter_shardings
from hotshot_jax.pipelines.latents import decoded_pixels
from hotshot_jax.sampling.guidance import ClassifierFreeGuidance
from hotshot_jax.sampling.loop import LoopState, denoising_step
from hotshot_jax.sampling.predict import (
    Conditioning,
    Predictor,
    StepInput,
    UNetPredictor,
    WindowBatch,
)
from hotshot_jax.sampling.windowed import WindowedPredictor, window_plan
from hotshot_jax.sampling.windows import ContextConfig
from hotshot_jax.schedulers import make_scheduler

TEXT_TOKENS = 77
SCHEDULER = {
    "_class_name": "EulerAncestralDiscreteScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


def infer(size: Size, mesh: Mesh | None) -> Program:
    """One denoising step with guidance, in bfloat16; the text has been projected before."""
    abstract = Abstract(mesh)
    unet = unet_of(size)
    config = unet.config
    batch = 2 * size.videos
    text = jax.eval_shape(
        lambda unet, text: unet.project_text(text),
        unet,
        jax.ShapeDtypeStruct((batch, TEXT_TOKENS, config.cross_attention_dim), jnp.bfloat16),
    )
    scheduler = make_scheduler(None, SCHEDULER)
    latents = abstract.video(latents_shape(size))
    arguments = (
        abstract.module(unet),
        Conditioning(
            abstract.tree(text, projected_text_shardings),
            abstract.samples((batch, 1, _pooled_channels(unet))),
            abstract.samples((batch, 6)),
            branches=2,
        ),
        ClassifierFreeGuidance(abstract.array(()), abstract.array(())),
        latents,
        StepInput(
            timestep=abstract.array(()),
            progress=abstract.array(()),
            row=jax.tree.map(lambda _: abstract.array(()), scheduler.schedule(30).row(0)),
            noise=latents,
            control_scales=abstract.array((0,)),
            windows=jax.tree.map(
                lambda array: abstract.array(array.shape, array.dtype), windows(size, mesh)
            ),
        ),
    )

    def step(unet: Any, conditioning: Any, guidance: Any, latents: Any, inputs: Any) -> Any:
        predict: Predictor = UNetPredictor(unet, enable_temporal_attentions=size.frames > 1)
        if inputs.windows:
            predict = WindowedPredictor(predict)
        state = LoopState(latents, ())
        return denoising_step(predict, guidance, scheduler, conditioning, state, inputs).latents

    return Program(
        step, arguments, (3,), bytes_per_device(arguments[0]), out_shardings=latents.sharding
    )


def windows(size: Size, mesh: Mesh | None) -> tuple[WindowBatch, ...]:
    """The windows of a step, as the sampling loop divides them."""
    if size.context_length is None:
        return ()
    context = ContextConfig(size.context_length, size.context_length // 2)
    devices = batch_devices(mesh)
    at_once, multiple = size.context_batch or devices, devices // math.gcd(devices, 2 * size.videos)
    return window_plan(context, size.frames, 1, at_once, multiple)[0]


def decode(size: Size, mesh: Mesh | None) -> Program:
    """Decoding some frames of a video."""
    abstract = Abstract(mesh)
    precision = size.vae_precision
    vae = vae_of(size, precision.compute)
    latents = abstract.video((1, size.decoded_at_once, *latents_shape(size)[2:]))
    arguments = (abstract.module(vae), latents)
    return Program(
        decoded_pixels,
        arguments,
        (),
        bytes_per_device(arguments[0]),
        matmul=precision.matmul,
        out_shardings=latents.sharding,
    )


def trainer_of(size: Size) -> Any:
    """The `Trainer` of a UNet with shapes in place of arrays."""
    # Needs optax, which only training does.
    from hotshot_jax.training.optimizer import learning_rate_schedule
    from hotshot_jax.training.running.step import StepConfig, Trainer
    from hotshot_jax.training.trainees.trainee import Division

    return Trainer(
        Division.of(unet_of(size), size.trained),
        make_scheduler(None, SCHEDULER),
        StepConfig(rematerialisation=size.rematerialisation, scaling_factor=0.13025),
        learning_rate_schedule("constant", 1e-5, 0, 1),
    )


def train(size: Size, mesh: Mesh | None) -> Program:
    """One training step: float32 for what trains and its moments, bfloat16 for the rest."""
    from hotshot_jax.training.running.step import TrainState

    abstract = Abstract(mesh)
    unet = unet_of(size)
    trainer = trainer_of(size)
    division = trainer.division
    parameters = _by_name(unet, division, abstract)
    trained = {name: parameters[name] for name in sorted(division.trained)}
    frozen = {name: leaf for name, leaf in parameters.items() if name not in trained}
    state = jax.eval_shape(lambda trained: trainer.init(trained, 0), trained)
    # The moments lie where their parameters do, everything else is whole.
    places = {name: leaf.sharding for name, leaf in trained.items()}
    state = jax.tree_util.tree_map_with_path(
        lambda path, leaf: _like(leaf, places.get(_last_name(path)), abstract), state
    )
    channels = unet.config.cross_attention_dim
    pooled = _pooled_channels(unet)
    batch = {
        "mean": abstract.video(latents_shape(size)),
        "deviation": abstract.video(latents_shape(size)),
        "hidden": abstract.samples((size.videos, TEXT_TOKENS, channels), jnp.bfloat16),
        "pooled": abstract.samples((size.videos, pooled)),
        "time_ids": abstract.samples((size.videos, 6)),
        "empty_hidden": abstract.array((TEXT_TOKENS, channels), jnp.bfloat16),
        "empty_pooled": abstract.array((pooled,)),
    }

    def step(state: TrainState, frozen: Any, batch: Any, micro: jax.Array) -> Any:
        return trainer.step(state, frozen, batch, micro, last=True)

    arguments = (state, frozen, batch, abstract.array((), jnp.int32))
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    return Program(
        step,
        arguments,
        (0,),
        bytes_per_device((trained, frozen)),
        out_shardings=None if mesh is None else (shardings, None),
    )


def _pooled_channels(unet: Any) -> int:
    config = unet.config
    return config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim


def _by_name(unet: Any, division: Any, abstract: Abstract) -> dict[str, jax.ShapeDtypeStruct]:
    leaves = dict(nnx.to_flat_state(nnx.state(unet, nnx.Param)))
    shardings = {} if abstract.mesh is None else parameter_shardings(unet, abstract.mesh)
    return {
        name: jax.ShapeDtypeStruct(
            leaves[path].shape,
            jnp.float32 if name in division.trained else leaves[path].dtype,
            sharding=shardings.get(path),
        )
        for name, path in division.paths.items()
    }


def _last_name(path: tuple[Any, ...]) -> str:
    return str(path[-1].key) if isinstance(path[-1], jax.tree_util.DictKey) else ""


def _like(leaf: Any, place: Any, abstract: Abstract) -> jax.ShapeDtypeStruct:
    if place is None:
        return abstract.array(leaf.shape, leaf.dtype)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
