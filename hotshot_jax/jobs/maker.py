"""Makes clips from settings, several jobs over one loaded pipeline. Prints nothing."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from hotshot_jax.errors import HotshotError
from hotshot_jax.jobs.settings import ClipSettings, ModelSettings, RunSettings
from hotshot_jax.media.pixels import to_uint8
from hotshot_jax.media.stored_frames import StoredFrames
from hotshot_jax.models.unet.encoder_config import TemporalShape
from hotshot_jax.parallel.mesh import create_mesh
from hotshot_jax.pipelines.control import ControlInput
from hotshot_jax.pipelines.hotshot_xl import HotshotXLPipeline
from hotshot_jax.pipelines.latents import decode_latents
from hotshot_jax.pipelines.start import FROM_NOISE, StartInput
from hotshot_jax.runtime.progress import Progress
from hotshot_jax.version import __version__

Watch = Callable[[jax.Array], object]
"""Is handed latents, `[videos, frames, height / 8, width / 8, channels]`."""


class Cancelled(HotshotError):  # noqa: N818, as in asyncio and concurrent.futures
    """Whoever asked for a clip does not want it any more."""


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip that is made.

    Attributes:
        settings: what was asked for.
        number: which of its videos this is, from 0.
        frames: read like an array uint8 `[frames, height, width, 3]`; those of a long clip lie on
            disk.
    """

    settings: ClipSettings
    number: int
    frames: StoredFrames

    @property
    def metadata(self) -> dict[str, str]:
        """What to store beside the settings."""
        return {
            "video": f"{self.number + 1} of {self.settings.num_videos}",
            "versions": f"hotshot-jax {__version__}, jax {jax.__version__}",
        }


class ClipMaker:
    """Makes clips with a loaded pipeline.

    Args:
        pipeline: the pipeline.
        batch_size: clips that are made in one call, where they are alike.
    """

    def __init__(self, pipeline: HotshotXLPipeline, batch_size: int = 1):
        self.pipeline = pipeline
        self.batch_size = batch_size

    @classmethod
    def load(
        cls, model: ModelSettings, run: RunSettings | None = None, progress: Progress | None = None
    ) -> "ClipMaker":
        """Loads a pipeline.

        Args:
            model: which.
            run: how it will be run.
            progress: shows the loading, and the stages of every job that brings none of its own.

        Raises:
            HotshotError: a model is missing, damaged or of another family.
            UsageError: the settings contradict each other or the models.
        """
        run = run or RunSettings()
        pipeline = HotshotXLPipeline.from_pretrained(
            model.path,
            precision=model.precision,
            vae_precision=model.vae_precision,
            variant=model.variant,
            scheduler=model.scheduler,
            scheduler_options=model.scheduler_options,
            spatial_unet_base=model.spatial_unet_base,
            base=model.base,
            temporal=model.temporal,
            vae=model.vae,
            loras=model.loras,
            lora_allow_partial=model.lora_allow_partial,
            embeddings=model.embeddings,
            controlnets=model.controlnets,
            control_types=model.control_types,
            progress=progress,
            low_vram_mode=run.low_vram_mode,
            mesh=create_mesh(run.mesh) if run.mesh is not None and run.mesh.size > 1 else None,
            compile_effort=run.compile_effort,
            decode_frames=run.decode_frames,
            context_batch=run.context_batch,
        )
        return cls(pipeline, 1 if run.mesh is None else run.mesh.data)

    def make(
        self,
        clips: Sequence[ClipSettings],
        controls: Sequence[ControlInput] = (),
        start: StartInput = FROM_NOISE,
        *,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
        watch: Watch | None = None,
    ) -> Iterator[Clip]:
        """Makes clips, and gives each as soon as it is there.

        Every clip is what it would be alone, up to rounding.

        Args:
            clips: what to make.
            controls: what the ControlNets follow, in all of them.
            start: what all of them start from.
            progress: shows the stages of this job; by default as the pipeline was loaded with.
            cancelled: asked before each step, and has to give the same on all hosts.
            watch: is handed the latents after each step.

        Raises:
            UsageError: a setting is out of range.
            HotshotError: the result cannot be used.
            Cancelled: `cancelled` gave true. The pipeline can go on with another job.
        """
        runtime = self.pipeline.runtime
        usual = runtime.progress
        positions = self.pipeline.components.unet.config.temporal_positions
        for batch, size in batches(clips, self.batch_size, positions):
            runtime.progress = progress or usual
            try:
                latents = self._call(batch, size, controls, start, cancelled or _never, watch)
                videos = self.decoded(latents)
            finally:
                runtime.progress = usual
            each = len(videos) // size
            for place, settings in enumerate(batch):
                for number, video in enumerate(videos[place * each : (place + 1) * each]):
                    frames = _usable(video)
                    if settings.ping_pong:
                        frames = frames.back_and_forth()
                    yield Clip(settings, number, frames)

    def _call(
        self,
        clips: Sequence[ClipSettings],
        size: int,
        controls: Sequence[ControlInput],
        start: StartInput,
        cancelled: Callable[[], bool],
        watch: Watch | None,
    ) -> jax.Array:
        """Latents of clips that are alike; the last is made several times to fill up the batch."""

        def go_on(pipeline: Any, call: int, timestep: float, given: Any) -> Any:
            if cancelled():
                pipeline.runtime.rest("unet", *pipeline.components.controlnet_names)
                raise Cancelled("The job was cancelled.")
            if watch is not None:
                watch(given["latents"])
            return given

        filled = [*clips, *[clips[-1]] * (size - len(clips))]
        first, seeds = clips[0], [clip.seed for clip in filled]
        negative: list[Any] = [clip.negative_prompts for clip in filled]
        same = all(each == negative[0] for each in negative)
        if cancelled():
            raise Cancelled("The job was cancelled.")
        output = self.pipeline(
            [clip.prompts for clip in filled],
            None if first.prompt_2 is None else [first.prompt_2] * size,
            negative_prompt=negative[0] if same else negative,
            negative_prompt_2=first.negative_prompt_2,
            height=first.height,
            width=first.width,
            video_length=first.video_length,
            loop=first.loop,
            context=first.context(self.pipeline.components.unet.config.temporal_positions),
            num_inference_steps=first.steps,
            guidance_scale=first.guidance_scale,
            guidance_rescale=first.guidance_rescale,
            guidance_interval=first.guidance_interval,
            cache_interval=first.cache_interval,
            motion_scale=first.motion_scale,
            num_videos_per_prompt=first.num_videos,
            seed=seeds[0] if size == 1 else seeds,
            noise=first.noise,
            initial_noise=first.initial_noise,
            original_size=first.original_size,
            target_size=first.target_size,
            eta=first.eta,
            clip_skip=first.clip_skip,
            prompt_weights=first.prompt_weights,
            long_prompts=first.long_prompts,
            controls=controls,
            start=start,
            guess_mode=first.guess_mode,
            output_type="latent",
            callback_on_step_end=None if cancelled is _never and watch is None else go_on,
        )
        return output.videos

    def decoded(self, latents: jax.Array) -> list[StoredFrames]:
        """All videos of latents; what is decoded at once lies in memory, and no more of it."""
        runtime, at_once = self.pipeline.runtime, self.pipeline.decode_frames
        videos: list[StoredFrames] = []
        for images in decode_latents(runtime, latents, most_frames=at_once):
            for image in to_uint8(images):
                if not videos or len(videos[-1]) == latents.shape[1]:
                    videos.append(StoredFrames(*image.shape[:2]))
                videos[-1].append(image[None])
        return videos


def batches(
    clips: Sequence[ClipSettings], size: int, positions: int = TemporalShape.positions
) -> Iterator[tuple[Sequence[ClipSettings], int]]:
    """Divides clips into those that one call makes, and the size that it is filled up to.

    Neighbours that differ in prompts and seed alone go together, if they are of one video each, as
    the videos of one clip share a seed. Texts of several pieces stay alone: the others would be
    padded to the longest, which changes what they draw. So do clips of windows, which fill a batch.

    Args:
        clips: the clips.
        size: clips of a call; all calls are of that size, so that one program serves them.
        positions: frames that the temporal layers know.
    """
    for key, neighbours in itertools.groupby(clips, lambda clip: shared_call(clip, positions)):
        group = list(neighbours)
        together = size if key is not None and len(group) > 1 else 1
        for first in range(0, len(group), together):
            yield group[first : first + together], together


def shared_call(
    clip: ClipSettings, positions: int = TemporalShape.positions
) -> ClipSettings | None:
    """What clips have in common that one call can make; None for a clip that is made alone.

    Args:
        clip: the clip.
        positions: frames that the temporal layers know.
    """
    context = clip.context(positions)
    windowed = context is not None and clip.video_length > context.length
    if clip.num_videos > 1 or windowed or clip.read_in_pieces:
        return None
    # None is not an empty negative prompt: its embeddings are zeros.
    negative = clip.negative_prompt and ""
    return dataclasses.replace(clip, prompt="", negative_prompt=negative, seed=0)


def _usable(frames: StoredFrames) -> StoredFrames:
    if all((frame == frame[:1, :1]).all() for frame in frames):
        raise HotshotError(
            "Every frame has a single colour. The checkpoint is damaged, or a setting is far from "
            "what the model knows."
        )
    return frames


def _never() -> bool:
    return False
