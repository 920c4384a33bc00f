"""SDXL's autoencoder between pixels and latents, eight times smaller each way."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from hotshot_jax.errors import HotshotError
from hotshot_jax.models.config import per_block, read_config
from hotshot_jax.models.layers.attention import Attention
from hotshot_jax.models.layers.layers import Layers
from hotshot_jax.models.layers.resnet import Downsample2D, ResnetBlock2D, Upsample2D

_EPSILON = 1e-6

_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "mid_block_add_attention": (True,),
    "use_quant_conv": (True,),
    "use_post_quant_conv": (True,),
}
_IRRELEVANT = ("sample_size",)


@dataclasses.dataclass(frozen=True)
class AutoencoderKLConfig:
    """Shape of the VAE, in the words of diffusers' `config.json`.

    Attributes:
        block_out_channels: width of each level, from the pixels' side.
        down_block_types: one for each level.
        up_block_types: one for each level.
        layers_per_block: resnets of a level of the encoder; the decoder has one more.
        latent_channels: channels of the latents.
        norm_num_groups: groups of every group norm.
        in_channels: image channels.
        out_channels: image channels.
        scaling_factor: what latents are multiplied by before the UNet sees them.
        force_upcast: whether it needs float32; the published VAE's activations overflow float16,
            those of VAEs that were trained on for half precision (`sdxl-vae-fp16-fix`) do not.
        shift_factor: what is subtracted from them before that; SDXL has none.
        latents_mean: mean of each latent channel, for models whose latents are normalised.
        latents_std: standard deviation of each latent channel, likewise.
    """

    block_out_channels: tuple[int, ...]
    down_block_types: tuple[str, ...]
    up_block_types: tuple[str, ...]
    layers_per_block: int = 2
    latent_channels: int = 4
    norm_num_groups: int = 32
    in_channels: int = 3
    out_channels: int = 3
    scaling_factor: float = 0.18215
    force_upcast: bool = True
    shift_factor: None = None
    latents_mean: None = None
    latents_std: None = None

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], where: str = "vae/config.json"
    ) -> "AutoencoderKLConfig":
        """Reads a `config.json`.

        Raises:
            HotshotError: names the key whose value is missing, inconsistent or not supported.
        """
        config = read_config(cls, values, where=where, supported=_SUPPORTED, irrelevant=_IRRELEVANT)
        blocks = len(config.block_out_channels)
        per_block(config.block_out_channels, blocks, key="block_out_channels", where=where)
        for key, types, known in (
            ("down_block_types", config.down_block_types, "DownEncoderBlock2D"),
            ("up_block_types", config.up_block_types, "UpDecoderBlock2D"),
        ):
            if tuple(types) != (known,) * blocks:
                raise HotshotError(
                    f"{where}: {key} = {list(types)}; expected {blocks} times {known!r}."
                )
        for key in ("shift_factor", "latents_mean", "latents_std"):
            if getattr(config, key) is not None:
                raise HotshotError(f"{where}: {key} is set, which SDXL's VAE does not have.")
        for channels in config.block_out_channels:
            if channels % config.norm_num_groups:
                raise HotshotError(
                    f"{where}: norm_num_groups = {config.norm_num_groups} does not divide "
                    f"{channels} channels."
                )
        return config

    @property
    def scale_factor(self) -> int:
        """Pixels to a latent, along height and along width."""
        return 2 ** (len(self.block_out_channels) - 1)


def _resnets(
    count: int, in_channels: int, channels: int, config: AutoencoderKLConfig, layers: Layers
) -> nnx.List:
    return nnx.List(
        [
            ResnetBlock2D(
                in_channels if index == 0 else channels,
                channels,
                layers,
                groups=config.norm_num_groups,
                epsilon=_EPSILON,
            )
            for index in range(count)
        ]
    )


class VAEAttention(Attention):
    """Single-head attention over the pixels of a frame; norm and residual inside."""

    def __init__(self, channels: int, groups: int, layers: Layers):
        super().__init__(channels, 1, layers, use_bias=True)
        self.group_norm = layers.group_norm(channels, groups, epsilon=_EPSILON)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[..., height, width, channels]` to the same shape."""
        pixels = self.group_norm(x).reshape(*x.shape[:-3], -1, x.shape[-1])
        return x + super().__call__(pixels).reshape(x.shape)


class _MidBlock(nnx.Module):
    def __init__(self, channels: int, config: AutoencoderKLConfig, layers: Layers):
        self.attentions = nnx.List([VAEAttention(channels, config.norm_num_groups, layers)])
        self.resnets = _resnets(2, channels, channels, config, layers)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class _DownBlock(nnx.Module):
    def __init__(
        self,
        in_channels: int,
        channels: int,
        config: AutoencoderKLConfig,
        layers: Layers,
        *,
        downsample: bool,
    ):
        self.resnets = _resnets(config.layers_per_block, in_channels, channels, config, layers)
        # The reference pads right and bottom only.
        self.downsamplers = nnx.List([Downsample2D(channels, layers, padding=(0, 1))] * downsample)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in [*self.resnets, *self.downsamplers]:
            x = layer(x)
        return x


class _UpBlock(nnx.Module):
    def __init__(
        self,
        in_channels: int,
        channels: int,
        config: AutoencoderKLConfig,
        layers: Layers,
        *,
        upsample: bool,
    ):
        self.resnets = _resnets(config.layers_per_block + 1, in_channels, channels, config, layers)
        self.upsamplers = nnx.List([Upsample2D(channels, layers)] * upsample)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in [*self.resnets, *self.upsamplers]:
            x = layer(x)
        return x


class Encoder(nnx.Module):
    """Pixels to the moments of the latents."""

    def __init__(self, config: AutoencoderKLConfig, layers: Layers):
        widths = config.block_out_channels
        self.conv_in = layers.conv(config.in_channels, widths[0], 3)
        self.down_blocks = nnx.List(
            [
                _DownBlock(
                    widths[max(index - 1, 0)],
                    channels,
                    config,
                    layers,
                    downsample=index < len(widths) - 1,
                )
                for index, channels in enumerate(widths)
            ]
        )
        self.mid_block = _MidBlock(widths[-1], config, layers)
        self.conv_norm_out = layers.group_norm(widths[-1], config.norm_num_groups, epsilon=_EPSILON)
        self.conv_out = layers.conv(widths[-1], 2 * config.latent_channels, 3)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[..., height, width, 3]` to `[..., height / 8, width / 8, 2 latent_channels]`."""
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nnx.Module):
    """Latents to pixels."""

    def __init__(self, config: AutoencoderKLConfig, layers: Layers):
        widths = config.block_out_channels[::-1]
        self.conv_in = layers.conv(config.latent_channels, widths[0], 3)
        self.mid_block = _MidBlock(widths[0], config, layers)
        self.up_blocks = nnx.List(
            [
                _UpBlock(
                    widths[max(index - 1, 0)],
                    channels,
                    config,
                    layers,
                    upsample=index < len(widths) - 1,
                )
                for index, channels in enumerate(widths)
            ]
        )
        self.conv_norm_out = layers.group_norm(widths[-1], config.norm_num_groups, epsilon=_EPSILON)
        self.conv_out = layers.conv(widths[-1], config.out_channels, 3)

    def __call__(self, z: jax.Array) -> jax.Array:
        """Maps `[..., height, width, latent_channels]` to `[..., 8 height, 8 width, 3]`."""
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DiagonalGaussian:
    """The encoder's distribution over latents.

    Attributes:
        mean: `[..., height, width, latent_channels]`.
        log_variance: likewise, clamped to [-30, 20].
    """

    mean: jax.Array
    log_variance: jax.Array

    @property
    def standard_deviation(self) -> jax.Array:
        """Standard deviation, with the shape of `mean`."""
        return jnp.exp(0.5 * self.log_variance)

    def sample(self, noise: jax.Array) -> jax.Array:
        """The sample that standard normal `noise` of the shape of `mean` picks."""
        return self.mean + self.standard_deviation * noise


class AutoencoderKL(nnx.Module):
    """The VAE of Stable Diffusion XL (https://arxiv.org/abs/2307.01952, section 2.4).

    Frames are treated one by one. Neither method applies `config.scaling_factor`.
    """

    def __init__(
        self,
        config: AutoencoderKLConfig,
        *,
        rngs: nnx.Rngs,
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
    ):
        layers = Layers.create(rngs, dtype, param_dtype)
        self.config = config
        self.encoder = Encoder(config, layers)
        self.quant_conv = layers.conv(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = layers.conv(config.latent_channels, config.latent_channels, 1)
        self.decoder = Decoder(config, layers)

    def encode(self, pixels: jax.Array) -> DiagonalGaussian:
        """Encodes `[..., height, width, 3]` in [-1, 1]; height and width are multiples of 8."""
        mean, log_variance = jnp.split(self.quant_conv(self.encoder(pixels)), 2, axis=-1)
        return DiagonalGaussian(mean, jnp.clip(log_variance, -30.0, 20.0))

    def decode(self, latents: jax.Array) -> jax.Array:
        """Decodes `[..., height, width, latent_channels]` to pixels around [-1, 1]."""
        return self.decoder(self.post_quant_conv(latents))
