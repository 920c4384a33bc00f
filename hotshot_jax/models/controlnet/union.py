"""Union ControlNet: one model that follows several kinds of control frames, alone or together.

ControlNetPlus, https://github.com/xinsir6/ControlNetPlus; names as in diffusers'
`ControlNetUnionModel`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from hotshot_jax.models.controlnet.config import ControlNetConfig, ControlNetUnionConfig
from hotshot_jax.models.controlnet.controlnet import ControlNetModel, EmbeddedCondition, Scale
from hotshot_jax.models.layers.attention import AttentionFunction, dot_product_attention
from hotshot_jax.models.layers.embeddings import TimestepEmbedding, sinusoidal_embedding
from hotshot_jax.models.layers.layers import Layers
from hotshot_jax.models.unet.encoder import ProjectedText
from hotshot_jax.models.unet.unet import Residuals


def controlnet_class(config: ControlNetConfig) -> type[ControlNetModel]:
    """The class of the model that a configuration describes."""
    return ControlNetUnionModel if isinstance(config, ControlNetUnionConfig) else ControlNetModel


class MultiheadAttention(nnx.Module):
    """Self-attention with the parameter names and layouts of PyTorch's `MultiheadAttention`."""

    def __init__(self, channels: int, heads: int, layers: Layers):
        self.heads = heads
        self.dtype: Any = layers.dtype
        self.attend: AttentionFunction = dot_product_attention
        initializer = layers.initial(jax.nn.initializers.lecun_normal(in_axis=1, out_axis=0))
        self.in_proj_weight = nnx.Param(
            initializer(layers.rngs.params(), (3 * channels, channels), layers.param_dtype)
        )
        self.in_proj_bias = nnx.Param(jnp.zeros((3 * channels,), layers.param_dtype))
        self.out_proj = layers.linear(channels, channels)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Attends within `[..., tokens, channels]`; same shape."""
        projected = x @ self.in_proj_weight[...].astype(self.dtype).T
        projected = projected + self.in_proj_bias[...].astype(self.dtype)
        query, key, value = (
            part.reshape(*part.shape[:-1], self.heads, -1)
            for part in jnp.split(projected, 3, axis=-1)
        )
        attended = self.attend(query, key, value)
        return self.out_proj(attended.reshape(x.shape))


class ResidualAttentionMlp(nnx.Module):
    """Two linear layers with the sigmoid approximation of GELU between them."""

    def __init__(self, channels: int, layers: Layers):
        self.c_fc = layers.linear(channels, 4 * channels)
        self.c_proj = layers.linear(4 * channels, channels)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[..., channels]` to the same shape."""
        x = self.c_fc(x)
        return self.c_proj(x * jax.nn.sigmoid(1.702 * x))


class ResidualAttentionBlock(nnx.Module):
    """Attention and feed-forward, each pre-norm with a residual."""

    def __init__(self, channels: int, heads: int, layers: Layers):
        self.attn = MultiheadAttention(channels, heads, layers)
        self.ln_1 = layers.layer_norm(channels)
        self.mlp = ResidualAttentionMlp(channels, layers)
        self.ln_2 = layers.layer_norm(channels)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[..., tokens, channels]` to the same shape."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class ControlNetUnionModel(ControlNetModel):
    """A ControlNet that is told which kinds of control frames it is given.

    Its small transformer sees one vector for each kind of control frames and one for the latents.
    The published model attends along the rows (frames and batch elements), not along the kinds;
    its weights were trained so, and so does this one.
    """

    config: ControlNetUnionConfig

    def __init__(
        self,
        config: ControlNetUnionConfig,
        *,
        rngs: nnx.Rngs,
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
    ):
        super().__init__(config, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        layers = Layers.create(rngs, dtype, param_dtype)
        channels = config.num_trans_channel
        initializer = layers.initial(jax.nn.initializers.normal(channels**0.5))
        self.task_embedding = nnx.Param(
            initializer(layers.rngs.params(), (config.num_control_type, channels), param_dtype)
        )
        # The misspelt name is the published one.
        self.transformer_layes = nnx.List(
            [
                ResidualAttentionBlock(channels, config.num_trans_head, layers)
                for _ in range(config.num_trans_layer)
            ]
        )
        self.spatial_ch_projs = layers.linear(channels, config.num_proj_channel, zero=True)
        self.control_add_embedding = TimestepEmbedding(
            config.addition_time_embed_dim * config.num_control_type, config.time_channels, layers
        )

    def __call__(
        self,
        sample: jax.Array,
        timestep: jax.Array,
        encoder_hidden_states: jax.Array | ProjectedText,
        text_embeds: jax.Array,
        time_ids: jax.Array,
        controlnet_cond: jax.Array | EmbeddedCondition,
        *,
        conditioning_scale: Scale = 1.0,
        guess_mode: bool = False,
        first_only: bool = False,
        control_types: jax.Array | tuple[int, ...] = (0,),
        prompts: int = 1,
    ) -> Residuals:
        """Predicts the residuals of noisy latents.

        Args:
            sample: `[batch, frames, height, width, in_channels]`.
            timestep: `[batch]` or a scalar, in the training schedule's steps.
            encoder_hidden_states: text embeddings, shared by all frames or one for each, as
                `project_text` takes them, or what it made of them.
            text_embeds: pooled text `[batch, text_channels]` or `[batch, frames, text_channels]`.
            time_ids: original size, crop offset, target size in pixels, `[batch, 6]`.
            controlnet_cond: control frames of one kind, as in `ControlNetModel`, or what
                `embed_condition` made of the frames of several kinds.
            conditioning_scale: as in `ControlNetModel`, or one for each kind, `[kinds]`. A single
                kind's scale multiplies the residuals, those of several kinds their features.
            guess_mode: multiplies the residuals by 0.1 at the top up to 1 at the bottom.
            first_only: as in `ControlNetModel`.
            control_types: which kinds the control frames are, `[kinds]`, in their order.
            prompts: how many independent videos the batch holds, as `[guidance * prompts, ...]`.
                Rows of different videos do not see each other. One, for which all rows do, is
                what PyTorch's pipelines compute.

        Returns:
            Residuals in the compute dtype, for a UNet of the same widths.

        Raises:
            ValueError: the control frames do not have the size of the latents, or there is not one
                type for each kind.
        """
        condition = (
            controlnet_cond
            if isinstance(controlnet_cond, EmbeddedCondition)
            else self.embed_condition(controlnet_cond)
        )
        control_types = jnp.asarray(control_types)
        kinds = len(condition.features)
        if control_types.shape != (kinds,):
            raise ValueError(f"{kinds} kinds of control frames, but types {control_types.shape}")
        scale = jnp.asarray(conditioning_scale, jnp.float32)
        if kinds == 1:
            of_features, of_residuals = jnp.ones(1), scale[0] if scale.ndim == 1 else scale
        else:
            of_features, of_residuals = jnp.broadcast_to(scale, (kinds,)), jnp.float32(1)
        time_embedding = self.embed_time_and_sizes(timestep, text_embeds, time_ids)
        time_embedding = time_embedding + self._embed_types(control_types)
        x = self.conv_in(sample)
        return self._residuals(
            x + self._fuse(condition, x, control_types, of_features, prompts),
            time_embedding,
            encoder_hidden_states,
            self._scales(of_residuals, guess_mode),
            first_only,
        )

    def _embed_types(self, control_types: jax.Array) -> jax.Array:
        chosen = jnp.zeros(self.config.num_control_type).at[control_types].set(1.0)
        embedded = sinusoidal_embedding(chosen, self.config.addition_time_embed_dim)
        return self.control_add_embedding(embedded.reshape(1, -1))

    def _fuse(
        self,
        condition: EmbeddedCondition,
        x: jax.Array,
        control_types: jax.Array,
        scales: jax.Array,
        prompts: int,
    ) -> jax.Array:
        features = self._features(condition, x)
        scales = scales.astype(x.dtype)
        tasks = self.task_embedding[...].astype(x.dtype)[control_types]
        tokens = [
            (part.mean((-3, -2)) + task) * scale
            for part, task, scale in zip(features, tasks, scales, strict=True)
        ]
        tokens.append(x.mean((-3, -2)))
        hidden = rearrange(jnp.stack(tokens), "k (g n) f c -> n k (g f) c", n=prompts)
        for layer in self.transformer_layes:
            hidden = layer(hidden)
        hidden = rearrange(hidden, "n k (g f) c -> k (g n) f c", f=x.shape[1])
        return sum(
            (part + self.spatial_ch_projs(token)[..., None, None, :]) * scale
            for part, token, scale in zip(features, hidden[:-1], scales, strict=True)
        )
