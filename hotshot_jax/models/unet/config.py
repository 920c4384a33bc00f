"""What a UNet's `config.json` says."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from hotshot_jax.errors import HotshotError
from hotshot_jax.models.config import read_config
from hotshot_jax.models.unet.encoder_config import (
    ENCODER_IRRELEVANT,
    ENCODER_SUPPORTED,
    EncoderConfig,
    TemporalShape,
    check_blocks,
)

# Whether a block has cross-attention, by its class name: Hotshot-XL's, and that of the SDXL UNet
# it animates.
_UP_BLOCKS = {
    "UpBlock3D": False,
    "CrossAttnUpBlock3D": True,
    "UpBlock2D": False,
    "CrossAttnUpBlock2D": True,
}

# Keys that this model implements in one form only.
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    **ENCODER_SUPPORTED,
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embeddings_concat": (False,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": (None,),
    "dual_cross_attention": (False,),
    "mid_block_only_cross_attention": (None, False),
    "mid_block_type": ("UNetMidBlock3DCrossAttn", "UNetMidBlock2DCrossAttn"),
    "resnet_out_scale_factor": (1.0,),
    "resnet_skip_time_act": (False,),
    "reverse_transformer_layers_per_block": (None,),
    "time_cond_proj_dim": (None,),
    "time_embedding_act_fn": (None,),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
}

# Dropout is off outside training.
_IRRELEVANT = (*ENCODER_IRRELEVANT, "dropout")


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNet3DConfig(EncoderConfig):
    """Shape of the UNet, in the words of diffusers' `config.json`.

    Attributes:
        up_block_types: whether each level has cross-attention on the way up, from the bottom.
        out_channels: latent channels.
        sample_size: native height and width, in latents.
        temporal_positions: see `TemporalShape`; published configurations do not have these three.
        temporal_heads: see there.
        temporal_groups: see there.
    """

    up_block_types: tuple[str, ...]
    out_channels: int = 4
    sample_size: int = 128
    temporal_positions: int = TemporalShape.positions
    temporal_heads: int = TemporalShape.heads
    temporal_groups: int = TemporalShape.groups

    @property
    def temporal(self) -> TemporalShape:
        """Shape of the temporal transformers."""
        return TemporalShape(self.temporal_positions, self.temporal_heads, self.temporal_groups)

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
        self.check_encoder(where)
        blocks = len(self.block_out_channels)
        check_blocks(self.up_block_types, _UP_BLOCKS, "up_block_types", blocks, where)
        if [_UP_BLOCKS[name] for name in self.up_block_types] != self.cross_attention_levels()[
            ::-1
        ]:
            raise HotshotError(
                f"{where}: up_block_types must mirror down_block_types level by level."
            )
        if self.temporal_positions < 1:
            raise HotshotError(f"{where}: temporal_positions = {self.temporal_positions}.")
        for key in ("temporal_heads", "temporal_groups"):
            divisor = getattr(self, key)
            for channels in self.block_out_channels:
                if divisor < 1 or channels % divisor:
                    raise HotshotError(
                        f"{where}: {key} = {divisor} does not divide {channels} channels."
                    )
