"""What a UNet's `config.json` says, and what each of its levels follows from that."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from hotshot_jax.errors import HotshotError
from hotshot_jax.models.config import per_block, read_config

# Whether a block has cross-attention, by its class name: Hotshot-XL's, and that of the SDXL UNet
# it animates.
_DOWN_BLOCKS = {
    "DownBlock3D": False,
    "CrossAttnDownBlock3D": True,
    "DownBlock2D": False,
    "CrossAttnDownBlock2D": True,
}
_UP_BLOCKS = {
    "UpBlock3D": False,
    "CrossAttnUpBlock3D": True,
    "UpBlock2D": False,
    "CrossAttnUpBlock2D": True,
}

# Keys that this model implements in one form only.
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "addition_embed_type": ("text_time",),
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "class_embeddings_concat": (False,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": (None,),
    "downsample_padding": (1,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "mid_block_only_cross_attention": (None, False),
    "mid_block_scale_factor": (1,),
    "mid_block_type": ("UNetMidBlock3DCrossAttn", "UNetMidBlock2DCrossAttn"),
    "num_attention_heads": (None,),
    "num_class_embeds": (None,),
    "only_cross_attention": (False, *([False] * blocks for blocks in range(1, 6))),
    "resnet_out_scale_factor": (1.0,),
    "resnet_skip_time_act": (False,),
    "resnet_time_scale_shift": ("default",),
    "reverse_transformer_layers_per_block": (None,),
    "time_cond_proj_dim": (None,),
    "time_embedding_act_fn": (None,),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
    "use_linear_projection": (True,),
}

# Attention is always computed with float32 logits; the number of heads of the added embedding
# belongs to embedding types that are refused above; dropout is off outside training.
_IRRELEVANT = ("upcast_attention", "addition_embed_type_num_heads", "dropout")


@dataclasses.dataclass(frozen=True)
class UNetLevel:
    """One level of the UNet, as its blocks see it.

    Attributes:
        channels: width of the level.
        heads: heads of the spatial attention.
        transformer_depth: blocks in each spatial transformer.
        cross_attention: whether the level has spatial transformers.
        text_channels: width of the text embeddings.
        time_channels: width of the time embedding.
        groups: groups of the norms outside the temporal layers.
        epsilon: of the resnets' norms.
    """

    channels: int
    heads: int
    transformer_depth: int
    cross_attention: bool
    text_channels: int
    time_channels: int
    groups: int
    epsilon: float


@dataclasses.dataclass(frozen=True)
class UNet3DConfig:
    """Shape of the UNet, in the words of diffusers' `config.json`.

    Attributes:
        block_out_channels: width of each level, from the top.
        down_block_types: whether each level has cross-attention, by the block's class name.
        up_block_types: the same on the way up, from the bottom.
        cross_attention_dim: width of the text embeddings.
        attention_head_dim: number of heads of each level (the published name is a misnomer).
        transformer_layers_per_block: depth of each level's spatial transformers.
        layers_per_block: resnets of a level on the way down; one more on the way up.
        addition_time_embed_dim: width in which each of the six sizes is embedded.
        projection_class_embeddings_input_dim: pooled text and embedded sizes together.
        in_channels: latent channels.
        out_channels: latent channels.
        norm_num_groups: groups of every group norm outside the temporal layers.
        norm_eps: epsilon of the resnets' norms and of the last one.
        sample_size: native height and width, in latents.
    """

    block_out_channels: tuple[int, ...]
    down_block_types: tuple[str, ...]
    up_block_types: tuple[str, ...]
    cross_attention_dim: int
    attention_head_dim: int | tuple[int, ...]
    transformer_layers_per_block: int | tuple[int, ...]
    addition_time_embed_dim: int
    projection_class_embeddings_input_dim: int
    layers_per_block: int = 2
    in_channels: int = 4
    out_channels: int = 4
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    sample_size: int = 128

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], where: str = "unet/config.json"
    ) -> "UNet3DConfig":
        """Reads a `config.json` of Hotshot-XL or of a plain SDXL UNet.

        Raises:
            HotshotError: names the key whose value is missing, inconsistent or not supported.
        """
        config = read_config(cls, values, where=where, supported=_SUPPORTED, irrelevant=_IRRELEVANT)
        config._check(where)
        return config

    def _check(self, where: str) -> None:
        blocks = len(self.block_out_channels)
        per_block(self.block_out_channels, blocks, key="block_out_channels", where=where)
        heads = per_block(self.attention_head_dim, blocks, key="attention_head_dim", where=where)
        per_block(
            self.transformer_layers_per_block,
            blocks,
            key="transformer_layers_per_block",
            where=where,
        )
        for key, types, known in (
            ("down_block_types", self.down_block_types, _DOWN_BLOCKS),
            ("up_block_types", self.up_block_types, _UP_BLOCKS),
        ):
            if len(types) != blocks:
                raise HotshotError(f"{where}: {key} has {len(types)} entries, expected {blocks}.")
            for name in types:
                if name not in known:
                    raise HotshotError(
                        f"{where}: {key} has the unknown block {name!r} "
                        f"(known: {', '.join(known)})."
                    )
        cross_attention = [_DOWN_BLOCKS[name] for name in self.down_block_types]
        if [_UP_BLOCKS[name] for name in self.up_block_types] != cross_attention[::-1]:
            raise HotshotError(
                f"{where}: up_block_types must mirror down_block_types level by level."
            )
        for channels, count in zip(self.block_out_channels, heads, strict=True):
            for key, divisor in (
                ("norm_num_groups", self.norm_num_groups),
                ("attention_head_dim", count),
            ):
                if channels % divisor:
                    raise HotshotError(
                        f"{where}: {key} = {divisor} does not divide {channels} channels."
                    )

    @property
    def time_channels(self) -> int:
        """Width of the time embedding."""
        return 4 * self.block_out_channels[0]

    def levels(self) -> list[UNetLevel]:
        """The levels, from the top."""
        blocks = len(self.block_out_channels)
        heads = per_block(self.attention_head_dim, blocks, key="attention_head_dim", where="unet")
        depths = per_block(
            self.transformer_layers_per_block,
            blocks,
            key="transformer_layers_per_block",
            where="unet",
        )
        return [
            UNetLevel(
                channels=self.block_out_channels[i],
                heads=heads[i],
                transformer_depth=depths[i],
                cross_attention=_DOWN_BLOCKS[self.down_block_types[i]],
                text_channels=self.cross_attention_dim,
                time_channels=self.time_channels,
                groups=self.norm_num_groups,
                epsilon=self.norm_eps,
            )
            for i in range(blocks)
        ]
