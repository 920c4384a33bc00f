"""Residual blocks, downsampling and upsampling, shared by UNet, ControlNet and VAE."""

import jax
import jax.numpy as jnp
from flax import nnx

from hotshot_jax.models.layers.layers import Layers


class ResnetBlock2D(nnx.Module):
    """Norm, SiLU, convolution, twice, with the time embedding added in between.

    In the UNet the group statistics pool over frames (`pool_frames`), in the VAE they do not.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        layers: Layers,
        *,
        groups: int,
        epsilon: float,
        time_channels: int | None = None,
        pool_frames: bool = False,
    ):
        self.norm1 = layers.group_norm(
            in_channels, groups, epsilon=epsilon, pool_frames=pool_frames
        )
        self.conv1 = layers.conv(in_channels, out_channels, 3)
        self.time_emb_proj = (
            None if time_channels is None else layers.linear(time_channels, out_channels)
        )
        self.norm2 = layers.group_norm(
            out_channels, groups, epsilon=epsilon, pool_frames=pool_frames
        )
        self.conv2 = layers.conv(out_channels, out_channels, 3)
        self.conv_shortcut = (
            None if in_channels == out_channels else layers.conv(in_channels, out_channels, 1)
        )

    def __call__(self, x: jax.Array, time_embedding: jax.Array | None = None) -> jax.Array:
        """Maps `[batch, frames, height, width, in_channels]` to `[..., out_channels]`.

        Args:
            x: the activations.
            time_embedding: `[batch, frames, time_channels]`, for blocks that were built for one;
                one frame where all share it.
        """
        hidden = self.conv1(jax.nn.silu(self.norm1(x)))
        if self.time_emb_proj is not None:
            assert time_embedding is not None
            time = self.time_emb_proj(jax.nn.silu(time_embedding))
            hidden = hidden + time[:, :, None, None, :]
        hidden = self.conv2(jax.nn.silu(self.norm2(hidden)))
        shortcut = x if self.conv_shortcut is None else self.conv_shortcut(x)
        return shortcut + hidden


class Downsample2D(nnx.Module):
    """A convolution of stride 2."""

    def __init__(self, channels: int, layers: Layers, *, padding: tuple[int, int] = (1, 1)):
        self.conv = layers.conv(channels, channels, 3, stride=2, padding=(padding, padding))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[..., height, width, channels]` to about half the height and width."""
        return self.conv(x)


class Upsample2D(nnx.Module):
    """Nearest neighbour to twice the size, then a convolution."""

    def __init__(self, channels: int, layers: Layers):
        self.conv = layers.conv(channels, channels, 3)

    def __call__(self, x: jax.Array, size: tuple[int, int] | None = None) -> jax.Array:
        """Maps `[..., height, width, channels]` to `size`, or to twice the height and width.

        Args:
            x: the activations.
            size: height and width wanted: twice the input's, or one less where an odd number was
                halved on the way down.
        """
        height, width = x.shape[-3:-1]
        x = jnp.broadcast_to(
            x[..., :, None, :, None, :], (*x.shape[:-3], height, 2, width, 2, x.shape[-1])
        ).reshape(*x.shape[:-3], 2 * height, 2 * width, x.shape[-1])
        if size is not None:
            x = x[..., : size[0], : size[1], :]
        return self.conv(x)
