"""What can be chosen by name, without what it names.

Whoever lists the choices, such as the help of a command, imports this and nothing heavy. The
modules that do what is chosen take the names from here.
"""

from typing import Final

# What is found out instead of being chosen.
AUTO: Final = "auto"

# Where random numbers come from: `hotshot_jax.sampling.noise`.
NOISES: Final = ("torch", "jax")

# What the first noise of a long clip is: `hotshot_jax.sampling.noise`.
INITIAL_NOISES: Final = ("independent", "freenoise")

# How a long clip is divided, and how its parts are joined: `hotshot_jax.sampling.windows`.
CONTEXT_SCHEDULES: Final = ("standard_static", "standard_uniform", "looped_uniform", "batched")
CONTEXT_FUSES: Final = ("pyramid", "flat", "relative", "overlap_linear", "first")

# Of timesteps: `hotshot_jax.schedulers.numbers`.
SPACINGS: Final = ("linspace", "leading", "trailing")

# What a UNet predicts: `hotshot_jax.schedulers.numbers`.
PREDICTION_TYPES: Final = ("epsilon", "v_prediction", "sample")

# Those that can be trained: `hotshot_jax.training.loss`.
TRAINED_PREDICTION_TYPES: Final = ("epsilon", "v_prediction")

# Dtypes of a run: `hotshot_jax.runtime.precision`.
PRECISIONS: Final = ("f16", "f32", "bf16")

# Numbers and products of the VAE: likewise.
VAE_PRECISIONS: Final = ("f32", "bf16x3", "bf16")

# What control frames show: `hotshot_jax.conditioning.control.preprocess`.
CONTROL_TYPES: Final = ("depth", "canny")

# Whether they are made of a clip or are one.
PREPROCESSING: Final = (AUTO, "none")

# What SDXL's canny ControlNets were trained with.
LOW_THRESHOLD: Final = 100.0
HIGH_THRESHOLD: Final = 200.0

# The estimator whose depth SDXL's depth ControlNets were trained on.
DEPTH_CHECKPOINT: Final = "Intel/dpt-hybrid-midas"

# Of temporal layers' names: `hotshot_jax.convert.formats.temporal_layers`.
TEMPORAL_SPELLINGS: Final = ("hotshot", "comfyui", "diffusers")

# Layers that train: `hotshot_jax.training.trainees.trainee`.
SELECTIONS: Final = ("temporal", "spatial", "unet")

# Layers that get factors: `hotshot_jax.training.trainees.lora`.
LORA_TARGETS: Final = ("spatial", "temporal", "both")

# Which of their weights, likewise.
LORA_LAYERS: Final = ("attention", "all")

# `hotshot_jax.training.loss`.
LOSSES: Final = ("mse", "huber")

# Whose clean clips distillation aims at: `hotshot_jax.training.consistency`.
CONSISTENCY_TARGETS: Final = ("student", "ema")

# Forms of min-SNR weights: `hotshot_jax.training.loss`.
SNR_WEIGHTS: Final = ("paper", "reference")

# `hotshot_jax.training.optimizer`.
OPTIMIZERS: Final = (
    "adamw",
    "adamw_8bit",
    "adafactor",
    "lion",
    "prodigy",
    "muon",
    "schedule_free",
)

# Courses of the learning rate, likewise.
LEARNING_RATE_SCHEDULES: Final = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
)

# What is computed twice: `hotshot_jax.training.rematerialisation`.
REMATERIALISATIONS: Final = ("none", "blocks", "dots", "full")

# Where a training's numbers go: `hotshot_jax.training.running.metrics`.
REPORTS: Final = (AUTO, "wandb", "tensorboard", "all", "none")
