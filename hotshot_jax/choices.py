"""What can be chosen by name, without what it names.

Whoever lists the choices, such as the help of a command, imports this and nothing heavy. The
modules that do what is chosen take the names from here.
"""

from typing import Final

AUTO: Final = "auto"
"""What is found out instead of being chosen."""

NOISES: Final = ("torch", "jax")
"""Where random numbers come from: `hotshot_jax.sampling.noise`."""

SPACINGS: Final = ("linspace", "leading", "trailing")
"""Of timesteps: `hotshot_jax.schedulers.timestep_spacing`."""

PREDICTION_TYPES: Final = ("epsilon", "v_prediction", "sample")
"""What a UNet predicts: `hotshot_jax.schedulers.prediction`."""

TRAINED_PREDICTION_TYPES: Final = ("epsilon", "v_prediction")
"""Those that can be trained: `hotshot_jax.training.loss`."""

PRECISIONS: Final = ("f16", "f32", "bf16")
"""Dtypes of a run: `hotshot_jax.runtime.precision`."""

CONTROL_TYPES: Final = ("depth", "canny")
"""What control frames show: `hotshot_jax.conditioning.control.preprocess`."""

PREPROCESSING: Final = (AUTO, "none")
"""Whether they are made of a clip or are one."""

# What SDXL's canny ControlNets were trained with.
LOW_THRESHOLD: Final = 100.0
HIGH_THRESHOLD: Final = 200.0

DEPTH_CHECKPOINT: Final = "Intel/dpt-hybrid-midas"
"""The estimator whose depth SDXL's depth ControlNets were trained on."""

TEMPORAL_SPELLINGS: Final = ("hotshot", "comfyui", "diffusers")
"""Of temporal layers' names: `hotshot_jax.convert.formats.temporal_layers`."""

SELECTIONS: Final = ("temporal", "spatial", "unet")
"""Layers that train: `hotshot_jax.training.trainees.selection`."""

LORA_TARGETS: Final = ("spatial", "temporal", "both")
"""Layers whose attention gets factors: `hotshot_jax.training.trainees.lora`."""

LOSSES: Final = ("mse", "huber")
"""`hotshot_jax.training.loss`."""

SNR_WEIGHTS: Final = ("paper", "reference")
"""Forms of min-SNR weights, likewise."""

LEARNING_RATE_SCHEDULES: Final = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
)
"""Courses of the learning rate: `hotshot_jax.training.learning_rate`."""

REMATERIALISATIONS: Final = ("none", "blocks", "dots", "full")
"""What is computed twice: `hotshot_jax.training.rematerialisation`."""

REPORTS: Final = (AUTO, "wandb", "tensorboard", "all", "none")
"""Where a training's numbers go: `hotshot_jax.training.running.metrics`."""

AUTOENCODER_PARTS: Final = ("all", "decoder")
"""What of a VAE is trained. A decoder alone can learn to show more, while the latents that a UNet
was trained on stay what they are: `hotshot_jax.from_scratch.autoencoder`."""
