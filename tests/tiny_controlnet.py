"""ControlNets for the tiny checkpoint, as diffusers saves them."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hotshot_jax.convert.formats.to_torch import write_component
from hotshot_jax.convert.load import abstract, with_parameters
from hotshot_jax.convert.tensors.rules import flat_parameters
from hotshot_jax.models.controlnet.config import ControlNetConfig
from hotshot_jax.models.controlnet.union import controlnet_class
from hotshot_jax.models.unet.config import UNet3DConfig
from tests.tiny_checkpoint import tiny_configs


def tiny_controlnet_config(**changes: Any) -> dict[str, Any]:
    """The content of the `config.json` of a ControlNet that fits the tiny checkpoint."""
    unet = UNet3DConfig.from_dict(tiny_configs()["unet"], "unet")
    config = ControlNetConfig.from_unet(unet, (4, 8, 8, 16))
    return {
        "_class_name": "ControlNetModel",
        "addition_embed_type": "text_time",
        **dataclasses.asdict(config),
        **changes,
    }


UNION: dict[str, Any] = {
    "_class_name": "ControlNetUnionModel",
    "num_control_type": 3,
    "num_trans_channel": 32,
    "num_trans_head": 2,
    "num_trans_layer": 1,
    "num_proj_channel": 32,
}
"""What `write_tiny_controlnet` takes for a union ControlNet of three types."""


def write_tiny_controlnet(folder: Path, seed: int, **changes: Any) -> Path:
    """Writes a ControlNet with random weights to `folder`, and returns the folder."""
    values = tiny_controlnet_config(**changes)
    config = ControlNetConfig.from_dict(values, str(folder))
    model = controlnet_class(config)
    module = abstract(lambda rngs: model(config, rngs=rngs))
    generator = np.random.default_rng(seed)
    # Not zero anywhere: a new ControlNet's outputs would be, and it would change nothing.
    parameters = {
        path: jax.device_put(0.2 * generator.standard_normal(leaf.shape, np.float32))
        for path, leaf in flat_parameters(module).items()
    }
    write_component(folder, "controlnet", values, with_parameters(module, parameters))
    return folder
