"""What a run of `train.py` is asked to do: flags over a configuration file over defaults."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from hotshot_jax.choices import (
    CONSISTENCY_TARGETS,
    HIGH_THRESHOLD,
    LORA_LAYERS,
    LORA_TARGETS,
    LOSSES,
    LOW_THRESHOLD,
    REMATERIALISATIONS,
    REPORTS,
    SELECTIONS,
    SNR_WEIGHTS,
    TRAINED_PREDICTION_TYPES,
)
from hotshot_jax.cli.flags import (
    DEVICES,
    checked_settings,
    flag,
    host_flag,
    parse_flags,
    written_settings,
)
from hotshot_jax.cli.other_names import TRAIN
from hotshot_jax.cli.train.optimizer_settings import OptimizerSettings
from hotshot_jax.compile_effort import DEFAULT_EFFORT, EFFORTS
from hotshot_jax.errors import UsageError

_MODEL, _TRAINING = "model", "training"
_OUTPUT, _VALIDATION, _MACHINE = "output", "validation", "machine"
_DISTILLATION = "distillation, with --train lcm"

WITHOUT_A_SAY = (_OUTPUT, _VALIDATION, _MACHINE)
"""Groups of settings that change no training step."""

TRAINEES = (*SELECTIONS, "lora", "controlnet", "lcm")
"""What `--train` takes."""

_DEFAULTS_WITH: dict[tuple[str, str], dict[str, Any]] = {
    ("train", "lcm"): {"lora_targets": "both", "lora_layers": "all", "validation_steps": 4},
    ("optimizer", "lion"): {"adam_beta2": 0.99},
    ("optimizer", "prodigy"): {"learning_rate": 1.0},
}
"""Other defaults, by a setting and its value."""

NO_LIMIT = 9_999_999
"""Of `--max_train_steps`: the number of epochs decides."""


@dataclasses.dataclass(frozen=True)
class TrainSettings(OptimizerSettings):
    """The settings of one run; each field is a flag of the same name."""

    pretrained_model_name_or_path: str = flag(
        "hotshotco/Hotshot-XL",
        "checkpoint folder or Hub id to start from, in the diffusers layout or converted",
        str,
        _MODEL,
    )
    unet_resume_path: str | None = flag(
        None, "folder that holds another unet/ to start from", str, _MODEL, local=True
    )
    train: str = flag(
        "temporal",
        "what trains: temporal layers, all others, both (unet), factors beside them, a "
        "ControlNet, or factors with which few steps are enough (lcm)",
        str,
        _MODEL,
        choices=TRAINEES,
    )
    lora_rank: int = flag(16, "of the factors, with --train lora or lcm", int, _MODEL)
    lora_targets: str = flag(
        "spatial",
        "layers that get factors, with --train lora; with lcm, whose default is both",
        str,
        _MODEL,
        choices=LORA_TARGETS,
    )
    lora_layers: str = flag(
        "attention",
        "their weights that do: those of attention, or linear layers and convolutions too; "
        "all with --train lcm",
        str,
        _MODEL,
        choices=LORA_LAYERS,
    )
    train_text_encoder: bool = flag(
        False, "factors for both text encoders too, with --train lora", bool, _MODEL
    )
    control_type: str = flag(
        "canny",
        "control frames that are made of the clips, with --train controlnet",
        str,
        _MODEL,
        choices=("canny",),
    )
    canny_low_threshold: float = flag(
        LOW_THRESHOLD, "gradient at which an edge goes on", float, _MODEL
    )
    canny_high_threshold: float = flag(
        HIGH_THRESHOLD, "gradient at which an edge begins", float, _MODEL
    )
    vae_b16: bool = flag(False, "run the VAE in bfloat16", bool, _MODEL)
    max_vae_encode: int | None = flag(None, "frames that the VAE encodes at once", int, _MODEL)
    mixed_precision: str = flag(
        "no",
        "numbers to compute in; fp16 is taken as bf16, which needs no loss scaling",
        str,
        _MODEL,
        choices=("no", "fp16", "bf16"),
    )

    train_batch_size: int = flag(8, "samples a batch, per device", int, _TRAINING)
    num_train_epochs: int = flag(1, "passes over the data", int, _TRAINING)
    max_train_steps: int = flag(
        NO_LIMIT, "updates in all; if given, overrides num_train_epochs", int, _TRAINING
    )
    gradient_accumulation_steps: int = flag(1, "batches an update", int, _TRAINING)
    gradient_checkpointing: bool = flag(
        False, "save memory by computing layers twice: --remat blocks", bool, _TRAINING
    )
    remat: str | None = flag(
        None,
        "what is computed twice: nothing, each layer, what is cheap, or layers and their blocks",
        str,
        _TRAINING,
        choices=REMATERIALISATIONS,
    )
    noise_offset: float = flag(0.05, "scale of the noise offset", float, _TRAINING)
    snr_gamma: float | None = flag(
        None,
        "gamma of min-SNR loss weights; 5.0 if given without a number",
        float,
        _TRAINING,
        bare=5.0,
    )
    snr_weights: str = flag(
        "paper",
        "min-SNR weights of v-prediction: the paper's, or the reference's, which are those of "
        "epsilon",
        str,
        _TRAINING,
        choices=SNR_WEIGHTS,
    )
    prediction_type: str | None = flag(
        None,
        "what the model learns to find (default: as the checkpoint has it)",
        str,
        _TRAINING,
        choices=TRAINED_PREDICTION_TYPES,
    )
    loss: str = flag("mse", "loss to minimise", str, _TRAINING, choices=LOSSES)
    ema_decay: float | None = flag(
        None, "keep a moving average of what trains, such as 0.999, and export it", float, _TRAINING
    )
    w_min: float = flag(3.0, "least guidance_scale of the teacher, less 1", float, _DISTILLATION)
    w_max: float = flag(15.0, "greatest, likewise", float, _DISTILLATION)
    num_ddim_timesteps: int = flag(50, "steps of the teacher", int, _DISTILLATION)
    huber_c: float = flag(
        1e-3, "c of --loss huber, which is sqrt(error^2 + c^2) - c here", float, _DISTILLATION
    )
    timestep_scaling_factor: float = flag(
        10.0, "of the timestep in the boundary condition", float, _DISTILLATION
    )
    lcm_target: str = flag(
        "student",
        "whose clean clips are aimed at: the student's own, or its moving average's (ema)",
        str,
        _DISTILLATION,
        choices=CONSISTENCY_TARGETS,
    )
    latent_nan_checking: bool = flag(
        False, "put zeros in place of latents that are not numbers", bool, _TRAINING
    )
    seed: int = flag(111, "fixes everything that is random", int, _TRAINING)

    output_dir: str = flag(
        "output", "folder for everything that a run leaves behind", str, _OUTPUT, local=True
    )
    resume: str = flag(
        "auto",
        "auto goes on from the last checkpoint in output_dir if there is one; or the folder of a "
        "run or checkpoint; or none",
        str,
        _OUTPUT,
        local=True,
    )
    resume_data: str = flag(
        "continue",
        "restart goes on with other data or another batch size than the checkpoint's: weights and "
        "optimiser as they are, the data from their beginning",
        str,
        _OUTPUT,
        choices=("continue", "restart"),
    )
    disable_optimizer_restore: bool = flag(
        False, "resume the parameters without the optimiser's moments", bool, _OUTPUT
    )
    save_n_steps: int = flag(100, "updates between checkpoints; 0 for none", int, _OUTPUT)
    save_starting_step: int = flag(100, "first update that is saved", int, _OUTPUT)
    save: str = flag(
        "last",
        "best also exports the weights with the lowest loss on held-out data, to best/",
        str,
        _OUTPUT,
        choices=("last", "best"),
    )
    keep_checkpoints: int = flag(2, "how many of the last to keep", int, _OUTPUT)
    push_to_hub: str | None = flag(
        None, "ORG/NAME on the Hub for export and card", str, _OUTPUT, about_this_run=True
    )
    hub_private: bool = flag(False, "make it private", bool, _OUTPUT, about_this_run=True)
    report_to: str = flag(
        "auto",
        "where numbers go besides metrics.jsonl; auto: to what is installed of the others",
        str,
        _OUTPUT,
        choices=REPORTS,
    )
    project_name: str = flag("fine-tune-hotshot-xl", "project at wandb", str, _OUTPUT)
    run_name: str = flag("run-01", "name of the run", str, _OUTPUT)
    logging_dir: str = flag("logs", "TensorBoard's folder in output_dir", str, _OUTPUT, local=True)
    price: float | None = flag(
        None, "price of a device for an hour, for the summary at the end", float, _OUTPUT
    )
    profile_steps: str | None = flag(
        None, "first and last update of a profiler trace, such as 10:12", str, _OUTPUT
    )

    run_validation_at_start: bool = flag(False, "make clips before training", bool, _VALIDATION)
    validate_every_steps: int = flag(
        100, "updates between validations; 0 for none", int, _VALIDATION
    )
    test_prompts: str | None = flag(
        None, "prompts of the clips, split by |; '' for none (default: three)", str, _VALIDATION
    )
    sample_prompts: str | None = flag(
        None,
        "file of prompts in place of test_prompts, each with seed, size, frames, steps, guidance "
        "and negative prompt of its own if wanted",
        str,
        _VALIDATION,
        local=True,
    )
    validation_steps: int = flag(
        30, "denoising steps of a clip; 4 with --train lcm", int, _VALIDATION
    )
    validation_data: str | None = flag(
        None,
        "data like data_dir on which the held-out loss is measured",
        str,
        _VALIDATION,
        local=True,
    )
    validation_split: float | None = flag(
        None,
        "share of data_dir that is held out in its place, such as 0.05",
        float,
        _VALIDATION,
    )
    validation_batches: int = flag(16, "batches of it, at most", int, _VALIDATION)

    device: str = flag("auto", "devices to run on", str, _MACHINE, choices=DEVICES)
    coordinator_address: str | None = host_flag("coordinator_address", _MACHINE)
    process_count: int | None = host_flag("process_count", _MACHINE)
    process_index: int | None = host_flag("process_index", _MACHINE)
    mesh: str = flag("auto", "devices along each axis, such as data=2,fsdp=4", str, _MACHINE)
    compilation_cache: str | None = flag(
        None,
        "folder for compiled programs (default: in the user's cache folder); 'none' keeps none",
        str,
        _MACHINE,
        local=True,
    )
    compile_effort: str = flag(
        DEFAULT_EFFORT,
        "on TPUs, how long the compiler may look for a faster training step; O2 is its own "
        "default, O1 compiles several times as fast",
        str,
        _MACHINE,
        choices=EFFORTS,
    )

    @property
    def holds_out(self) -> bool:
        """Whether there is data to measure the loss on that is not trained on."""
        return self.validation_data is not None or self.validation_split is not None

    @property
    def counts_epochs(self) -> bool:
        """Whether the number of epochs decides when training ends, not that of updates."""
        return self.max_train_steps == NO_LIMIT

    @property
    def trains_factors(self) -> bool:
        """Whether low-rank factors train."""
        return self.train in ("lora", "lcm")

    @property
    def trained_layers(self) -> tuple[str, ...]:
        """Which layers of the UNet train: "spatial", "temporal", both or none."""
        chosen = self.lora_targets if self.trains_factors else self.train
        both = ("spatial", "temporal")
        return both if chosen in ("both", "unet") else tuple(x for x in both if x == chosen)

    @property
    def rematerialisation(self) -> str:
        """What is computed twice: `--remat`, or what the switch that others know it by means."""
        return self.remat or ("blocks" if self.gradient_checkpointing else "none")

    def profiled(self) -> tuple[int, int] | None:
        """First and last step of the profiler trace.

        Raises:
            UsageError: they are not two numbers.
        """
        if self.profile_steps is None:
            return None
        first, _, last = self.profile_steps.partition(":")
        valid = first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last)
        if not valid:
            raise UsageError(
                f"--profile_steps is {self.profile_steps}; expected first and last, such as 10:12."
            )
        return int(first), int(last)


def parse_train_settings(arguments: Sequence[str] | None, program: str) -> TrainSettings:
    """The settings alone of `parse_train_arguments`."""
    return parse_train_arguments(arguments, program)[0]


def parse_train_arguments(
    arguments: Sequence[str] | None, program: str
) -> tuple[TrainSettings, frozenset[str]]:
    """Reads flags, and the configuration file that they may name.

    Returns:
        The settings, and the names of those that stand on the command line itself.

    Raises:
        UsageError: a flag or a key of the file is unknown, or a value has the wrong form.
    """
    given = parse_flags(
        TrainSettings,
        arguments,
        program,
        "Fine-tune Hotshot-XL.",
        "settings to start from: a YAML or JSON file, such as the config.yaml of an earlier run",
        TRAIN,
    )
    config = given.pop("config", None)
    values: dict[str, Any] = {}
    if config is not None:
        if not os.path.isfile(config):
            raise UsageError(f"--config {config}: there is no such file.")
        values = checked_settings(
            TrainSettings, f"--config {config}", written_settings(config), TRAIN
        )
    values |= given
    for (name, value), defaults in _DEFAULTS_WITH.items():
        if values.get(name) == value:
            values = defaults | values
    return TrainSettings(**values), frozenset(given)
