"""Names and layouts of the original SDXL code (LDM / SGM), in which single files are published.

Every table is built from the tensor names of a model of this package, so that a tensor of the model
without a place in the file, or two with the same place, cannot go unnoticed. The correspondence is
a fact of the two code bases (https://github.com/Stability-AI/generative-models and diffusers):

- UNet: blocks are numbered through, three to a level; a level's attention and sampler follow its
  resnet within the block.
- CLIP-L: transformers' own names. OpenCLIP bigG: query, key and value are one matrix and the
  projection is transposed.
- VAE: the decoder's levels are counted from the pixels; the attention's matrices are 1 x 1
  convolutions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from hotshot_jax.convert.tensors.rules import is_temporal
from hotshot_jax.convert.tensors.tensor_source import LazyTensor, TensorSource
from hotshot_jax.errors import HotshotError

UNET = "unet"
TEXT_ENCODER = "text_encoder"
TEXT_ENCODER_2 = "text_encoder_2"
VAE = "vae"

PREFIXES: Mapping[str, str] = {
    UNET: "model.diffusion_model.",
    TEXT_ENCODER: "conditioner.embedders.0.transformer.",
    TEXT_ENCODER_2: "conditioner.embedders.1.model.",
    VAE: "first_stage_model.",
}
"""What the keys of each component start with in a single file."""


UNET_EDGES = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_OPEN_CLIP_FUSED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_OPEN_CLIP_EDGES = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}


@dataclasses.dataclass(frozen=True)
class Stored:
    """How one of diffusers' tensors lies in a single file.

    Attributes:
        key: key in the file, without the component's prefix.
        third: which third of the stored tensor's first axis it is; None means all of it.
        transposed: whether the file holds the transpose.
        pointwise: whether the file holds the matrix as a 1 x 1 convolution.
    """

    key: str
    third: int | None = None
    transposed: bool = False
    pointwise: bool = False

    def take(self, stored: LazyTensor, name: str) -> LazyTensor:
        """The tensor called `name` that `stored` holds, read when asked for.

        Raises:
            HotshotError: a fused tensor cannot be split in three.
        """
        shape = stored.shape
        if self.third is not None:
            if not shape or shape[0] % 3:
                raise HotshotError(
                    f"{stored.file}: {stored.name} has shape {list(shape)}; expected query, key "
                    "and value along the first axis."
                )
            shape = (shape[0] // 3, *shape[1:])
        if self.pointwise and len(shape) == 4:
            shape = shape[:2]
        if self.transposed:
            shape = shape[::-1]
        return stored.mapped(name, shape, lambda tensor: self._split(tensor).reshape(shape))

    def _split(self, tensor: np.ndarray) -> np.ndarray:
        if self.third is not None:
            rows = tensor.shape[0] // 3
            tensor = tensor[self.third * rows : (self.third + 1) * rows]
        return tensor.T if self.transposed else tensor


Table = dict[str, Stored]
"""Where each tensor lies, by diffusers' name."""


def unet_table(names: Iterable[str]) -> Table:
    """The spatial tensors of a UNet.

    Args:
        names: diffusers' names of all tensors of the model; temporal ones are left out, since the
            layout has no place for them.
    """
    module_of = unet_modules(name.rpartition(".")[0] for name in names)
    table = {}
    for name in names:
        module, _, leaf = name.rpartition(".")
        if module in module_of:
            table[name] = Stored(f"{module_of[module]}.{leaf}")
    return table


def unet_modules(modules: Iterable[str]) -> dict[str, str]:
    """The original name of each spatial module of a UNet, by diffusers' name.

    Raises:
        ValueError: a module has no place in the original layout.
    """
    spatial = dict.fromkeys(module for module in modules if not is_temporal(module))
    layers = 1 + max(
        (int(m.split(".")[3]) for m in spatial if m.startswith("down_blocks.0.resnets.")), default=0
    )
    attending = {m.split(".")[1] for m in spatial if _is_attention_of(m, "up_blocks")}
    return {module: _unet_module(module, layers, attending) for module in spatial}


def _is_attention_of(module: str, blocks: str) -> bool:
    parts = module.split(".")
    return parts[0] == blocks and parts[2:3] == ["attentions"]


def _unet_module(module: str, layers: int, attending: set[str]) -> str:
    if module in UNET_EDGES:
        return UNET_EDGES[module]
    match module.split("."):
        case ["down_blocks", level, "resnets", layer, leaf]:
            return (
                f"input_blocks.{(layers + 1) * int(level) + int(layer) + 1}.0.{UNET_RESNET[leaf]}"
            )
        case ["down_blocks", level, "attentions", layer, *rest]:
            index = (layers + 1) * int(level) + int(layer) + 1
            return ".".join([f"input_blocks.{index}.1", *rest])
        case ["down_blocks", level, "downsamplers", "0", "conv"]:
            return f"input_blocks.{(layers + 1) * (int(level) + 1)}.0.op"
        case ["mid_block", "resnets", layer, leaf]:
            return f"middle_block.{2 * int(layer)}.{UNET_RESNET[leaf]}"
        case ["mid_block", "attentions", "0", *rest]:
            return ".".join(["middle_block.1", *rest])
        case ["up_blocks", level, "resnets", layer, leaf]:
            return f"output_blocks.{(layers + 1) * int(level) + int(layer)}.0.{UNET_RESNET[leaf]}"
        case ["up_blocks", level, "attentions", layer, *rest]:
            return ".".join([f"output_blocks.{(layers + 1) * int(level) + int(layer)}.1", *rest])
        case ["up_blocks", level, "upsamplers", "0", "conv"]:
            position = 2 if level in attending else 1
            return f"output_blocks.{(layers + 1) * int(level) + layers}.{position}.conv"
    raise ValueError(f"{module} has no place in the original UNet")


def text_encoder_table(names: Iterable[str]) -> Table:
    """The first text encoder, which keeps transformers' names."""
    return {name: Stored(name) for name in names}


def text_encoder_2_table(names: Iterable[str]) -> Table:
    """The second text encoder, in OpenCLIP's names.

    Raises:
        ValueError: a tensor has no place in OpenCLIP's layout.
    """
    return {name: _open_clip(name) for name in names}


def _open_clip(name: str) -> Stored:
    if name == "text_projection.weight":
        return Stored("text_projection", transposed=True)
    if name in _OPEN_CLIP_EDGES:
        return Stored(_OPEN_CLIP_EDGES[name])
    match name.split("."):
        case ["text_model", "encoder", "layers", layer, *rest, leaf]:
            module, block = ".".join(rest), f"transformer.resblocks.{layer}"
            if module in _OPEN_CLIP_FUSED:
                third = _OPEN_CLIP_FUSED.index(module)
                return Stored(f"{block}.attn.in_proj_{leaf}", third=third)
            if module in _OPEN_CLIP_LAYER:
                return Stored(f"{block}.{_OPEN_CLIP_LAYER[module]}.{leaf}")
    raise ValueError(f"{name} has no place in OpenCLIP's layout")


def vae_table(names: Iterable[str]) -> Table:
    """The VAE.

    Raises:
        ValueError: a tensor has no place in the original layout.
    """
    names = list(names)
    top = max(
        (int(n.split(".")[2]) for n in names if n.startswith("decoder.up_blocks.")), default=0
    )
    return {name: _vae(name, top) for name in names}


def _vae(name: str, top: int) -> Stored:
    module, _, leaf = name.rpartition(".")
    match module.split("."):
        case ["quant_conv" | "post_quant_conv"] | [_, "conv_in" | "conv_out"]:
            return Stored(name)
        case [half, "conv_norm_out"]:
            return Stored(f"{half}.norm_out.{leaf}")
        case [half, "mid_block", "attentions", "0", *rest]:
            part = ".".join(rest)
            pointwise = part != "group_norm" and leaf == "weight"
            return Stored(f"{half}.mid.attn_1.{_VAE_ATTENTION[part]}.{leaf}", pointwise=pointwise)
        case [half, "mid_block", "resnets", layer, part]:
            return Stored(f"{half}.mid.block_{int(layer) + 1}.{_vae_resnet(part)}.{leaf}")
        case ["encoder", "down_blocks", level, "resnets", layer, part]:
            return Stored(f"encoder.down.{level}.block.{layer}.{_vae_resnet(part)}.{leaf}")
        case ["encoder", "down_blocks", level, "downsamplers", "0", "conv"]:
            return Stored(f"encoder.down.{level}.downsample.conv.{leaf}")
        case ["decoder", "up_blocks", level, "resnets", layer, part]:
            block = f"decoder.up.{top - int(level)}.block.{layer}"
            return Stored(f"{block}.{_vae_resnet(part)}.{leaf}")
        case ["decoder", "up_blocks", level, "upsamplers", "0", "conv"]:
            return Stored(f"decoder.up.{top - int(level)}.upsample.conv.{leaf}")
    raise ValueError(f"{name} has no place in the original VAE")


def _vae_resnet(part: str) -> str:
    return "nin_shortcut" if part == "conv_shortcut" else part


TABLES: Mapping[str, Callable[[Iterable[str]], Table]] = {
    UNET: unet_table,
    TEXT_ENCODER: text_encoder_table,
    TEXT_ENCODER_2: text_encoder_2_table,
    VAE: vae_table,
}


def from_single_file(component: str, stored: TensorSource, names: Iterable[str]) -> TensorSource:
    """A component's tensors under diffusers' names.

    Args:
        component: "unet", "text_encoder", "text_encoder_2" or "vae".
        stored: the component's tensors as the file names them, prefix removed.
        names: diffusers' names of the model's tensors; those that the file lacks are left out.

    Raises:
        HotshotError: a fused tensor cannot be split.
    """
    table = TABLES[component](list(names))
    found = (
        place.take(stored[place.key], name) for name, place in table.items() if place.key in stored
    )
    return TensorSource(found, stored.path, stored.metadata)
