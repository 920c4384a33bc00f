"""What `train.py` refuses at once: settings that make no sense, flags that have no effect."""

from collections.abc import Collection
from dataclasses import dataclass

from hotshot_jax.cli.flags import Acts, refuse_without_effect
from hotshot_jax.cli.train.data_settings import check_data_settings, check_held_out
from hotshot_jax.cli.train.optimizer_settings import check_optimizer_settings
from hotshot_jax.cli.train.samples import read_samples
from hotshot_jax.cli.train.settings import TrainSettings
from hotshot_jax.conditioning.control.preprocess import check_thresholds
from hotshot_jax.convert.hub_push import check_name
from hotshot_jax.data.buckets import bucket_sizes
from hotshot_jax.errors import UsageError
from hotshot_jax.training.layer_groups import factors_by_name
from hotshot_jax.training.trainees.lora import LoraTrainee
from hotshot_jax.training.trainees.trainee import Trainee


def check_settings(settings: TrainSettings) -> None:
    """Refuses what makes no sense, before anything is loaded.

    Raises:
        UsageError: names the flag.
    """
    check_data_settings(settings)
    if settings.validation_data is not None:
        check_held_out(settings.validation_data)
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
    if settings.price is not None:
        _expect(settings, "price", 0 <= settings.price < float("inf"), "0 or more")
    if settings.max_vae_encode is not None:
        _expect(settings, "max_vae_encode", settings.max_vae_encode >= 1, "at least 1")
    if settings.trained_layers == ("temporal",) and settings.video_length == 1:
        flag = "lora_targets" if settings.trains_factors else "train"
        raise UsageError(
            f"--{flag} temporal needs a --video_length of 2 or more: single frames do not pass "
            f"through the temporal layers. To train on them, give --{flag} spatial."
        )
    if settings.prediction_type is not None and settings.train in ("lora", "lcm", "controlnet"):
        raise UsageError(
            f"--prediction_type changes what the output of the UNet means, and --train "
            f"{settings.train} leaves the UNet as it is. Train it with --train unet first."
        )
    if settings.train_text_encoder:
        _check_text_encoders(settings)
    if settings.push_to_hub is not None:
        check_name(settings.push_to_hub)
    check_optimizer_settings(settings)
    _check_distillation(settings)
    check_thresholds(settings.canny_low_threshold, settings.canny_high_threshold)
    bucket_sizes(settings.resolution, settings.aspect_ratio)
    settings.profiled()
    _check_samples(settings)
    if settings.validation_split is not None:
        _expect(settings, "validation_split", 0 < settings.validation_split < 1, "above 0, below 1")
        if settings.validation_data is not None:
            raise UsageError(
                "--validation_data and --validation_split both say what is held out; give one."
            )
    if settings.save == "best" and not settings.holds_out:
        raise UsageError(
            "--save best needs --validation_data or --validation_split, whose loss says which is "
            "best."
        )
    if settings.resume_data == "restart" and settings.counts_epochs:
        raise UsageError(
            "--resume_data restart needs --max_train_steps: epochs of other data have others."
        )


def _check_text_encoders(settings: TrainSettings) -> None:
    if settings.train == "lcm":
        raise UsageError(
            "--train_text_encoder cannot be used with --train lcm: teacher and student read one "
            "text, and what would be learned is a text that the teacher follows more easily. "
            "Leave it out."
        )
    if settings.train != "lora":
        raise UsageError(
            f"--train_text_encoder adds factors to the text encoders, and --train {settings.train} "
            "trains no factors. Give --train lora."
        )
    if settings.cache_dir is not None:
        raise UsageError(
            "--cache_dir cannot be used with --train_text_encoder: texts are cached, and the text "
            "encoders make others after each step. Leave one out."
        )


def _check_distillation(settings: TrainSettings) -> None:
    for name in ("w_min", "w_max", "timestep_scaling_factor"):
        _expect(settings, name, 0 <= getattr(settings, name) < float("inf"), "0 or more")
    if settings.w_min > settings.w_max:
        raise UsageError(
            f"--w_min {settings.w_min:g} is more than --w_max {settings.w_max:g}: strengths of the "
            "guidance are drawn between the two."
        )
    _expect(settings, "huber_c", 0 < settings.huber_c < float("inf"), "a positive number")
    _expect(settings, "num_ddim_timesteps", 2 <= settings.num_ddim_timesteps <= 1000, "2 to 1000")
    if settings.train == "lcm" and settings.lcm_target == "ema" and settings.ema_decay is None:
        raise UsageError("--lcm_target ema aims at the moving average: give --ema_decay too.")


def _expect(settings: TrainSettings, name: str, holds: bool, expected: str) -> None:
    if not holds:
        raise UsageError(f"--{name} is {getattr(settings, name)}; expected {expected}.")


def _check_samples(settings: TrainSettings) -> None:
    if settings.sample_prompts is None:
        return
    if settings.test_prompts is not None:
        raise UsageError("--sample_prompts and --test_prompts both say what to show; give one.")
    samples = read_samples(settings.sample_prompts)
    shaped = any(each.width or each.height or each.video_length for each in samples)
    if settings.train == "controlnet" and shaped:
        raise UsageError(
            f"--sample_prompts {settings.sample_prompts} names sizes or lengths; with --train "
            "controlnet the clips follow those of the data, and have theirs."
        )


def _prompts(settings: TrainSettings) -> bool:
    if settings.sample_prompts is not None:
        return True
    return settings.test_prompts is None or settings.test_prompts.strip(" |") != ""


def _something_to_validate(settings: TrainSettings) -> bool:
    return settings.holds_out or _prompts(settings)


RULES = (
    Acts(
        ("lora_rank", "lora_targets", "lora_layers"),
        lambda s: s.trains_factors,
        "without --train lora or lcm",
    ),
    Acts(("network_weights",), lambda s: s.train == "lora", "without --train lora"),
    Acts(
        ("controlnet_model_name_or_path",),
        lambda s: s.train == "controlnet",
        "without --train controlnet",
    ),
    Acts(
        (
            "w_min",
            "w_max",
            "num_ddim_timesteps",
            "huber_c",
            "timestep_scaling_factor",
            "lcm_target",
        ),
        lambda s: s.train == "lcm",
        "without --train lcm",
    ),
    Acts(
        ("noise_offset", "snr_gamma", "snr_weights"),
        lambda s: s.train != "lcm",
        "with --train lcm, where a model learns from another one",
    ),
    Acts(("huber_c",), lambda s: s.loss == "huber", "without --loss huber"),
    Acts(
        ("control_type", "canny_low_threshold", "canny_high_threshold"),
        lambda s: s.train == "controlnet",
        "without --train controlnet",
    ),
    Acts(
        ("lr_warmup_steps",),
        lambda s: s.lr_scheduler != "constant" or s.lr_warmup_steps == 0,
        "with --lr_scheduler constant; constant_with_warmup has one",
    ),
    Acts(
        ("keep_tags",),
        lambda s: s.captions.by_chance,
        "without --shuffle_tags or --tag_dropout, which leave those tags alone",
    ),
    Acts(
        ("adam_beta1", "adam_beta2", "adam_epsilon"),
        lambda s: s.optimizer != "adafactor",
        "with --optimizer adafactor, which has none",
    ),
    Acts(
        ("adam_epsilon",),
        lambda s: s.optimizer != "lion",
        "with --optimizer lion, which takes the sign of its moment",
    ),
    Acts(("num_train_epochs",), lambda s: s.counts_epochs, "beside --max_train_steps"),
    Acts(("snr_weights",), lambda s: s.snr_gamma is not None, "without --snr_gamma"),
    Acts(
        ("gradient_checkpointing", "remat"),
        lambda s: not s.gradient_checkpointing or s.remat in (None, "blocks"),
        "where --gradient_checkpointing, which is --remat blocks, meets another --remat",
    ),
    Acts(
        ("max_vae_encode",),
        lambda s: s.cache_dir is None,
        "with --cache_dir, which is filled clip by clip",
    ),
    Acts(
        ("validation_batches",),
        lambda s: s.holds_out,
        "without --validation_data or --validation_split",
    ),
    Acts(("validation_steps",), _prompts, "without --test_prompts"),
    Acts(
        ("validate_every_steps",),
        lambda s: s.validate_every_steps == 0 or _something_to_validate(s),
        "with neither --test_prompts nor --validation_data",
    ),
    Acts(
        ("run_validation_at_start",),
        lambda s: not s.run_validation_at_start or _something_to_validate(s),
        "with neither --test_prompts nor --validation_data",
    ),
    Acts(("hub_private",), lambda s: s.push_to_hub is not None, "without --push_to_hub"),
    Acts(
        ("project_name", "run_name"),
        lambda s: s.report_to in ("auto", "wandb", "all"),
        "unless --report_to takes wandb",
    ),
    Acts(
        ("logging_dir",),
        lambda s: s.report_to in ("auto", "tensorboard", "all"),
        "unless --report_to takes tensorboard",
    ),
    Acts(
        ("disable_optimizer_restore",),
        lambda s: not s.disable_optimizer_restore or s.resume != "none",
        "with --resume none",
    ),
    Acts(
        ("resume_data",),
        lambda s: s.resume_data == "continue" or s.resume != "none",
        "with --resume none",
    ),
)
"""By the settings alone."""


@dataclass(frozen=True)
class Planned:
    """A run whose length is known.

    Attributes:
        settings: of the run.
        steps: updates of the whole run.
        platform: of the devices, such as "cpu".
    """

    settings: TrainSettings
    steps: int
    platform: str

    @property
    def saves(self) -> bool:
        """Whether any checkpoint is due, but for the last."""
        first = self.settings.save_starting_step or self.settings.save_n_steps
        return self.settings.save_n_steps > 0 and first <= self.steps

    @property
    def validates(self) -> bool:
        """Whether there is any validation."""
        every = self.settings.validate_every_steps
        return self.settings.run_validation_at_start or 0 < every <= self.steps


RULES_OF_PLANNED = (
    Acts(
        ("save_n_steps", "save_starting_step"),
        lambda run: run.settings.save_n_steps == 0 or run.saves,
        "in a run so short: its steps end before --save_starting_step, and only the last is saved",
    ),
    Acts(
        ("profile_steps",),
        lambda run: run.settings.profiled() is None or run.settings.profiled()[1] <= run.steps,
        "beyond the last step of the run",
    ),
    Acts(
        ("validate_every_steps",),
        lambda run: run.settings.validate_every_steps <= run.steps,
        "beyond the last step of the run",
    ),
    Acts(
        ("test_prompts",),
        lambda run: run.validates or not run.settings.test_prompts,
        "in a run without validation: it is shorter than --validate_every_steps, or that is 0",
    ),
    Acts(
        (
            "validation_data",
            "validation_split",
            "validation_steps",
            "validation_batches",
            "sample_prompts",
            "save",
        ),
        lambda run: run.validates,
        "in a run without validation: it is shorter than --validate_every_steps, or that is 0",
    ),
    Acts(
        ("compile_effort",),
        lambda run: run.platform == "tpu",
        "on this machine: it is for TPUs",
    ),
)
"""By the length of the run too."""


def check_effects(given: Collection[str], settings: TrainSettings) -> None:
    """Refuses flags of the command line that cannot act, as far as the settings say.

    Raises:
        UsageError: names the flag.
    """
    refuse_without_effect(given, settings, RULES)


def check_effects_of(given: Collection[str], run: Planned) -> None:
    """The same where the length of the run has to be known.

    Raises:
        UsageError: names the flag.
    """
    refuse_without_effect(given, run, RULES_OF_PLANNED)


def checked_rank(given: Collection[str], trainee: Trainee) -> Trainee:
    """What trains, unless its rank is one that no matrix has use for.

    Raises:
        UsageError: it is larger than a side of every matrix that gets factors.
    """
    if "lora_rank" in given and isinstance(trainee, LoraTrainee):
        largest = trainee.largest_rank
        if trainee.rank > largest:
            raise UsageError(
                f"--lora_rank {trainee.rank} has no effect beyond {largest}: no matrix that gets "
                "factors has a higher rank."
            )
    return trainee


def checked_factors(settings: TrainSettings, trainee: Trainee) -> Trainee:
    """What trains, unless there are learning rates of groups that have nothing in it.

    Raises:
        UsageError: see `factors_by_name`.
    """
    factors_by_name(settings.learning_rate_factors or {}, trainee.trained)
    return trainee
