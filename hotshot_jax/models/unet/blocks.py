"""Down, mid and up blocks of the UNet: resnets, spatial and temporal transformers."""

import jax
import jax.numpy as jnp
from flax import nnx

from hotshot_jax.models.layers.attention import Contexts
from hotshot_jax.models.layers.layers import Layers
from hotshot_jax.models.layers.resnet import Downsample2D, ResnetBlock2D, Upsample2D
from hotshot_jax.models.unet.encoder_config import UNetLevel
from hotshot_jax.models.unet.spatial_transformer import (
    PointwiseTransformer2DModel,
    Transformer2DModel,
)
from hotshot_jax.models.unet.temporal_transformer import TransformerTemporal

BlockContexts = list[Contexts]
"""What the spatial transformers of one block read, in their order."""


def _resnet(in_channels: int, level: UNetLevel, layers: Layers) -> ResnetBlock2D:
    return ResnetBlock2D(
        in_channels,
        level.channels,
        layers,
        groups=level.groups,
        epsilon=level.epsilon,
        time_channels=level.time_channels,
        pool_frames=level.pool_frames,
    )


def _spatial_transformer(
    level: UNetLevel, layers: Layers
) -> Transformer2DModel | PointwiseTransformer2DModel:
    if level.transformer_depth == 0:
        return PointwiseTransformer2DModel(level.channels, layers, groups=level.groups)
    return Transformer2DModel(
        level.channels,
        level.heads,
        layers,
        depth=level.transformer_depth,
        text_channels=level.text_channels,
        groups=level.groups,
    )


class _Block(nnx.Module):
    """Resnets, each followed by a spatial and a temporal transformer, if the level has them."""

    def __init__(self, in_channels: list[int], level: UNetLevel, layers: Layers):
        count = len(in_channels)
        self.resnets = nnx.List([_resnet(channels, level, layers) for channels in in_channels])
        self.attentions = nnx.List(
            [_spatial_transformer(level, layers) for _ in range(count * level.cross_attention)]
        )
        self.temporal_attentions = nnx.List(
            []
            if level.temporal is None
            else [TransformerTemporal(level.channels, level.temporal, layers) for _ in in_channels]
        )

    def project_text(self, text: jax.Array) -> BlockContexts:
        """What the spatial transformers read of `[batch, frames, tokens, text_channels]`."""
        return [attention.project_text(text) for attention in self.attentions]

    def _layer(
        self,
        index: int,
        x: jax.Array,
        time_embedding: jax.Array,
        contexts: BlockContexts,
        enable_temporal_attentions: bool,
        motion_scale: jax.Array | None,
    ) -> jax.Array:
        with jax.named_scope(f"resnets.{index}"):
            x = self.resnets[index](x, time_embedding)
        if self.attentions:
            with jax.named_scope(f"attentions.{index}"):
                x = self.attentions[index](x, contexts[index])
        if enable_temporal_attentions and self.temporal_attentions:
            with jax.named_scope(f"temporal_attentions.{index}"):
                x = self.temporal_attentions[index](x, motion_scale)
        return x


class DownBlock3D(_Block):
    """One level on the way down."""

    def __init__(
        self,
        in_channels: int,
        level: UNetLevel,
        layers: Layers,
        *,
        depth: int,
        downsample: bool,
    ):
        inputs = [in_channels] + [level.channels] * (depth - 1)
        super().__init__(inputs, level, layers)
        self.downsamplers = nnx.List([Downsample2D(level.channels, layers)] * downsample)

    def __call__(
        self,
        x: jax.Array,
        time_embedding: jax.Array,
        contexts: BlockContexts,
        *,
        enable_temporal_attentions: bool = True,
        motion_scale: jax.Array | None = None,
    ) -> tuple[jax.Array, list[jax.Array]]:
        """Maps `[batch, frames, height, width, in_channels]` to the next level.

        Args:
            x: the activations.
            time_embedding: `[batch, frames, time_channels]`; one frame where all share it.
            contexts: the result of `project_text`.
            enable_temporal_attentions: whether the temporal transformers run.
            motion_scale: factor of what they add, `[batch, frames]`; None for 1.

        Returns:
            The activations, and those that the way up takes over: each layer's output, then the
            downsampler's.
        """
        skips = []
        for index in range(len(self.resnets)):
            x = self._layer(
                index, x, time_embedding, contexts, enable_temporal_attentions, motion_scale
            )
            skips.append(x)
        for downsampler in self.downsamplers:
            with jax.named_scope("downsamplers.0"):
                x = downsampler(x)
            skips.append(x)
        return x, skips


class UNetMidBlock3DCrossAttn(nnx.Module):
    """The lowest level: resnet, spatial transformer, resnet; nothing temporal.

    `cross_attention` false leaves the first resnet alone, as in the smallest ControlNets.
    """

    def __init__(self, level: UNetLevel, layers: Layers, *, cross_attention: bool = True):
        self.resnets = nnx.List(
            [_resnet(level.channels, level, layers) for _ in range(1 + cross_attention)]
        )
        self.attentions = nnx.List(
            [_spatial_transformer(level, layers) for _ in range(cross_attention)]
        )

    def project_text(self, text: jax.Array) -> BlockContexts:
        """What the spatial transformers read of `[batch, frames, tokens, text_channels]`."""
        return [attention.project_text(text) for attention in self.attentions]

    def __call__(
        self, x: jax.Array, time_embedding: jax.Array, contexts: BlockContexts
    ) -> jax.Array:
        """Maps `[batch, frames, height, width, channels]` to the same shape."""
        with jax.named_scope("resnets.0"):
            x = self.resnets[0](x, time_embedding)
        for index, attention in enumerate(self.attentions):
            with jax.named_scope(f"attentions.{index}"):
                x = attention(x, contexts[index])
            with jax.named_scope(f"resnets.{index + 1}"):
                x = self.resnets[index + 1](x, time_embedding)
        return x


class UpBlock3D(_Block):
    """One level on the way up, each layer joined with a skip from the way down."""

    def __init__(
        self,
        in_channels: int,
        skip_channels: list[int],
        level: UNetLevel,
        layers: Layers,
        *,
        upsample: bool,
    ):
        below = [in_channels] + [level.channels] * (len(skip_channels) - 1)
        inputs = [hidden + skip for hidden, skip in zip(below, skip_channels, strict=True)]
        super().__init__(inputs, level, layers)
        self.upsamplers = nnx.List([Upsample2D(level.channels, layers)] * upsample)

    def __call__(
        self,
        x: jax.Array,
        time_embedding: jax.Array,
        contexts: BlockContexts,
        skips: list[jax.Array],
        *,
        size: tuple[int, int],
        first: int = 0,
        enable_temporal_attentions: bool = True,
        motion_scale: jax.Array | None = None,
    ) -> jax.Array:
        """Maps `[batch, frames, height, width, in_channels]` to the level above.

        Args:
            x: the activations.
            time_embedding: `[batch, frames, time_channels]`; one frame where all share it.
            contexts: the result of `project_text`.
            skips: one tensor for each layer that is run, in the order in which they use them.
            size: height and width of the level above; without effect on the top level.
            first: the layer that is run first.
            enable_temporal_attentions: whether the temporal transformers run.
            motion_scale: factor of what they add, `[batch, frames]`; None for 1.
        """
        for index, skip in enumerate(skips, first):
            x = jnp.concatenate([x, skip], axis=-1)
            x = self._layer(
                index, x, time_embedding, contexts, enable_temporal_attentions, motion_scale
            )
        for upsampler in self.upsamplers:
            with jax.named_scope("upsamplers.0"):
                x = upsampler(x, size)
        return x
