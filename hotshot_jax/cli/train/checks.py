"""Settings of `train.py` that make no sense are refused before anything is loaded."""

from hotshot_jax.cli.train.settings import TrainSettings
from hotshot_jax.conditioning.control.canny import check_thresholds
from hotshot_jax.data.buckets import bucket_sizes
from hotshot_jax.errors import UsageError


def check_settings(settings: TrainSettings) -> None:
    """Refuses what makes no sense, before anything is loaded.

    Raises:
        UsageError: names the flag.
    """
    if settings.data_dir is None:
        raise UsageError("--data_dir is missing: the folder of samples to train on.")
    for name in (
        "train_batch_size",
        "num_train_epochs",
        "max_train_steps",
        "gradient_accumulation_steps",
        "video_length",
        "keep_checkpoints",
        "validation_steps",
        "validation_batches",
        "lora_rank",
    ):
        _expect(settings, name, getattr(settings, name) >= 1, "at least 1")
    for name in (
        "lr_warmup_steps",
        "save_n_steps",
        "save_starting_step",
        "validate_every_steps",
    ):
        _expect(settings, name, getattr(settings, name) >= 0, "0 or more")
    _expect(settings, "seed", 0 <= settings.seed < 2**32, "0 to 2**32 - 1")
    _expect(
        settings,
        "learning_rate",
        0 < settings.learning_rate < float("inf"),
        "a positive number; at 0 nothing would be learned",
    )
    _expect(settings, "noise_offset", 0 <= settings.noise_offset < float("inf"), "0 or more")
    _expect(settings, "text_dropout", 0 <= settings.text_dropout <= 1, "0 to 1")
    if settings.snr_gamma is not None:
        _expect(settings, "snr_gamma", 0 < settings.snr_gamma < float("inf"), "a positive number")
    if settings.ema_decay is not None:
        _expect(settings, "ema_decay", 0 <= settings.ema_decay < 1, "0 or more and less than 1")
    if settings.max_vae_encode is not None:
        _expect(settings, "max_vae_encode", settings.max_vae_encode >= 1, "at least 1")
    if settings.trained_layers == ("temporal",) and settings.video_length == 1:
        flag = "lora_targets" if settings.train == "lora" else "train"
        raise UsageError(
            f"--{flag} temporal needs a --video_length of 2 or more: single frames do not pass "
            f"through the temporal layers. To train on them, give --{flag} spatial."
        )
    if settings.prediction_type is not None and settings.train in ("lora", "controlnet"):
        raise UsageError(
            f"--prediction_type changes what the output of the UNet means, and --train "
            f"{settings.train} leaves the UNet as it is. Train it with --train unet first."
        )
    check_thresholds(settings.canny_low_threshold, settings.canny_high_threshold)
    bucket_sizes(settings.resolution, settings.aspect_ratio)
    settings.profiled()


def _expect(settings: TrainSettings, name: str, holds: bool, expected: str) -> None:
    if not holds:
        raise UsageError(f"--{name} is {getattr(settings, name)}; expected {expected}.")
