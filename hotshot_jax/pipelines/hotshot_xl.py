"""The Hotshot-XL pipeline: prompts in, videos out."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.models import AutoencoderKL
from hotshot_jax.pipelines import prompt as prompt_encoding
from hotshot_jax.pipelines.components import MODELS, Components
from hotshot_jax.pipelines.denoise import Conditioning, Guidance, StepInput, denoising_step
from hotshot_jax.pipelines.noise import GivenNoise, NoiseSource, make_noise
from hotshot_jax.pipelines.precision import Precision, current_platform
from hotshot_jax.pipelines.programs import Programs, flattened
from hotshot_jax.pipelines.progress import NoProgress, Progress
from hotshot_jax.pipelines.prompt import PromptEncoder, TextEmbeddings
from hotshot_jax.pipelines.request import Request
from hotshot_jax.schedulers import DDIMScheduler, make_scheduler

OUTPUT_TYPES = ("np", "pil", "latent")

StepEnd = Callable[["HotshotXLPipeline", int, float, dict[str, jax.Array]], dict[str, jax.Array]]
"""Called after each step as in diffusers: `(pipeline, step, timestep, {"latents": ...})`.

Returns the dictionary, with other latents if they are to be changed.
"""


@dataclasses.dataclass(frozen=True)
class HotshotXLOutput:
    """What a call gives.

    Attributes:
        videos: `[videos, frames, height, width, 3]`, float32 in [0, 1]; a list of lists of images
            for "pil"; scaled latents `[videos, frames, height / 8, width / 8, 4]` for "latent".
    """

    videos: Any


class HotshotXLPipeline:
    """Text to video with Hotshot-XL.

    Args:
        components: models, tokenizers and the scheduler's configuration.
        precision: dtypes; by default those of `f16` on the current device.
        scheduler: diffusers' class name or a short name; None for the checkpoint's own.
        low_vram_mode: keeps in device memory only the model that is at work. The others wait in
            host memory.
        decode_frames: frames that the VAE decodes at once.
        progress: shows the stages of each call.

    Raises:
        HotshotError: the components do not fit each other.
        UsageError: the scheduler is unknown.
    """

    def __init__(
        self,
        components: Components,
        *,
        precision: Precision | None = None,
        scheduler: str | None = None,
        low_vram_mode: bool = False,
        decode_frames: int = 4,
        progress: Progress | None = None,
    ):
        components.check()
        self.components = components
        self.precision = precision or Precision.named("f16", current_platform())
        self.scheduler = make_scheduler(scheduler, components.scheduler_config)
        self.low_vram_mode = low_vram_mode
        self.decode_frames = 1 if low_vram_mode else decode_frames
        self.progress = progress or NoProgress()
        self._programs = Programs()
        self._resident = {name: flattened(getattr(components, name)) for name in MODELS}

    @classmethod
    def from_pretrained(
        cls,
        path: str,
        *,
        precision: str = "f16",
        variant: str | None = None,
        progress: Progress | None = None,
        low_vram_mode: bool = False,
        **options: Any,
    ) -> "HotshotXLPipeline":
        """Loads a checkpoint folder or Hub id, in the diffusers layout or converted.

        Args:
            path: a folder, or `organisation/name[@revision]` on the Hub.
            precision: "f16", "f32" or "bf16".
            variant: which files to prefer where there are several, such as "fp16".
            progress: shows the loading, and the stages of each call.
            low_vram_mode: see the class.
            options: further arguments of the class.

        Raises:
            HotshotError: the checkpoint is missing, damaged or of another model.
        """
        from hotshot_jax.pipelines.loading import load_components

        dtypes = Precision.named(precision, current_platform())
        components = load_components(
            path,
            dtypes,
            variant=variant,
            on_host=low_vram_mode,
            progress=progress or NoProgress(),
        )
        return cls(
            components, precision=dtypes, progress=progress, low_vram_mode=low_vram_mode, **options
        )

    @property
    def native_size(self) -> int:
        """Height and width, in pixels, that the UNet's configuration names."""
        return self.components.unet.config.sample_size * self.components.vae.config.scale_factor

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        prompt_2: str | Sequence[str] | None = None,
        *,
        negative_prompt: str | Sequence[str] | None = None,
        negative_prompt_2: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        video_length: int = 8,
        num_inference_steps: int = 50,
        guidance_scale: float = 5.0,
        guidance_rescale: float = 0.0,
        num_videos_per_prompt: int = 1,
        seed: int | Sequence[int] = 0,
        noise: str | Iterable[np.ndarray] = "torch",
        latents: jax.Array | np.ndarray | None = None,
        prompt_embeds: jax.Array | np.ndarray | None = None,
        pooled_prompt_embeds: jax.Array | np.ndarray | None = None,
        negative_prompt_embeds: jax.Array | np.ndarray | None = None,
        negative_pooled_prompt_embeds: jax.Array | np.ndarray | None = None,
        original_size: tuple[float, float] | None = None,
        crops_coords_top_left: tuple[float, float] = (0, 0),
        target_size: tuple[float, float] | None = None,
        eta: float = 0.0,
        clip_skip: int = 0,
        denoising_end: float | None = None,
        output_type: str = "np",
        callback_on_step_end: StepEnd | None = None,
    ) -> HotshotXLOutput:
        """Makes videos.

        Args:
            prompt: one prompt or several.
            prompt_2: for the second text encoder; the same by default.
            negative_prompt: what to move away from; None means embeddings of zeros.
            negative_prompt_2: for the second text encoder; the same by default.
            height: pixels, a multiple of 8; the model's native height by default.
            width: pixels, likewise.
            video_length: frames, 1 to 24; one frame turns the temporal layers off.
            num_inference_steps: denoising steps.
            guidance_scale: weight of classifier-free guidance; up to 1 means none.
            guidance_rescale: contrast correction of strong guidance, 0 to 1.
            num_videos_per_prompt: videos of each prompt.
            seed: one seed for all videos together, or one for each.
            noise: "torch" for the numbers that PyTorch draws on a CPU, "jax" for JAX's own, or
                arrays `[videos, frames, height / 8, width / 8, 4]` in the order of their use.
            latents: initial standard normal noise with that shape, instead of a draw.
            prompt_embeds: `[prompts, tokens, channels]` instead of prompts.
            pooled_prompt_embeds: `[prompts, text_channels]`, with `prompt_embeds`.
            negative_prompt_embeds: like `prompt_embeds`.
            negative_pooled_prompt_embeds: like `pooled_prompt_embeds`.
            original_size: first two time ids, (height, width) by default.
            crops_coords_top_left: second two time ids.
            target_size: last two time ids, (height, width) by default.
            eta: noise of DDIM.
            clip_skip: text encoder layers left out before the last but one.
            denoising_end: stops after this fraction of the schedule.
            output_type: "np", "pil" or "latent".
            callback_on_step_end: called after each step.

        Raises:
            UsageError: an argument is out of range, or arguments contradict each other.
            HotshotError: the result has values that are not finite.
        """
        height = self.native_size if height is None else height
        width = self.native_size if width is None else width
        request = Request(
            height=height,
            width=width,
            video_length=video_length,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guidance_rescale=guidance_rescale,
            original_size=original_size or (height, width),
            crops_coords_top_left=crops_coords_top_left,
            target_size=target_size or (height, width),
            eta=eta,
            clip_skip=clip_skip,
            denoising_end=denoising_end,
        )
        self._check(request, output_type)
        positive = self._given(prompt_embeds, pooled_prompt_embeds, prompt, "prompt")
        if positive is None:
            if prompt is None:
                raise UsageError("Neither prompt nor prompt_embeds is given.")
            prompts = _as_list(prompt)
            positive = self._encode(prompts, _as_list(prompt_2 or prompt), clip_skip)
        negative = None
        if request.guided:
            negative = self._given(
                negative_prompt_embeds,
                negative_pooled_prompt_embeds,
                negative_prompt,
                "negative_prompt",
            )
            if negative is None:
                negative = self._encode_negative(
                    negative_prompt, negative_prompt_2, positive, clip_skip
                )
            if negative.hidden.shape != positive.hidden.shape:
                raise UsageError(
                    f"negative_prompt_embeds has the shape {negative.hidden.shape}, prompt_embeds "
                    f"{positive.hidden.shape}; they have to be equal."
                )
        self._rest("text_encoder", "text_encoder_2")

        videos = positive.pooled.shape[0] * num_videos_per_prompt
        source = self._noise(noise, seed, videos)
        denoised = self._denoise(
            self._condition(positive, negative, request, num_videos_per_prompt),
            request,
            source,
            (videos, *self._latent_shape(request)),
            latents,
            callback_on_step_end,
        )
        self._rest("unet")
        if output_type == "latent":
            return HotshotXLOutput(denoised)
        decoded = self._decode(denoised)
        self._rest("vae")
        if not np.isfinite(decoded).all():
            raise HotshotError(
                "The result has values that are not finite; nothing was written. With precision "
                f"{self.precision.name}, try bf16 or f32; otherwise the checkpoint is damaged."
            )
        return HotshotXLOutput(_as_images(decoded) if output_type == "pil" else decoded)

    def _check(self, request: Request, output_type: str) -> None:
        encoders = (self.components.text_encoder, self.components.text_encoder_2)
        request.check(
            multiple=self.components.vae.config.scale_factor,
            encoder_depth=min(encoder.config.num_hidden_layers for encoder in encoders),
        )
        if output_type not in OUTPUT_TYPES:
            raise UsageError(
                f"output_type {output_type!r} is unknown; expected {', '.join(OUTPUT_TYPES)}."
            )

    # Text

    def _given(self, hidden: Any, pooled: Any, text: Any, name: str) -> TextEmbeddings | None:
        if hidden is None and pooled is None:
            return None
        if hidden is None or pooled is None:
            raise UsageError(f"{name}_embeds and its pooled twin have to be given together.")
        if text is not None:
            raise UsageError(f"{name} and {name}_embeds are both given; one of them is enough.")
        return TextEmbeddings(jnp.asarray(hidden), jnp.asarray(pooled))

    def _encode(
        self, prompts: Sequence[str], prompts_2: Sequence[str], clip_skip: int
    ) -> TextEmbeddings:
        if len(prompts) != len(prompts_2):
            raise UsageError(
                f"{len(prompts)} prompts for the first text encoder, {len(prompts_2)} for the "
                "second; expected as many."
            )
        leaves, build = self._placed("text_encoder")
        leaves_2, build_2 = self._placed("text_encoder_2")

        def encode(arrays: Any, arrays_2: Any, ids: jax.Array, ids_2: jax.Array) -> Any:
            return prompt_encoding.encode(
                build(arrays), build_2(arrays_2), ids, ids_2, clip_skip=clip_skip
            )

        def run(ids: np.ndarray, ids_2: np.ndarray) -> tuple[jax.Array, jax.Array]:
            arguments = (leaves, leaves_2, ids, ids_2)
            return self._program("text encoders", clip_skip, encode, arguments)(*arguments)

        encoder = PromptEncoder(self.components.tokenizer, self.components.tokenizer_2, run)
        return encoder(prompts, prompts_2)

    def _encode_negative(
        self,
        negative_prompt: str | Sequence[str] | None,
        negative_prompt_2: str | Sequence[str] | None,
        positive: TextEmbeddings,
        clip_skip: int,
    ) -> TextEmbeddings:
        if negative_prompt is None and self.components.force_zeros_for_empty_prompt:
            return TextEmbeddings.zeros_like(positive)
        count = positive.pooled.shape[0]
        negatives = _as_list(negative_prompt or "")
        negatives_2 = _as_list(negative_prompt_2 or negatives)
        for texts in (negatives, negatives_2):
            if len(texts) not in (1, count):
                raise UsageError(
                    f"{len(texts)} negative prompts for {count} prompts; expected one, or as many."
                )
        return self._encode(_repeated(negatives, count), _repeated(negatives_2, count), clip_skip)

    def _condition(
        self,
        positive: TextEmbeddings,
        negative: TextEmbeddings | None,
        request: Request,
        videos_per_prompt: int,
    ) -> Conditioning:
        leaves, build = self._placed("unet")
        dtype = self.precision.compute
        embeddings = [positive] if negative is None else [negative, positive]

        def project(arrays: Any, hidden: jax.Array) -> Any:
            return build(arrays).project_text(hidden)

        def joined(parts: list[jax.Array]) -> jax.Array:
            repeated = [jnp.repeat(part, videos_per_prompt, axis=0) for part in parts]
            return jnp.concatenate(repeated).astype(dtype)

        hidden = joined([embedding.hidden for embedding in embeddings])
        pooled = joined([embedding.pooled for embedding in embeddings])
        # In half precision the reference rounds the sizes too; 1920 stays, odd numbers may not.
        sizes = jnp.asarray([request.time_ids] * len(pooled), self.precision.noise)
        arguments = (leaves, hidden)
        text = self._program("text projection", None, project, arguments)(*arguments)
        return Conditioning(text, pooled, sizes.astype(jnp.float32))

    # Denoising

    def _noise(
        self, noise: str | Iterable[np.ndarray], seed: int | Sequence[int], videos: int
    ) -> NoiseSource:
        if not isinstance(noise, str):
            return GivenNoise(iter(noise))
        seeds = [seed] if isinstance(seed, int) else list(seed)
        if len(seeds) not in (1, videos):
            raise UsageError(f"{len(seeds)} seeds for {videos} videos; expected one, or as many.")
        return make_noise(noise, seeds, self.precision.noise)

    def _latent_shape(self, request: Request) -> tuple[int, ...]:
        factor = self.components.vae.config.scale_factor
        channels = self.components.unet.config.in_channels
        return (
            request.video_length,
            request.height // factor,
            request.width // factor,
            channels,
        )

    def _denoise(
        self,
        conditioning: Conditioning,
        request: Request,
        noise: NoiseSource,
        shape: tuple[int, ...],
        latents: jax.Array | np.ndarray | None,
        callback: StepEnd | None,
    ) -> jax.Array:
        scheduler = self.scheduler
        if isinstance(scheduler, DDIMScheduler):
            scheduler = dataclasses.replace(scheduler, eta=request.eta)
        schedule = scheduler.schedule(request.num_inference_steps)
        calls = _calls_until(schedule.timesteps, request.denoising_end, scheduler)
        leaves, build = self._placed("unet")
        guidance = None
        if request.guided:
            guidance = Guidance(
                jnp.float32(request.guidance_scale), jnp.float32(request.guidance_rescale)
            )
        temporal = request.video_length > 1

        def step(
            arrays: Any, conditioning: Any, guidance: Any, latents: Any, solver: Any, inputs: Any
        ) -> Any:
            return denoising_step(
                build(arrays),
                conditioning,
                guidance,
                scheduler,
                latents,
                solver,
                inputs,
                enable_temporal_attentions=temporal,
            )

        def inputs(call: int) -> StepInput:
            used = None
            if scheduler.stochastic:
                drawn = schedule.draws_noise[call]
                used = noise.draw(shape) if drawn else np.zeros(shape, np.float32)
            timestep = np.float32(schedule.timesteps[call])
            return jax.device_put(StepInput(timestep, schedule.row(call), used))

        initial = noise.draw(shape) if latents is None else np.asarray(latents, np.float32)
        if initial.shape != shape:
            raise UsageError(f"latents has the shape {initial.shape}; expected {shape}.")
        current = jnp.asarray(initial) * jnp.float32(schedule.init_noise_sigma)
        solver = scheduler.init_state(current)

        pending = inputs(0)
        program = self._program(
            "denoising step",
            (scheduler, temporal),
            step,
            (leaves, conditioning, guidance, current, solver, pending),
            donate=(3, 4),
        )
        with self.progress.stage("denoising", calls, "step") as advance:
            for call in range(calls):
                current, solver = program(leaves, conditioning, guidance, current, solver, pending)
                if call + 1 < calls:
                    # Drawn while the device is at work.
                    pending = inputs(call + 1)
                jax.block_until_ready(current)
                if callback is not None:
                    timestep = float(schedule.timesteps[call])
                    changed = callback(self, call, timestep, {"latents": current})
                    current = jnp.asarray(changed["latents"], jnp.float32)
                advance(1)
        return current

    # Decoding

    def _decode(self, latents: jax.Array) -> np.ndarray:
        leaves, build = self._placed("vae")
        scaling = self.components.vae.config.scaling_factor

        def decode(arrays: Any, latents: jax.Array) -> jax.Array:
            vae: AutoencoderKL = build(arrays)
            return jnp.clip(vae.decode(latents / scaling) / 2 + 0.5, 0.0, 1.0)

        videos, frames = latents.shape[:2]
        at_once = max(n for n in range(1, self.decode_frames + 1) if frames % n == 0)
        decoded = []
        with self.progress.stage("decoding", videos * frames, "frame") as advance:
            for video in range(videos):
                chunks = []
                for first in range(0, frames, at_once):
                    arguments = (leaves, latents[video : video + 1, first : first + at_once])
                    program = self._program(
                        "VAE decoder", None, decode, arguments, matmul="float32"
                    )
                    chunks.append(np.asarray(program(*arguments)))
                    advance(at_once)
                decoded.append(np.concatenate(chunks, axis=1))
        return np.concatenate(decoded)

    # Programs and memory

    def _program(
        self,
        name: str,
        key: Any,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        *,
        donate: tuple[int, ...] = (),
        matmul: str | None = None,
    ) -> Callable[..., Any]:
        return self._programs.get(
            name,
            key,
            function,
            arguments,
            self.progress,
            donate=donate,
            matmul=matmul or self.precision.matmul,
        )

    def _placed(self, name: str) -> tuple[list[jax.Array], Callable[[list[jax.Array]], Any]]:
        leaves, build = self._resident[name]
        if self.low_vram_mode:
            leaves = jax.device_put(leaves, jax.devices()[0])
            self._resident[name] = leaves, build
        return leaves, build

    def _rest(self, *names: str) -> None:
        # The components themselves are in host memory in this mode; dropping the copies is enough.
        if self.low_vram_mode:
            for name in names:
                self._resident[name] = flattened(getattr(self.components, name))


def _calls_until(timesteps: np.ndarray, end: float | None, scheduler: Any) -> int:
    if end is None or not 0.0 < end < 1.0:
        return len(timesteps)
    cutoff = round(scheduler.num_train_timesteps * (1.0 - end))
    return max(1, int((timesteps >= cutoff).sum()))


def _as_list(text: str | Sequence[str]) -> list[str]:
    return [text] if isinstance(text, str) else list(text)


def _repeated(texts: list[str], count: int) -> list[str]:
    return texts * count if len(texts) == 1 else texts


def _as_images(videos: np.ndarray) -> list[list[Any]]:
    from PIL import Image

    from hotshot_jax.media.pixels import to_uint8

    return [[Image.fromarray(frame) for frame in to_uint8(video)] for video in videos]
