"""What other tools (AUTOMATIC1111, ComfyUI, diffusers, kohya) call this project's settings."""

import re
from collections.abc import Mapping
from typing import Final

from hotshot_jax.cli.translation import OtherNames

_DEVICES: Final = {"cuda": "gpu", "rocm": "gpu", "nvidia": "gpu", "xla": "tpu"}
_RATIOS: Final = {"16:9": "1.75", "9:16": "0.57"}
_PRECISIONS: Final = {
    "f16": ("fp16", "float16", "half", "torch.float16", "16"),
    "f32": ("fp32", "float32", "full", "torch.float32", "32", "no"),
    "bf16": ("bfloat16", "torch.bfloat16"),
}
_MIXED: Final = {"f16": "fp16", "f32": "no", "bf16": "bf16"}

# By their letters and digits alone, since every tool has blanks, hyphens and underscores elsewhere.
_SAMPLERS: Final = {
    "eulera": "euler_ancestral",
    "eulerancestral": "euler_ancestral",
    "euler": "euler",
    "ddim": "ddim",
    "ddpm": "ddpm",
    "heun": "heun",
    "lcm": "lcm",
    "plms": "pndm",
    "pndm": "pndm",
    "unipc": "unipc",
    "dpm++2m": "dpmpp_2m",
    "dpm++2mkarras": "dpmpp_2m_karras",
    "dpm++2msde": "dpmpp_2m_sde",
    "dpm++2msdekarras": "dpmpp_2m_sde_karras",
}

_OPTIMIZERS: Final = {
    "adamw": "adamw",
    "adamw8bit": "adamw_8bit",
    "adafactor": "adafactor",
    "lion": "lion",
    "prodigy": "prodigy",
    "muon": "muon",
    "adamwschedulefree": "schedule_free",
}


def sampler(name: str) -> str:
    """Our name of a scheduler: "DPM++ 2M Karras" becomes dpmpp_2m_karras."""
    letters = re.sub(r"[\s_-]", "", name.lower()).replace("pp", "++")
    return _SAMPLERS.get(letters, name)


def _precision(name: str) -> str:
    return next((ours for ours, theirs in _PRECISIONS.items() if name.lower() in theirs), name)


def _device(name: str) -> str:
    return _DEVICES.get(name.lower(), name)


def _aspect_ratio(name: str) -> str:
    return _RATIOS.get(name.replace(" ", "").replace("x", ":"), name)


def _all(names: Mapping[str, str]) -> dict[str, str]:
    return {theirs: ours for ours, all_theirs in names.items() for theirs in all_theirs.split()}


_NOT_NEEDED: Final = "attention is chosen by itself; leave it out."
_CPU_OFFLOAD: Final = ("--low_vram_mode",)
_EVERYWHERE: Final = {
    "xformers": _NOT_NEEDED,
    "sdpa": _NOT_NEEDED,
    "enable_xformers_memory_efficient_attention": _NOT_NEEDED,
    "opt_sdp_attention": _NOT_NEEDED,
}

INFER: Final = OtherNames(
    same=_all(
        {
            "prompt": "p text positive positive_prompt",
            "negative_prompt": "n negative neg neg_prompt uc",
            "guidance_scale": "cfg cfg_scale guidance scale unconditional_guidance_scale",
            "guidance_rescale": "cfg_rescale rescale_cfg",
            "guidance_interval": "cfg_interval",
            "cache_interval": "deepcache deep_cache deepcache_interval",
            "steps": "num_inference_steps inference_steps sampling_steps sample_steps num_steps "
            "ddim_steps",
            "scheduler": "sampler sampler_name sampling_method sample_method",
            "timestep_spacing": "spacing",
            "eta": "ddim_eta",
            "seed": "manual_seed random_seed",
            "video_length": "num_frames frames n_frames frame_count video_frames length",
            "num_videos": "num_videos_per_prompt num_images_per_prompt num_samples n_samples",
            "width": "W",
            "height": "H",
            "aspect_ratio": "ar aspect",
            "pretrained_path": "model model_id model_path model_name ckpt ckpt_path ckpt_name "
            "checkpoint checkpoint_path pretrained_model pretrained_model_path "
            "pretrained_model_name_or_path",
            "temporal": "motion_module motion_adapter motion_model",
            "vae": "vae_path vae_model vae_name",
            "lora": "lora_path lora_weights lora_model lora_name",
            "embedding": "embeddings textual_inversion ti embedding_path",
            "controlnet": "controlnet_path controlnet_model control_net",
            "controlnet_conditioning_scale": "controlnet_scale control_scale controlnet_weight "
            "control_weight control_strength",
            "gif": "control_image control_video control_gif input_video",
            "precision": "dtype torch_dtype weight_dtype mixed_precision",
            "output": "o out outfile output_file output_path save_path",
            "overwrite": "force y",
            "prompts_file": "from_file prompt_file",
            "depth_checkpoint": "depth_model depth_estimator",
            "strength": "denoising_strength denoise",
            "video": "init_video",
            "loop": "closed_loop",
        }
    ),
    instead={
        "fp16": ("--precision", "f16"),
        "half": ("--precision", "f16"),
        "bf16": ("--precision", "bf16"),
        "fp32": ("--precision", "f32"),
        "no_half": ("--precision", "f32"),
        "full_precision": ("--precision", "f32"),
        "cpu": ("--device", "cpu"),
        "cuda": ("--device", "gpu"),
        "gpu": ("--device", "gpu"),
        "tpu": ("--device", "tpu"),
        "medvram": _CPU_OFFLOAD,
        "lowvram": _CPU_OFFLOAD,
        "low_vram": _CPU_OFFLOAD,
        "cpu_offload": _CPU_OFFLOAD,
        "enable_model_cpu_offload": _CPU_OFFLOAD,
    },
    advice=_EVERYWHERE
    | {
        "fps": "--video_duration gives the milliseconds of the whole clip; --video_length 8 at 10 "
        "frames a second last --video_duration 800.",
        "frame_rate": "--video_duration gives the milliseconds of the whole clip.",
        "duration": "--video_duration gives the milliseconds of the whole clip.",
        "size": "give --width and --height, or --aspect_ratio.",
        "resolution": "give --width and --height, or --aspect_ratio.",
        "batch_size": "--num_videos makes several of a prompt, --prompts_file takes many prompts.",
        "batch_count": "--num_videos makes several of a prompt.",
        "n_iter": "--num_videos makes several of a prompt.",
        "outdir": "--output names the file to write, such as --output outputs/a.gif.",
        "output_dir": "--output names the file to write, such as --output outputs/a.gif.",
        "lora_scale": "the strength stands behind the file: --lora FILE:0.8.",
        "lora_weight": "the strength stands behind the file: --lora FILE:0.8.",
        "refiner": "Hotshot-XL has none.",
    },
    values={
        "scheduler": sampler,
        "precision": _precision,
        "device": _device,
        "aspect_ratio": _aspect_ratio,
    },
    bare="prompt",
)
"""For `infer.py`."""

_CACHE: Final = "name a folder for latents and texts with --cache_dir."
TRAIN: Final = OtherNames(
    same=_all(
        {
            "pretrained_model_name_or_path": "model model_id model_path pretrained_path "
            "pretrained_model pretrained_model_path model_name_or_path ckpt checkpoint "
            "pretrained_teacher_model",
            "data_dir": "train_data_dir instance_data_dir dataset dataset_dir dataset_path "
            "data_path data train_data data_root",
            "output_dir": "o output out outdir output_path",
            "train_batch_size": "batch_size per_device_train_batch_size",
            "num_train_epochs": "epochs max_train_epochs num_epochs max_epochs",
            "max_train_steps": "steps max_steps train_steps num_steps num_train_steps",
            "gradient_accumulation_steps": "accumulation_steps grad_accum_steps grad_accumulation",
            "learning_rate": "lr unet_lr",
            "lr_scheduler": "lr_scheduler_type scheduler",
            "lr_warmup_steps": "warmup_steps num_warmup_steps",
            "train_text_encoder": "train_text_encoders",
            "lora_rank": "rank network_dim network_rank lora_dim lora_r",
            "snr_gamma": "min_snr_gamma",
            "text_dropout": "caption_dropout_rate caption_dropout proportion_empty_prompts "
            "conditioning_dropout_prob uncond_prob",
            "video_length": "num_frames frames n_frames n_sample_frames sample_n_frames",
            "mixed_precision": "precision dtype",
            "mirror": "flip_aug random_flip flip horizontal_flip",
            "trigger_words": "trigger_word trigger",
            "shuffle_tags": "shuffle_caption shuffle_captions tag_shuffle",
            "keep_tags": "keep_tokens",
            "tag_dropout": "caption_tag_dropout_rate",
            "frame_stride": "stride sample_stride sample_interval",
            "fps": "target_fps sample_fps",
            "save_n_steps": "checkpointing_steps save_every_n_steps save_steps save_every",
            "keep_checkpoints": "checkpoints_total_limit save_total_limit",
            "resume": "resume_from_checkpoint resume_from",
            "report_to": "log_with logger",
            "project_name": "tracker_project_name wandb_project wandb_project_name",
            "run_name": "wandb_run_name",
            "test_prompts": "validation_prompt validation_prompts",
            "validate_every_steps": "sample_every_n_steps eval_steps validation_every",
            "validation_data": "val_data validation_data_dir val_data_dir eval_data_dir",
            "adam_weight_decay": "weight_decay",
            "adam_beta1": "beta1",
            "adam_beta2": "beta2",
            "adam_epsilon": "eps epsilon",
            "max_grad_norm": "grad_clip gradient_clip_val clip_grad_norm",
            "loss": "loss_type",
            "aspect_ratio": "ar",
            "optimizer": "optimizer_type optim",
        }
    ),
    instead={
        "v_parameterization": ("--prediction_type", "v_prediction"),
        "fp16": ("--mixed_precision", "fp16"),
        "bf16": ("--mixed_precision", "bf16"),
        "use_8bit_optimizer": ("--use_8bit_adam",),
        "cpu": ("--device", "cpu"),
        "cuda": ("--device", "gpu"),
        "gpu": ("--device", "gpu"),
        "tpu": ("--device", "tpu"),
    },
    advice=_EVERYWHERE
    | {
        "use_ema": "--ema_decay 0.999 keeps a moving average.",
        **dict.fromkeys(
            "block_lr down_lr_weight mid_lr_weight up_lr_weight network_reg_lrs lr_groups lr_mult "
            "lr_mults layer_lrs text_encoder_lr te_lr".split(),
            "--learning_rate_factors down1=0.5,mid=2 gives groups of layers multiples of "
            "--learning_rate; that of text encoders is 'text_encoder*'.",
        ),
        "network_module": "--train lora trains factors.",
        "lora_target_modules": "--lora_targets and --lora_layers choose what gets factors.",
        "network_alpha": "alpha is the rank; the strength is given when it is used.",
        "lora_alpha": "alpha is the rank; the strength is given when it is used.",
        "cache_latents": _CACHE,
        "cache_latents_to_disk": _CACHE,
        "cache_text_encoder_outputs": _CACHE,
        "network_train_unet_only": "leave it out; --train_text_encoder is what trains the others.",
        "validation_epochs": "--validate_every_steps counts updates.",
        "save_every_n_epochs": "--save_n_steps counts updates.",
        "num_workers": "reading ahead is done by itself; leave it out.",
        "dataloader_num_workers": "reading ahead is done by itself; leave it out.",
        "max_data_loader_n_workers": "reading ahead is done by itself; leave it out.",
        "allow_tf32": "leave it out; --mixed_precision bf16 is what is fast.",
        "width": "--resolution and --aspect_ratio choose the size.",
        "height": "--resolution and --aspect_ratio choose the size.",
    },
    values={
        "mixed_precision": lambda name: _MIXED.get(_precision(name), name),
        "device": _device,
        "aspect_ratio": _aspect_ratio,
        "resume": lambda name: "auto" if name == "latest" else name,
        "optimizer": lambda name: _OPTIMIZERS.get(name.lower(), name),
        "loss": lambda name: "mse" if name == "l2" else name,
        "prediction_type": lambda name: {"v": "v_prediction", "eps": "epsilon"}.get(name, name),
    },
)
"""For `train.py`."""
