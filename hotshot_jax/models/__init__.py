"""Flax NNX models: UNet, VAE and text encoders, with the parameter names of their PyTorch twins."""

from hotshot_jax.models.clip import CLIPTextConfig, CLIPTextModel, CLIPTextOutput
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
    "DiagonalGaussian",
    "ProjectedText",
    "Residuals",
    "UNet3DConditionModel",
    "UNet3DConfig",
]
