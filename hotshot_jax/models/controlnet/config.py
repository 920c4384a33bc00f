"""What a ControlNet's `config.json` says."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.models.config import read_config
from hotshot_jax.models.unet.config import UNet3DConfig
from hotshot_jax.models.unet.encoder_config import (
    ENCODER_IRRELEVANT,
    ENCODER_SUPPORTED,
    EncoderConfig,
)

_MID_BLOCKS = {
    "UNetMidBlock2DCrossAttn": True,
    "UNetMidBlock3DCrossAttn": True,
    "UNetMidBlock2D": False,
}

# Keys that this model implements in one form only.
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    **ENCODER_SUPPORTED,
    "global_pool_conditions": (False,),
}

_PLAIN_CLASSES = frozenset({"ControlNetModel"})
# The second name is that of the code which the first union checkpoints were published with.
_UNION_CLASSES = frozenset({"ControlNetUnionModel", "ControlNetModel_Union"})

# Text widths of the families whose ControlNets are easily taken for SDXL's.
_OTHER_FAMILIES = {768: "Stable Diffusion 1.5", 1024: "Stable Diffusion 2"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControlNetConfig(EncoderConfig):
    """Shape of a ControlNet, in the words of diffusers' `config.json`.

    Attributes:
        mid_block_type: whether the mid block has cross-attention, by its class name.
        conditioning_channels: channels of a control frame.
        conditioning_embedding_out_channels: widths of the network that embeds control frames; each
            but the last is followed by a halving of the size.
        controlnet_conditioning_channel_order: order of the control frame's colours, rgb or bgr.
    """

    mid_block_type: str = "UNetMidBlock2DCrossAttn"
    conditioning_channels: int = 3
    conditioning_embedding_out_channels: tuple[int, ...] = (16, 32, 96, 256)
    controlnet_conditioning_channel_order: str = "rgb"

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], where: str = "controlnet/config.json"
    ) -> "ControlNetConfig":
        """Reads a `config.json`; a union ControlNet's gives a `ControlNetUnionConfig`.

        Raises:
            HotshotError: the file describes another kind of model or another family, or names the
                key whose value is missing, inconsistent or not supported.
        """
        _check_kind(values, where)
        union = values.get("_class_name") in _UNION_CLASSES or "num_control_type" in values
        config_class = ControlNetUnionConfig if union else ControlNetConfig
        config = read_config(
            config_class,
            values,
            where=where,
            supported=_SUPPORTED,
            irrelevant=ENCODER_IRRELEVANT,
        )
        config.check(where)
        return config

    @classmethod
    def from_unet(
        cls,
        unet: EncoderConfig,
        conditioning_embedding_out_channels: tuple[int, ...] = (16, 32, 96, 256),
    ) -> "ControlNetConfig":
        """The configuration of a ControlNet that starts as a copy of a UNet's way down."""
        shared = {
            field.name: getattr(unet, field.name) for field in dataclasses.fields(EncoderConfig)
        }
        types = tuple(name.replace("3D", "2D") for name in unet.down_block_types)
        return ControlNetConfig(
            **shared | {"down_block_types": types},
            conditioning_embedding_out_channels=conditioning_embedding_out_channels,
        )

    @property
    def mid_cross_attention(self) -> bool:
        """Whether the mid block has a spatial transformer."""
        return _MID_BLOCKS[self.mid_block_type]

    @property
    def size_ratio(self) -> int:
        """Pixels of a control frame for one latent, in height and in width."""
        return 2 ** (len(self.conditioning_embedding_out_channels) - 1)

    def check(self, where: str) -> None:
        """Checks that the values fit together.

        Raises:
            HotshotError: names `where` and the key that is inconsistent or not supported.
        """
        self.check_encoder(where)
        if self.mid_block_type not in _MID_BLOCKS:
            raise HotshotError(
                f"{where}: mid_block_type = {self.mid_block_type!r} is not supported "
                f"(expected {' or '.join(_MID_BLOCKS)})."
            )
        order = self.controlnet_conditioning_channel_order
        if order not in ("rgb", "bgr"):
            raise HotshotError(
                f"{where}: controlnet_conditioning_channel_order = {order!r} is not supported "
                "(expected 'rgb' or 'bgr')."
            )
        if len(self.conditioning_embedding_out_channels) < 1:
            raise HotshotError(f"{where}: conditioning_embedding_out_channels is empty.")

    def check_fits(self, unet: UNet3DConfig, where: str) -> None:
        """Checks that the residuals can be added to those of a UNet.

        Raises:
            HotshotError: names `where` and the first key in which the two differ.
        """
        for key in (
            "block_out_channels",
            "layers_per_block",
            "in_channels",
            "cross_attention_dim",
            "addition_time_embed_dim",
            "projection_class_embeddings_input_dim",
        ):
            ours, theirs = getattr(self, key), getattr(unet, key)
            if ours != theirs:
                raise HotshotError(
                    f"{where}: this ControlNet was made for another UNet: {key} is {ours}, "
                    f"the UNet's {theirs}."
                )

    def check_control_types(self, control_types: tuple[int, ...], where: str) -> None:
        """Checks the kinds of control frames that are asked for: only unions have several.

        Raises:
            UsageError: a control type is given.
        """
        if control_types:
            raise UsageError(
                f"{where}: control type {control_types[0]}, but this is not a union ControlNet; "
                "leave the type out."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControlNetUnionConfig(ControlNetConfig):
    """Shape of a union ControlNet: one model for several kinds of control frames.

    Attributes:
        num_control_type: kinds of control frames that it knows.
        num_trans_channel: width of the transformer over the control frames' features.
        num_trans_head: its heads.
        num_trans_layer: its layers.
        num_proj_channel: width to which its output is mapped.
    """

    conditioning_embedding_out_channels: tuple[int, ...] = (48, 96, 192, 384)
    num_control_type: int = 6
    num_trans_channel: int = 320
    num_trans_head: int = 8
    num_trans_layer: int = 1
    num_proj_channel: int = 320

    def check(self, where: str) -> None:
        """Checks that the values fit together.

        Raises:
            HotshotError: names `where` and the key that is inconsistent or not supported.
        """
        super().check(where)
        width = self.block_out_channels[0]
        for key in ("num_trans_channel", "num_proj_channel"):
            if getattr(self, key) != width:
                raise HotshotError(
                    f"{where}: {key} = {getattr(self, key)}; expected {width}, the width of the "
                    "first level."
                )
        if self.num_trans_channel % self.num_trans_head:
            raise HotshotError(
                f"{where}: num_trans_head = {self.num_trans_head} does not divide "
                f"{self.num_trans_channel} channels."
            )

    def check_control_types(self, control_types: tuple[int, ...], where: str) -> None:
        """Checks the kinds of control frames that are asked for.

        Raises:
            UsageError: there is none, or one is out of range or given twice.
        """
        known = f"this union ControlNet has the types 0 to {self.num_control_type - 1}"
        if not control_types:
            raise UsageError(f"{where}: no control type; {known}. Say which the frames are.")
        for kind in control_types:
            if not 0 <= kind < self.num_control_type:
                raise UsageError(f"{where}: control type {kind}; {known}.")
        if len(set(control_types)) < len(control_types):
            raise UsageError(f"{where}: a control type is given twice: {control_types}.")


def _check_kind(values: Mapping[str, Any], where: str) -> None:
    name = values.get("_class_name")
    if name is not None and name not in _PLAIN_CLASSES | _UNION_CLASSES:
        raise HotshotError(
            f"{where}: the configuration of a {name}; expected an SDXL ControlNet "
            "(ControlNetModel or ControlNetUnionModel)."
        )
    family = _OTHER_FAMILIES.get(values.get("cross_attention_dim", 0))
    if values.get("addition_embed_type") is None and family is not None:
        raise HotshotError(
            f"{where}: this is a ControlNet for {family} (cross_attention_dim "
            f"{values['cross_attention_dim']}); Hotshot-XL needs one for SDXL "
            "(cross_attention_dim 2048)."
        )
