"""Small ControlNets of SDXL's proportions, as tensors in either spelling."""

from typing import Any

import numpy as np

from hotshot_jax.convert.builders import CONTROLNET, model_builder
from hotshot_jax.convert.formats.ldm_names import unet_modules
from hotshot_jax.convert.load import abstract
from hotshot_jax.convert.tensors.rules import torch_slots

CONFIG: dict[str, Any] = {
    "_class_name": "ControlNetModel",
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "attention_head_dim": [1, 2, 2],
    "block_out_channels": [64, 128, 128],
    "conditioning_embedding_out_channels": [4, 6, 8, 10],
    "cross_attention_dim": 48,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "layers_per_block": 2,
    "projection_class_embeddings_input_dim": 6 * 256 + 40,
    "transformer_layers_per_block": [1, 1, 2],
    "use_linear_projection": True,
}


def controlnet_tensors(dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Random tensors of that configuration, by diffusers' names."""
    module = abstract(model_builder(CONTROLNET, CONFIG, where="test"))
    random = np.random.default_rng(0)
    return {
        name: (0.1 * random.standard_normal(slot.shape, np.float32)).astype(dtype)
        for name, slot in torch_slots(module).items()
    }


def original_names(names: Any, prefix: str = "control_model.") -> dict[str, str]:
    """The original code's name of each tensor, written down once more from its source."""
    own = ("controlnet_cond_embedding.", "controlnet_down_blocks.", "controlnet_mid_block")
    modules = unet_modules(name.rpartition(".")[0] for name in names if not name.startswith(own))
    modules |= {
        "controlnet_cond_embedding.conv_in": "input_hint_block.0",
        "controlnet_cond_embedding.conv_out": "input_hint_block.14",
        "controlnet_mid_block": "middle_block_out.0",
    }
    modules |= {
        f"controlnet_cond_embedding.blocks.{i}": f"input_hint_block.{2 * i + 2}" for i in range(6)
    }
    modules |= {f"controlnet_down_blocks.{i}": f"zero_convs.{i}.0" for i in range(9)}
    split = (name.rpartition(".") for name in names)
    return {f"{module}.{leaf}": f"{prefix}{modules[module]}.{leaf}" for module, _, leaf in split}
