"""What a program of someone who uses the package may look like; mypy checks it strictly.

It is never run. Every name of `hotshot_jax.__all__` stands in it, with the types that it promises.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, assert_type

import jax
import jax.numpy as jnp
import numpy as np

import hotshot_jax
from hotshot_jax import (
    AutoencoderKL,
    Cancelled,
    ClassifierFreeGuidance,
    Clip,
    ClipMaker,
    ClipMeasures,
    ClipSettings,
    CLIPTextModel,
    Comparison,
    Conditioning,
    ContextConfig,
    ControlInput,
    ControlNetModel,
    ControlWindow,
    Guidance,
    HotshotError,
    HotshotXLOutput,
    HotshotXLPipeline,
    MeshConfig,
    ModelSettings,
    Precision,
    Predictor,
    Progress,
    RunSettings,
    Schedule,
    Scheduler,
    StartInput,
    StepInput,
    Trainer,
    UNet3DConditionModel,
    UsageError,
    compare_frames,
    convert_folder,
    create_mesh,
    dot_product_attention,
    make_scheduler,
    measure_frames,
    open_clip,
    replace_attention,
    write_torch_folder,
    write_video,
)
from hotshot_jax.convert.formats.converted import ConvertedFolder
from hotshot_jax.convert.prepare import open_checkpoint


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LateGuidance:
    """A guidance of one's own."""

    scale: jax.Array

    def __call__(
        self, unconditional: jax.Array, conditional: jax.Array, step: StepInput
    ) -> jax.Array:
        scale = jnp.where(jnp.asarray(step.progress) < 0.5, 1.0, self.scale)
        return unconditional + scale * (conditional - unconditional)


@dataclasses.dataclass(frozen=True)
class Halved:
    """A predictor around another."""

    inner: Predictor

    def __call__(
        self, latents: jax.Array, step: StepInput, conditioning: Conditioning, cache: Any
    ) -> tuple[jax.Array, Any]:
        part, cache = self.inner(latents[:, :4], step, conditioning.at_frames(np.arange(4)), cache)
        return jnp.concatenate([part, part], axis=1), cache


@dataclasses.dataclass(frozen=True)
class StandingStill(Scheduler):
    """A scheduler of one's own."""

    def schedule(self, num_inference_steps: int, first_step: int = 0) -> Schedule:
        timesteps = np.arange(num_inference_steps, 0, -1)
        return self._make_schedule(timesteps, {}, False, first_call=first_step)

    def step(
        self,
        row: Any,
        state: Any,
        model_output: jax.typing.ArrayLike,
        sample: jax.typing.ArrayLike,
        noise: jax.typing.ArrayLike | None = None,
    ) -> tuple[jax.Array, Any]:
        return jnp.asarray(sample), state


class Printed:
    """Progress of one's own."""

    @contextlib.contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        print(name, total, unit)
        yield lambda size: print(size)

    @contextlib.contextmanager
    def compiling(self, name: str) -> Iterator[None]:
        yield


def attention(
    query: jax.Array, key: jax.Array, value: jax.Array, *, causal: bool = False
) -> jax.Array:
    return dot_product_attention(query, key, value, causal=causal)


def make_videos(folder: Path) -> None:
    progress: Progress = Printed()
    guidances: list[Guidance] = [
        LateGuidance(jnp.float32(5.0)),
        ClassifierFreeGuidance(jnp.float32(5.0), jnp.float32(0.0)),
    ]
    scheduler = make_scheduler("ddim", {})
    assert_type(scheduler, Scheduler)
    pipeline = HotshotXLPipeline.from_pretrained(
        scheduler=StandingStill(),
        loras=[("style.safetensors", 0.8)],
        mesh=create_mesh(MeshConfig(data=2)),
        progress=progress,
        wrap_predictor=Halved,
    )
    assert_type(pipeline, HotshotXLPipeline)
    assert_type(pipeline.precision, Precision)
    assert_type(pipeline.components.unet, UNet3DConditionModel)
    assert_type(pipeline.components.vae, AutoencoderKL)
    assert_type(pipeline.components.text_encoder, CLIPTextModel)
    replace_attention(pipeline.components.unet, attention)
    pipeline.set_lora("style.safetensors", 0.5)
    clip = open_clip(folder / "clip.gif")
    control = ControlInput(np.stack([*clip.decode(range(8))]), ControlWindow(scale=0.7, end=0.5))
    try:
        output = pipeline(
            {0: "a red circle", 7: "a blue circle"},
            guidance=guidances[0],
            controls=[control],
            seed=3,
            context=ContextConfig(length=4, overlap=2),
            start=StartInput(video=clip.frames(range(8)), strength=0.5),
        )
    except UsageError as error:
        print(error.exit_status)
        return
    except HotshotError:
        raise
    assert_type(output, HotshotXLOutput)
    frames = np.asarray(output.videos[0] * 255, np.uint8)
    assert_type(write_video(folder / "out.gif", frames, 1000, {}), Path)
    measures = measure_frames(frames)
    assert_type(measures, ClipMeasures)
    assert_type(compare_frames(clip.stream(), frames), Comparison)
    print(measures.loop_gap)


def jobs(progress: Progress) -> list[Clip]:
    run = RunSettings(mesh=MeshConfig(frames=2), low_vram_mode=True)
    maker = ClipMaker.load(ModelSettings(path="folder", loras=(("style", 0.8),)), run, progress)
    assert_type(maker, ClipMaker)
    wanted = [ClipSettings("a red circle", seed=seed) for seed in range(2)]
    made: list[Clip] = []
    try:
        for clip in maker.make(wanted, cancelled=lambda: len(made) > 1):
            assert_type(clip.metadata, dict[str, str])
            made.append(clip)
    except Cancelled as stop:
        print(stop)
    return made


def convert(folder: Path) -> None:
    source = open_checkpoint(folder / "theirs")
    if isinstance(source, ConvertedFolder):
        write_torch_folder(source, folder / "theirs_again")
    else:
        convert_folder(source, folder / "ours", dtype=jnp.bfloat16)


def programs(trainer: Trainer, controlnet: ControlNetModel) -> str:
    print(trainer.scheduler, controlnet)
    assert_type(hotshot_jax.__version__, str)
    return hotshot_jax.__version__
