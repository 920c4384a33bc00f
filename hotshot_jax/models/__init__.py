"""Flax NNX models, with the parameter names of their PyTorch twins."""

from hotshot_jax.models.clip import CLIPTextConfig, CLIPTextModel, CLIPTextOutput
from hotshot_jax.models.controlnet.config import ControlNetConfig, ControlNetUnionConfig
from hotshot_jax.models.controlnet.controlnet import ControlNetModel, EmbeddedCondition
from hotshot_jax.models.controlnet.union import ControlNetUnionModel, controlnet_class
from hotshot_jax.models.unet.config import UNet3DConfig
from hotshot_jax.models.unet.encoder import ProjectedText
from hotshot_jax.models.unet.unet import Residuals, UNet3DConditionModel
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
