"""Flax NNX models, with the parameter names of their PyTorch twins."""

from hotshot_jax.models.clip import CLIPTextConfig, CLIPTextModel, CLIPTextOutput
from hotshot_jax.models.controlnet import ControlNetModel, EmbeddedCondition
from hotshot_jax.models.controlnet_config import ControlNetConfig, ControlNetUnionConfig
from hotshot_jax.models.controlnet_union import ControlNetUnionModel, controlnet_class
from hotshot_jax.models.encoder import ProjectedText
from hotshot_jax.models.unet import Residuals, UNet3DConditionModel
from hotshot_jax.models.unet_config import UNet3DConfig
from hotshot_jax.models.vae import AutoencoderKL, AutoencoderKLConfig, DiagonalGaussian

__all__ = [
    "AutoencoderKL",
    "AutoencoderKLConfig",
    "CLIPTextConfig",
    "CLIPTextModel",
    "CLIPTextOutput",
    "ControlNetConfig",
    "ControlNetModel",
    "ControlNetUnionConfig",
    "ControlNetUnionModel",
    "DiagonalGaussian",
    "EmbeddedCondition",
    "ProjectedText",
    "Residuals",
    "UNet3DConditionModel",
    "UNet3DConfig",
    "controlnet_class",
]
