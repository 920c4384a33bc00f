"""The Hotshot-XL pipeline: prompts in, videos out."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from hotshot_jax.builtin import builtin_checkpoint
from hotshot_jax.conditioning.key_frames import Number
from hotshot_jax.conditioning.text.prompt import PromptEncoder, Text, embed_prompts
from hotshot_jax.conditioning.text.text_embeddings import given_embeddings
from hotshot_jax.convert.assembly import Parts
from hotshot_jax.errors import UsageError
from hotshot_jax.media.pixels import as_images
from hotshot_jax.pipelines.components import Components
from hotshot_jax.pipelines.conditioning import make_conditionings
from hotshot_jax.pipelines.control import ControlInput
from hotshot_jax.pipelines.latents import decode_videos
from hotshot_jax.pipelines.loading import load_components
from hotshot_jax.pipelines.loras import COMPONENTS as CHANGED_BY_LORAS, LoadedLora
from hotshot_jax.pipelines.output import HotshotXLOutput, StepEnd, after_step, check_output_type
from hotshot_jax.pipelines.start import FROM_NOISE, StartInput, make_start
from hotshot_jax.runtime.precision import Precision, current_platform
from hotshot_jax.runtime.progress import NoProgress, Progress
from hotshot_jax.runtime.runtime import Runtime
from hotshot_jax.sampling.guidance import ClassifierFreeGuidance, Guidance
from hotshot_jax.sampling.loop import Sampling, WrapPredictor, sample_latents
from hotshot_jax.sampling.noise import noise_source, source_frames
from hotshot_jax.sampling.request import MotionScale, Request, block_names
from hotshot_jax.sampling.step_plan import ALL_STEPS, CacheInterval, GuidanceInterval
from hotshot_jax.sampling.windows import ContextConfig
from hotshot_jax.schedulers import Scheduler, make_scheduler


class HotshotXLPipeline:
    """Text to video with Hotshot-XL.

    Args:
        components: models, tokenizers and the scheduler's configuration.
        precision: dtypes; by default those of `f16` on the current device.
        scheduler: diffusers' class name, a short name, or a scheduler; None for the checkpoint's
            own.
        low_vram_mode: keeps only the model at work in device memory, the others on the host.
        decode_frames: frames that the VAE decodes at once, on each device.
        mesh: the devices to run on, with the axes of `parallel.mesh.MeshConfig`; None for the
            default device alone.
        compile_effort: how long the compiler may look for a faster program, one of
            `compile_effort.EFFORTS`; None is `programs.default_effort`.
        progress: shows the stages of each call.
        wrap_predictor: makes another predictor of the UNet's, see `sampling.predict`.
        context_batch: windows that are made at once; None for one on each device along `data`.

    Raises:
        HotshotError: the components do not fit each other.
        UsageError: the scheduler is unknown, or the effort.
    """

    def __init__(
        self,
        components: Components,
        *,
        precision: Precision | None = None,
        scheduler: str | Scheduler | None = None,
        low_vram_mode: bool = False,
        decode_frames: int = 4,
        mesh: Mesh | None = None,
        compile_effort: str | None = None,
        progress: Progress | None = None,
        wrap_predictor: WrapPredictor | None = None,
        context_batch: int | None = None,
    ):
        components.check()
        self.components = components
        self.precision = precision or Precision.named("f16", current_platform())
        self.scheduler = make_scheduler(scheduler, components.scheduler_config)
        self.wrap_predictor = wrap_predictor
        self.context_batch = context_batch
        self.decode_frames = 1 if low_vram_mode else decode_frames
        self.runtime = Runtime(
            components,
            self.precision,
            progress or NoProgress(),
            low_vram_mode=low_vram_mode,
            mesh=mesh,
            compile_effort=compile_effort,
        )

    @classmethod
    def from_pretrained(
        cls,
        path: str | None = None,
        *,
        precision: str = "f16",
        vae_precision: str | None = None,
        variant: str | None = None,
        scheduler: str | Scheduler | None = None,
        scheduler_options: Mapping[str, Any] | None = None,
        spatial_unet_base: str | None = None,
        base: str | None = None,
        temporal: str | None = None,
        vae: str | None = None,
        loras: Sequence[tuple[str, float]] = (),
        lora_allow_partial: bool = False,
        embeddings: Sequence[tuple[str, str]] = (),
        controlnets: Sequence[str] = (),
        control_types: Sequence[int | None] | None = None,
        progress: Progress | None = None,
        low_vram_mode: bool = False,
        mesh: Mesh | None = None,
        **options: Any,
    ) -> "HotshotXLPipeline":
        """Loads a checkpoint, in the diffusers layout or converted, or a single SDXL file.

        Args:
            path: a folder, `organisation/name[@revision]` on the Hub, or a `.safetensors` file as
                sites publish it, which needs `temporal`; None for the small built-in model.
            precision: "f16", "f32" or "bf16".
            vae_precision: "f32", "bf16x3" or "bf16"; None as suits the device and the VAE.
            variant: which files to prefer where there are several, such as "fp16".
            scheduler: see the class.
            scheduler_options: values that replace those of the checkpoint's configuration, such as
                `{"timestep_spacing": "trailing"}`.
            spatial_unet_base: an SDXL for the spatial layers: folder, `unet/`, file or Hub id.
            base: any SDXL for spatial layers, text encoders and VAE.
            temporal: a file of temporal layers, a Hotshot-XL UNet, MotionAdapter or Hub id.
            vae: another VAE: a folder, a single file or a Hub id.
            loras: paths or Hub ids of LoRAs and their strengths, merged into the weights.
            lora_allow_partial: whether keys of a LoRA that fit nowhere are left out.
            embeddings: paths or Hub ids of textual inversions, and the words that stand for them.
            controlnets: folders, files or Hub ids of ControlNets, used in this order.
            control_types: kind of the control frames that each will be given (None for those that
                are no union), to be checked before weights are read.
            progress: shows the loading, and the stages of each call.
            low_vram_mode: see the class.
            mesh: see the class; every weight is loaded straight to where it belongs.
            options: further arguments of the class.

        Raises:
            HotshotError: a model is missing, damaged or of another family.
            UsageError: a control type does not fit its ControlNet.
        """
        dtypes = Precision.named(precision, current_platform(), vae_precision)
        components = load_components(
            str(builtin_checkpoint()) if path is None else path,
            dtypes,
            variant=variant,
            scheduler=scheduler,
            scheduler_options=scheduler_options,
            parts=Parts(spatial_unet_base, base, temporal, vae),
            loras=loras,
            lora_allow_partial=lora_allow_partial,
            embeddings=embeddings,
            controlnets=controlnets,
            control_types=control_types,
            on_host=low_vram_mode,
            mesh=mesh if mesh is not None and mesh.size > 1 else None,
            progress=progress or NoProgress(),
        )
        return cls(
            components,
            precision=dtypes,
            scheduler=scheduler,
            progress=progress,
            low_vram_mode=low_vram_mode,
            mesh=mesh,
            **options,
        )

    @property
    def loras(self) -> tuple[LoadedLora, ...]:
        """The LoRAs that are loaded, with their strengths and what became of their keys."""
        return () if self.components.loras is None else self.components.loras.loaded

    def set_lora(self, name: str, scale: float) -> None:
        """Changes the strength of a LoRA that was given to `from_pretrained`.

        The weights that it changes are read from the checkpoint again and merged anew; no program
        is compiled again. If that fails, everything stays as it was.

        Args:
            name: its path or Hub id as it was given, or its file's name without the ending.
            scale: the new strength; 0 turns it off.

        Raises:
            UsageError: no such LoRA is loaded, or the strength is not finite.
            HotshotError: the checkpoint's files are gone or damaged.
        """
        before = self.components.loras
        if before is None:
            raise UsageError("No LoRA is loaded; give them to from_pretrained.")
        now = before.with_scale(name, scale)
        models = {each: self.components.model(each) for each in CHANGED_BY_LORAS}
        again: dict[str, Any] = now.merged_again(models, before)
        self.components = dataclasses.replace(self.components, **again, loras=now)
        self.runtime.components = self.components
        self.runtime.reload()

    @property
    def native_size(self) -> int:
        """Height and width, in pixels, that the UNet's configuration names."""
        return self.components.unet.config.sample_size * self.components.vae.config.scale_factor

    def __call__(
        self,
        prompt: Text | None = None,
        prompt_2: Text | None = None,
        *,
        negative_prompt: Text | None = None,
        negative_prompt_2: Text | None = None,
        height: int | None = None,
        width: int | None = None,
        video_length: int = 8,
        loop: bool = False,
        context: ContextConfig | None = None,
        start: StartInput = FROM_NOISE,
        num_inference_steps: int = 50,
        guidance_scale: Number = 5.0,
        guidance_rescale: float = 0.0,
        guidance: Guidance | None = None,
        guidance_interval: GuidanceInterval = ALL_STEPS,
        cache_interval: CacheInterval = 1,
        motion_scale: MotionScale = 1.0,
        num_videos_per_prompt: int = 1,
        seed: int | Sequence[int] = 0,
        noise: str | Iterable[np.ndarray] = "torch",
        initial_noise: str = "independent",
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
        prompt_weights: bool = True,
        long_prompts: bool = False,
        denoising_end: float | None = None,
        controls: Sequence[ControlInput] = (),
        guess_mode: bool = False,
        output_type: str = "np",
        callback_on_step_end: StepEnd | None = None,
    ) -> HotshotXLOutput:
        """Makes videos.

        Args:
            prompt: one or several, each a text or a mapping of key frames to texts.
            prompt_2: for the second text encoder; the same by default.
            negative_prompt: what to move away from; None means embeddings of zeros.
            negative_prompt_2: for the second text encoder; the same by default.
            height: pixels, a multiple of 8; the model's native height by default.
            width: pixels, likewise.
            video_length: frames, 1 to 1024; one turns the temporal layers off, and more than they
                know positions (24) are made in windows.
            loop: whether the last frame is followed by the first.
            context: how the clip is divided; by default as `ContextConfig.of_clip` says.
            start: a clip, pictures or latents to start from, and what of them to keep.
            num_inference_steps: denoising steps.
            guidance_scale: of classifier-free guidance, up to 1 means none; or at key frames.
            guidance_rescale: contrast correction of strong guidance, 0 to 1.
            guidance: joins the two predictions in place of classifier-free guidance of these two
                numbers.
            guidance_interval: fractions of the schedule between which there is guidance; the other
                steps run without the unconditional half.
            cache_interval: every so many steps the whole UNet is run, or in which, counted from 0;
                the other steps run its last layer, on features that are kept (DeepCache).
            motion_scale: factor of what the temporal transformers add, which may differ by frame;
                or a mapping of the UNet's blocks (`down0` to `up2`, `all`) to such.
            num_videos_per_prompt: videos of each prompt.
            seed: one seed for all videos together, or one for each.
            noise: "torch" for the numbers that PyTorch draws on a CPU, "jax" for JAX's own, or
                arrays `[videos, frames, height / 8, width / 8, 4]` in the order of their use.
            initial_noise: "independent" or "freenoise", see `sampling.noise.source_frames`.
            latents: initial standard normal noise with that shape, instead of a draw.
            prompt_embeds: `[prompts, tokens, channels]` instead of prompts, or
                `[prompts, frames, tokens, channels]` for a text that differs by frame.
            pooled_prompt_embeds: `[prompts, text_channels]`, with `prompt_embeds`, or
                `[prompts, frames, text_channels]`.
            negative_prompt_embeds: like `prompt_embeds`.
            negative_pooled_prompt_embeds: like `pooled_prompt_embeds`.
            original_size: first two time ids, (height, width) by default.
            crops_coords_top_left: second two time ids.
            target_size: last two time ids, (height, width) by default.
            eta: noise of DDIM.
            clip_skip: text encoder layers left out before the last but one.
            prompt_weights: whether `(word:1.3)`, `[word]`, `[before:after:when]` and `BREAK` in
                prompts have their meaning (`docs/prompts.md`) or are text.
            long_prompts: whether what exceeds the encoders' 77 tokens is read in further chunks;
                otherwise it is cut, with a warning.
            denoising_end: stops after this fraction of the schedule.
            controls: what each ControlNet follows, in the order of the components' ControlNets.
            guess_mode: the ControlNets see the conditional half alone, and weakly at the top.
            output_type: "np", "pil" or "latent".
            callback_on_step_end: called after each step.

        Raises:
            UsageError: an argument is out of range, or arguments contradict each other.
            HotshotError: the result has values that are not finite.
        """
        height = self.native_size if height is None else height
        width = self.native_size if width is None else width
        positions = self.components.unet.config.temporal_positions
        if context is None:
            context = ContextConfig.of_clip(video_length, positions, loop=loop)
        elif loop:
            context = dataclasses.replace(context, closed=True)
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
            context=context,
            motion_scale=motion_scale,
            cache_interval=cache_interval,
            guidance_interval=guidance_interval,
        )
        self._check(request, output_type)
        self.runtime.start_job()
        if guidance is None and request.guided:
            guidance = ClassifierFreeGuidance.of(request)
        told = embed_prompts(
            PromptEncoder(self.runtime, clip_skip, prompt_weights, long_prompts),
            (prompt, prompt_2),
            (negative_prompt, negative_prompt_2),
            given_embeddings(prompt_embeds, pooled_prompt_embeds, prompt, "prompt"),
            given_embeddings(
                negative_prompt_embeds,
                negative_pooled_prompt_embeds,
                negative_prompt,
                "negative_prompt",
            ),
            guided=guidance is not None,
            steps=num_inference_steps,
            frames=video_length,
        )
        self.runtime.rest("text_encoder", "text_encoder_2")

        videos = told.texts[0][-1].pooled.shape[0] * num_videos_per_prompt
        factor = self.components.vae.config.scale_factor
        shape = (videos, *request.latent_shape(factor, self.components.unet.config.in_channels))
        drawn = noise_source(noise, seed, videos, self.precision.noise)
        # Before the UNet is needed, so that the VAE is never on the device beside it.
        begun = make_start(self.runtime, start, request, shape, drawn, self.decode_frames)
        denoised = sample_latents(
            self.runtime,
            Sampling(
                self.scheduler,
                guidance,
                tuple(given.window for given in controls),
                guess_mode,
                self.wrap_predictor,
                context,
                self.context_batch,
            ),
            make_conditionings(
                self.runtime,
                told.texts,
                request,
                videos_per_prompt=num_videos_per_prompt,
                controls=controls,
                guess_mode=guess_mode,
            ),
            request,
            drawn,
            shape,
            of_step=told.of_step,
            initial=latents,
            source_frames=source_frames(initial_noise, seed, videos, video_length, context),
            start=begun,
            after_step=after_step(self, callback_on_step_end),
        )
        self.runtime.rest("unet", *self.components.controlnet_names)
        if output_type == "latent":
            return HotshotXLOutput(denoised)
        decoded = decode_videos(self.runtime, denoised, most_frames=self.decode_frames)
        return HotshotXLOutput(as_images(decoded) if output_type == "pil" else decoded)

    def _check(self, request: Request, output_type: str) -> None:
        components = self.components
        encoders = (components.text_encoder, components.text_encoder_2)
        request.check(
            multiple=components.vae.config.scale_factor,
            positions=components.unet.config.temporal_positions,
            encoder_depth=min(encoder.config.num_hidden_layers for encoder in encoders),
            blocks=block_names(len(components.unet.config.block_out_channels)),
        )
        check_output_type(output_type)
        self.scheduler.schedule(request.num_inference_steps)
