"""The configuration of a ControlNet that comes as a single file, without a `config.json`."""

import re
from collections.abc import Mapping
from typing import Any, Final

from hotshot_jax.errors import HotshotError

Shapes = Mapping[str, tuple[int, ...]]

# What no shape tells: every published SDXL ControlNet has these.
_HEAD_CHANNELS: Final = 64
_TIME_EMBED_DIM: Final = 256
_TEXT_CHANNELS: Final = 2048


def config_values(shapes: Shapes, where: str) -> dict[str, Any]:
    """The `config.json` that belongs to a ControlNet's tensors, as diffusers would write it.

    Heads are taken to be 64 wide, as they are in SDXL: no shape tells.

    Args:
        shapes: PyTorch's shape of each tensor, by diffusers' names.
        where: the file, for messages.

    Raises:
        HotshotError: the tensors are not those of an SDXL ControlNet.
    """
    _check_family(shapes, where)
    levels = 1 + max(_indices(shapes, r"down_blocks\.(\d+)\."))
    widths = [shapes[f"down_blocks.{i}.resnets.0.conv1.weight"][0] for i in range(levels)]
    crossed = [
        bool(_indices(shapes, rf"down_blocks\.{i}\.attentions\.(\d+)\.")) for i in range(levels)
    ]
    depths = [_depth(shapes, f"down_blocks.{i}") for i in range(levels)]
    mid_crossed = "mid_block.attentions.0.norm.weight" in shapes
    if mid_crossed:
        depths[-1] = _depth(shapes, "mid_block")
    if any(width % _HEAD_CHANNELS for width in widths):
        raise HotshotError(
            f"{where}: the widths {widths} are not SDXL's, so the number of heads is unknown; "
            "give the folder with the config.json instead of the file."
        )
    values: dict[str, Any] = {
        "_class_name": "ControlNetModel",
        "addition_embed_type": "text_time",
        "use_linear_projection": True,
        "block_out_channels": widths,
        "down_block_types": [
            "CrossAttnDownBlock2D" if cross_attention else "DownBlock2D"
            for cross_attention in crossed
        ],
        "mid_block_type": "UNetMidBlock2DCrossAttn" if mid_crossed else "UNetMidBlock2D",
        "attention_head_dim": [width // _HEAD_CHANNELS for width in widths],
        "transformer_layers_per_block": depths,
        "layers_per_block": len(_indices(shapes, r"down_blocks\.0\.resnets\.(\d+)\.")),
        "in_channels": shapes["conv_in.weight"][1],
        "cross_attention_dim": _text_channels(shapes),
        "addition_time_embed_dim": _TIME_EMBED_DIM,
        "projection_class_embeddings_input_dim": shapes["add_embedding.linear_1.weight"][1],
        "conditioning_channels": shapes["controlnet_cond_embedding.conv_in.weight"][1],
        "conditioning_embedding_out_channels": _embedding_widths(shapes),
    }
    if "task_embedding" in shapes:
        values |= {
            "_class_name": "ControlNetUnionModel",
            "num_control_type": shapes["task_embedding"][0],
            "num_trans_channel": shapes["task_embedding"][1],
            "num_trans_layer": len(_indices(shapes, r"transformer_layes\.(\d+)\.")),
            "num_proj_channel": shapes["spatial_ch_projs.weight"][0],
        }
    return values


def _check_family(shapes: Shapes, where: str) -> None:
    needed = (
        "conv_in.weight",
        "controlnet_cond_embedding.conv_in.weight",
        "down_blocks.0.resnets.0.conv1.weight",
    )
    if "lora_controlnet" in shapes:
        raise HotshotError(f"{where}: this is a Control-LoRA, which is not supported.")
    for name in needed:
        if name not in shapes:
            raise HotshotError(f"{where}: not a ControlNet: there is no tensor {name}.")
    if "add_embedding.linear_1.weight" not in shapes:
        raise HotshotError(
            f"{where}: this is a ControlNet for Stable Diffusion 1.5 or 2 (it takes no sizes); "
            "Hotshot-XL needs one for SDXL."
        )


def _indices(shapes: Shapes, pattern: str) -> set[int]:
    compiled = re.compile(pattern)
    return {int(found[1]) for name in shapes if (found := compiled.match(name))}


def _depth(shapes: Shapes, block: str) -> int:
    return len(_indices(shapes, rf"{block}\.attentions\.0\.transformer_blocks\.(\d+)\."))


def _text_channels(shapes: Shapes) -> int:
    widths = {shape[1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")}
    # The smallest ControlNets do not look at the text at all.
    return widths.pop() if widths else _TEXT_CHANNELS


def _embedding_widths(shapes: Shapes) -> list[int]:
    stem = "controlnet_cond_embedding"
    blocks = sorted(_indices(shapes, rf"{stem}\.blocks\.(\d+)\."))
    first = shapes[f"{stem}.conv_in.weight"][0]
    return [first, *(shapes[f"{stem}.blocks.{i}.weight"][0] for i in blocks[1::2])]
