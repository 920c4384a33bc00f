"""What UNet and ControlNet share: the way down, as a `config.json` describes it."""

import dataclasses
from typing import Any

from hotshot_jax.errors import HotshotError
from hotshot_jax.models.config import per_block

# Whether a block has cross-attention, by its class name: Hotshot-XL's, and that of the SDXL UNet
# it animates.
_DOWN_BLOCKS = {
    "DownBlock3D": False,
    "CrossAttnDownBlock3D": True,
    "DownBlock2D": False,
    "CrossAttnDownBlock2D": True,
}

# Keys that the encoder implements in one form only.
ENCODER_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "addition_embed_type": ("text_time",),
    "class_embed_type": (None,),
    "downsample_padding": (1,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "mid_block_scale_factor": (1,),
    "num_attention_heads": (None,),
    "num_class_embeds": (None,),
    "only_cross_attention": (False, *([False] * blocks for blocks in range(1, 6))),
    "resnet_time_scale_shift": ("default",),
    "use_linear_projection": (True,),
}

# Attention is always computed with float32 logits; the number of heads of the added embedding
# belongs to embedding types that are refused above.
ENCODER_IRRELEVANT = ("upcast_attention", "addition_embed_type_num_heads")


@dataclasses.dataclass(frozen=True)
class TemporalShape:
    """Shape of the temporal transformers; the defaults are those of the published Hotshot-XL.

    Attributes:
        positions: entries of the positional table, which is the longest clip that they take.
        heads: heads of the attention over frames.
        groups: groups of the norm.
    """

    positions: int = 24
    heads: int = 8
    groups: int = 32


PUBLISHED = TemporalShape()


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
        temporal: of the temporal transformers; None without any.
    """

    channels: int
    heads: int
    transformer_depth: int
    cross_attention: bool
    text_channels: int
    time_channels: int
    groups: int
    epsilon: float
    temporal: TemporalShape | None

    @property
    def pool_frames(self) -> bool:
        """Whether the resnets' group statistics pool over frames: in a model of videos."""
        return self.temporal is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Shape of the way down, in the words of diffusers' `config.json`.

    Attributes:
        block_out_channels: width of each level, from the top.
        down_block_types: whether each level has cross-attention, by the block's class name.
        cross_attention_dim: width of the text embeddings.
        attention_head_dim: number of heads of each level (the published name is a misnomer).
        transformer_layers_per_block: depth of each level's spatial transformers.
        addition_time_embed_dim: width in which each of the six sizes is embedded.
        projection_class_embeddings_input_dim: pooled text and embedded sizes together.
        layers_per_block: resnets of a level on the way down; one more on the way up.
        in_channels: latent channels.
        norm_num_groups: groups of every group norm outside the temporal layers.
        norm_eps: epsilon of the resnets' norms.
    """

    block_out_channels: tuple[int, ...]
    down_block_types: tuple[str, ...]
    cross_attention_dim: int
    attention_head_dim: int | tuple[int, ...]
    transformer_layers_per_block: int | tuple[int, ...]
    addition_time_embed_dim: int
    projection_class_embeddings_input_dim: int
    layers_per_block: int = 2
    in_channels: int = 4
    norm_num_groups: int = 32
    norm_eps: float = 1e-5

    @property
    def time_channels(self) -> int:
        """Width of the time embedding."""
        return 4 * self.block_out_channels[0]

    @property
    def skip_channels(self) -> list[int]:
        """Widths of the skips: `conv_in`, then each layer's and each downsampler's output."""
        widths = [self.block_out_channels[0]]
        for index, channels in enumerate(self.block_out_channels):
            downsample = index < len(self.block_out_channels) - 1
            widths += [channels] * (self.layers_per_block + downsample)
        return widths

    def levels(self, temporal: TemporalShape | None = None) -> list[UNetLevel]:
        """The levels, from the top, with temporal transformers of this shape."""
        heads, depths = self._heads_and_depths("config.json")
        return [
            UNetLevel(
                channels=channels,
                heads=heads[index],
                transformer_depth=depths[index],
                cross_attention=_DOWN_BLOCKS[self.down_block_types[index]],
                text_channels=self.cross_attention_dim,
                time_channels=self.time_channels,
                groups=self.norm_num_groups,
                epsilon=self.norm_eps,
                temporal=temporal,
            )
            for index, channels in enumerate(self.block_out_channels)
        ]

    def check_encoder(self, where: str) -> None:
        """Checks that the values fit together.

        Raises:
            HotshotError: names `where` and the key that is inconsistent or not supported.
        """
        blocks = len(self.block_out_channels)
        per_block(self.block_out_channels, blocks, key="block_out_channels", where=where)
        heads, _ = self._heads_and_depths(where)
        check_blocks(self.down_block_types, _DOWN_BLOCKS, "down_block_types", blocks, where)
        for channels, count in zip(self.block_out_channels, heads, strict=True):
            for key, divisor in (
                ("norm_num_groups", self.norm_num_groups),
                ("attention_head_dim", count),
            ):
                if channels % divisor:
                    raise HotshotError(
                        f"{where}: {key} = {divisor} does not divide {channels} channels."
                    )

    def cross_attention_levels(self) -> list[bool]:
        """Whether each level has spatial transformers, from the top."""
        return [_DOWN_BLOCKS[name] for name in self.down_block_types]

    def _heads_and_depths(self, where: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        blocks = len(self.block_out_channels)
        heads = per_block(self.attention_head_dim, blocks, key="attention_head_dim", where=where)
        depths = per_block(
            self.transformer_layers_per_block,
            blocks,
            key="transformer_layers_per_block",
            where=where,
            minimum=0,
        )
        return heads, depths


def check_blocks(
    names: tuple[str, ...], known: dict[str, bool], key: str, blocks: int, where: str
) -> None:
    """Checks a list of block class names.

    Raises:
        HotshotError: the list is not `blocks` long, or has a name that is not in `known`.
    """
    if len(names) != blocks:
        raise HotshotError(f"{where}: {key} has {len(names)} entries, expected {blocks}.")
    for name in names:
        if name not in known:
            raise HotshotError(
                f"{where}: {key} has the unknown block {name!r} (known: {', '.join(known)})."
            )
