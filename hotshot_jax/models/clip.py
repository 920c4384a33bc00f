"""CLIP's text encoder, as SDXL's two encoders use it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from hotshot_jax.errors import HotshotError
from hotshot_jax.models.config import read_config
from hotshot_jax.models.layers.attention import AttentionFunction, dot_product_attention
from hotshot_jax.models.layers.layers import Layers


def quick_gelu(x: jax.Array) -> jax.Array:
    """The sigmoid approximation of GELU that OpenAI's CLIP was trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "quick_gelu": quick_gelu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
}

# What transformers writes into every configuration and a text encoder at rest does not use.
_IRRELEVANT = (
    "add_cross_attention architectures attention_dropout bad_words_ids begin_suppress_tokens "
    "chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id diversity_penalty "
    "do_sample dropout dtype early_stopping encoder_no_repeat_ngram_size "
    "exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id "
    "id2label initializer_factor "
    "initializer_range is_decoder is_encoder_decoder label2id length_penalty max_length min_length "
    "no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_attentions "
    "output_hidden_states output_scores prefix problem_type pruned_heads remove_invalid_values "
    "repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens "
    "task_specific_params temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings "
    "tokenizer_class top_k top_p torch_dtype torchscript typical_p use_bfloat16 use_cache "
    "bos_token_id pad_token_id"
).split()


@dataclasses.dataclass(frozen=True)
class CLIPTextConfig:
    """Shape of a text encoder, in the words of transformers' `config.json`.

    Attributes:
        hidden_size: width.
        intermediate_size: width of the feed-forward layer.
        num_hidden_layers: depth.
        num_attention_heads: heads.
        vocab_size: number of tokens.
        max_position_embeddings: longest sequence.
        hidden_act: activation of the feed-forward layer.
        layer_norm_eps: epsilon of every layer norm.
        projection_dim: width of the pooled output, where it is projected.
        eos_token_id: end-of-text id; 2, an error of the first CLIP export, means the largest id.
        with_projection: whether the pooled output goes through `text_projection`.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    vocab_size: int = 49408
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    projection_dim: int = 512
    eos_token_id: int = 49407
    with_projection: bool = False

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], where: str = "text_encoder/config.json"
    ) -> "CLIPTextConfig":
        """Reads a `config.json`; `architectures` tells whether there is a projection.

        Raises:
            HotshotError: names the key whose value is missing, inconsistent or not supported.
        """
        architecture = values.get("_class_name") or (values.get("architectures") or [None])[0]
        if architecture not in ("CLIPTextModel", "CLIPTextModelWithProjection"):
            raise HotshotError(
                f"{where}: architectures = {architecture!r} is not supported "
                "(expected CLIPTextModel or CLIPTextModelWithProjection)."
            )
        supported = {
            "model_type": ("clip_text_model",),
            "position_embedding_type": ("absolute",),
            "is_causal": (True,),
        }
        config = read_config(
            cls,
            {**values, "with_projection": architecture == "CLIPTextModelWithProjection"},
            where=where,
            supported=supported,
            irrelevant=_IRRELEVANT,
        )
        if config.hidden_act not in _ACTIVATIONS:
            raise HotshotError(
                f"{where}: hidden_act = {config.hidden_act!r} is not supported "
                f"(expected {' or '.join(_ACTIVATIONS)})."
            )
        if config.hidden_size % config.num_attention_heads:
            raise HotshotError(
                f"{where}: num_attention_heads = {config.num_attention_heads} does not divide "
                f"hidden_size = {config.hidden_size}."
            )
        return config


class CLIPAttention(nnx.Module):
    """Causal self-attention with the parameter names of transformers' CLIP."""

    def __init__(self, channels: int, heads: int, layers: Layers):
        self.heads = heads
        self.attend: AttentionFunction = dot_product_attention
        self.q_proj = layers.linear(channels, channels)
        self.k_proj = layers.linear(channels, channels)
        self.v_proj = layers.linear(channels, channels)
        self.out_proj = layers.linear(channels, channels)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[batch, tokens, channels]` to the same shape."""
        query, key, value = (
            layer(x).reshape(*x.shape[:-1], self.heads, -1)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(self.attend(query, key, value, causal=True).reshape(x.shape))


class CLIPMLP(nnx.Module):
    """Two linear layers with the configured activation between them."""

    def __init__(self, config: CLIPTextConfig, layers: Layers):
        self.activation = config.hidden_act
        self.fc1 = layers.linear(config.hidden_size, config.intermediate_size)
        self.fc2 = layers.linear(config.intermediate_size, config.hidden_size)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[..., channels]` to the same shape."""
        return self.fc2(_ACTIVATIONS[self.activation](self.fc1(x)))


class CLIPEncoderLayer(nnx.Module):
    """Attention and feed-forward, each pre-norm with a residual."""

    def __init__(self, config: CLIPTextConfig, layers: Layers):
        width, epsilon = config.hidden_size, config.layer_norm_eps
        self.self_attn = CLIPAttention(width, config.num_attention_heads, layers)
        self.layer_norm1 = layers.layer_norm(width, epsilon=epsilon)
        self.mlp = CLIPMLP(config, layers)
        self.layer_norm2 = layers.layer_norm(width, epsilon=epsilon)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[batch, tokens, channels]` to the same shape."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class CLIPTextEmbeddings(nnx.Module):
    """Token plus position embeddings."""

    def __init__(self, config: CLIPTextConfig, layers: Layers):
        self.token_embedding = layers.embed(config.vocab_size, config.hidden_size)
        self.position_embedding = layers.embed(config.max_position_embeddings, config.hidden_size)

    def __call__(self, input_ids: jax.Array) -> jax.Array:
        """Maps `[batch, tokens]` to `[batch, tokens, channels]`."""
        positions = jnp.arange(input_ids.shape[-1])
        return self.token_embedding(input_ids) + self.position_embedding(positions)


class CLIPEncoder(nnx.Module):
    """The stack of layers."""

    def __init__(self, config: CLIPTextConfig, layers: Layers):
        self.layers = layers.stack(
            config.num_hidden_layers, lambda layers: CLIPEncoderLayer(config, layers)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[batch, tokens, channels]` to every layer's input and the last one's output.

        Returns:
            `[depth + 1, batch, tokens, channels]`.
        """
        last, inputs = jax.lax.scan(lambda carry, layer: (layer(carry), carry), x, self.layers)
        return jnp.concatenate([inputs, last[None]])


class CLIPTextTransformer(nnx.Module):
    """Embeddings, layers, final norm."""

    def __init__(self, config: CLIPTextConfig, layers: Layers):
        self.embeddings = CLIPTextEmbeddings(config, layers)
        self.encoder = CLIPEncoder(config, layers)
        self.final_layer_norm = layers.layer_norm(config.hidden_size, epsilon=config.layer_norm_eps)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CLIPTextOutput:
    """What a text encoder gives.

    Attributes:
        hidden_states: `[depth + 1, batch, tokens, channels]`, without the final norm: the
            embeddings, then each layer's output. SDXL uses the last but one.
        last_hidden_state: `[batch, tokens, channels]`, with the final norm.
        pooled: `[batch, projection_dim]` with a projection, else `[batch, channels]`.
    """

    hidden_states: jax.Array
    last_hidden_state: jax.Array
    pooled: jax.Array


class CLIPTextModel(nnx.Module):
    """CLIP's text encoder (https://arxiv.org/abs/2103.00020), with or without projection."""

    def __init__(
        self,
        config: CLIPTextConfig,
        *,
        rngs: nnx.Rngs,
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
    ):
        layers = Layers.create(rngs, dtype, param_dtype)
        self.config = config
        self.text_model = CLIPTextTransformer(config, layers)
        self.text_projection = (
            layers.linear(config.hidden_size, config.projection_dim, use_bias=False)
            if config.with_projection
            else None
        )

    def __call__(self, input_ids: jax.Array) -> CLIPTextOutput:
        """Encodes token ids `[batch, tokens]`; padding is not masked, as in SDXL."""
        hidden_states = self.text_model.encoder(self.text_model.embeddings(input_ids))
        last = self.text_model.final_layer_norm(hidden_states[-1])
        pooled = jnp.take_along_axis(last, self._end_of_text(input_ids)[:, None, None], axis=1)[
            :, 0
        ]
        if self.text_projection is not None:
            pooled = self.text_projection(pooled)
        return CLIPTextOutput(hidden_states, last, pooled)

    def _end_of_text(self, input_ids: jax.Array) -> jax.Array:
        if self.config.eos_token_id == 2:
            return jnp.argmax(input_ids, axis=-1)
        return jnp.argmax(input_ids == self.config.eos_token_id, axis=-1)
