"""What a run shows of itself: clips of the test prompts, and the loss on held-out data."""

import dataclasses
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hotshot_jax.conditioning.control.windows import ControlWindow
from hotshot_jax.data.loader import Loader
from hotshot_jax.errors import HotshotError
from hotshot_jax.media.pixels import to_uint8
from hotshot_jax.media.write import write_video
from hotshot_jax.parallel.placement import on_host
from hotshot_jax.pipelines.components import Components
from hotshot_jax.pipelines.control import ControlInput
from hotshot_jax.pipelines.hotshot_xl import HotshotXLPipeline
from hotshot_jax.runtime.precision import Precision
from hotshot_jax.training.feeding.feed import Feed
from hotshot_jax.training.running.metrics import Reports
from hotshot_jax.training.running.step import Trainer
from hotshot_jax.training.running.step_sheet import step_folder, write_sheet_of_steps
from hotshot_jax.training.trainees.trainee import Parameters, Trainee

DEFAULT_PROMPTS = (
    "a woman is lifting weights in a gym",
    "a group of people are dancing at a party",
    "a teddy bear doing the front crawl",
)
"""The reference's."""

ORIGINAL_SIZE = (1920, 1080)
"""The reference's: of the films that Hotshot-XL was trained on."""

_SEED = 111
_MILLISECONDS = 1000
_SLUG = re.compile(r"[^a-z0-9]+")

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Sample:
    """A validation clip that is asked for; what is None is as `ClipConfig` says.

    Attributes:
        prompt: what to show.
        negative_prompt: what not to show.
        seed: fixes the noise.
        width: pixels.
        height: pixels.
        video_length: frames.
        steps: of denoising.
        guidance_scale: of classifier-free guidance.
    """

    prompt: str
    negative_prompt: str | None = None
    seed: int = _SEED
    width: int | None = None
    height: int | None = None
    video_length: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """How validation clips are made.

    Attributes:
        samples: one clip each.
        size: (width, height).
        resolution: target size that the model is told, both ways.
        original_size: first two of the sizes that it is told.
        frames: of a clip.
        steps: denoising steps.
        precision: "f32" or "bf16".
        scheduler: diffusers' class name; None for the checkpoint's own.
        guidance_scale: of classifier-free guidance.
    """

    samples: Sequence[Sample]
    size: tuple[int, int]
    resolution: int
    original_size: tuple[int, int] = ORIGINAL_SIZE
    frames: int = 8
    steps: int = 30
    precision: str = "f32"
    scheduler: str | None = None
    guidance_scale: float = 5.0


class ClipValidation:
    """Makes a clip of each test prompt with the weights as they are.

    Args:
        components: text encoders and VAE.
        division: what trains.
        config: how clips are made.
        folder: a folder for each step is made there.
        control: where a ControlNet trains, the control frames of each prompt's clip, uint8
            `[frames, height, width, 3]`; they are written beside the clips.
    """

    def __init__(
        self,
        components: Components,
        division: Trainee,
        config: ClipConfig,
        folder: Path,
        control: Sequence[np.ndarray] | None = None,
    ):
        self.components = components
        self.control = control
        self.division = division
        self.config = config
        self.folder = folder

    def run(self, step: int, trained: Parameters, frozen: Parameters, reports: Reports) -> int:
        """Writes and reports the clips; a prompt that fails is told, and the others are made.

        All hosts have to call it together; the first one makes the clips.

        Returns:
            How many prompts failed.
        """
        models = self.division.components(*on_host((trained, frozen)))
        if jax.process_index() != 0:
            return 0
        failed = 0
        pipeline = HotshotXLPipeline(
            dataclasses.replace(self.components, **models),
            precision=Precision.named(self.config.precision, "cpu"),
            scheduler=self.config.scheduler,
            low_vram_mode=True,
        )
        for number, sample in enumerate(self.config.samples):
            prompt = sample.prompt
            try:
                frames = self._clip(pipeline, number, sample)
                path = step_folder(self.folder, step) / f"{number:02d}-{_slug(prompt)}.gif"
                lasts = _MILLISECONDS
                if sample.video_length is not None:
                    lasts = max(1, _MILLISECONDS * len(frames) // self.config.frames)
                write_video(path, frames, lasts, {"prompt": prompt}, overwrite=True)
                reports.video(step, f"{number:02d}", frames)
                if self.control is not None:
                    path = path.with_name(f"{number:02d}-control.gif")
                    write_video(path, self.control[number], _MILLISECONDS, {}, overwrite=True)
            # Hours of training are worth more than a clip, whatever stood in its way.
            except Exception as error:
                failed += 1
                logger.warning(
                    "The validation clip of %r at step %d failed (%s); training goes on.",
                    prompt,
                    step,
                    " ".join(str(error).split()) or type(error).__name__,
                )
        try:
            write_sheet_of_steps(self.folder)
        except (OSError, HotshotError) as error:
            logger.warning("There is no sheet of the validation clips: %s", error)
        return failed

    def _clip(self, pipeline: HotshotXLPipeline, number: int, sample: Sample) -> np.ndarray:
        width, height = self.config.size
        controls = [] if self.control is None else [self.control[number]]
        guidance = sample.guidance_scale
        if guidance is None:
            guidance = self.config.guidance_scale
        output = pipeline(
            sample.prompt,
            negative_prompt=sample.negative_prompt,
            width=sample.width or width,
            height=sample.height or height,
            original_size=self.config.original_size,
            target_size=(self.config.resolution, self.config.resolution),
            num_inference_steps=sample.steps or self.config.steps,
            guidance_scale=guidance,
            video_length=sample.video_length or self.config.frames,
            seed=sample.seed,
            controls=[ControlInput(frames, ControlWindow()) for frames in controls],
        )
        return to_uint8(np.asarray(output.videos)[0])


class HeldOutLoss:
    """The loss on data that is never trained on, always with the same random numbers.

    Args:
        trainer: computes the loss, without dropping prompts.
        feed: gives the batches of an epoch over the data.
        batches: at most so many of them.
    """

    def __init__(self, trainer: Trainer, feed: Feed, batches: int):
        self.trainer = Trainer(
            trainer.division,
            trainer.scheduler,
            dataclasses.replace(trainer.config, text_dropout=0.0),
            trainer.schedule,
        )
        self.feed = feed
        self.batches = min(batches, feed.loader.batches_per_epoch)
        self._start = feed.loader.get_state()
        self._program: Any = jax.jit(self._loss)

    def run(self, trained: Parameters, frozen: Parameters) -> float:
        """The mean loss."""
        loader: Loader = self.feed.loader
        loader.set_state(self._start)
        losses = []
        try:
            for number in range(self.batches):
                _, arrays = self.feed.next()
                with jax.set_mesh(self.feed.mesh):
                    losses.append(self._program(trained, frozen, arrays, jnp.int32(number)))
            return float(np.mean([np.asarray(loss) for loss in losses]))
        finally:
            loader.close()

    def _loss(
        self, trained: Parameters, frozen: Parameters, arrays: Any, number: jax.Array
    ) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(_SEED), number)
        return self.trainer.loss(trained, frozen, arrays, key)[0]


def _slug(prompt: str) -> str:
    return _SLUG.sub("-", prompt.lower()).strip("-")[:40] or "prompt"
