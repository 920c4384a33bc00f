"""Gradient checkpointing: layers are computed again on the way back instead of being kept."""

from typing import Any

import jax
from flax import nnx

from hotshot_jax.models import UNet3DConditionModel

_LISTS = ("resnets", "attentions", "temporal_attentions")


class Recomputed(nnx.Module):
    """A layer whose activations are not kept for the backward pass."""

    def __init__(self, layer: Any):
        self.layer = layer

    def __call__(self, *arguments: Any) -> Any:
        """What the layer gives."""
        return jax.checkpoint(lambda layer, given: layer(*given))(self.layer, arguments)

    def project_text(self, text: jax.Array) -> Any:
        """As the spatial transformers have it."""
        return self.layer.project_text(text)


def recompute_layers(unet: UNet3DConditionModel) -> None:
    """Makes every resnet and transformer of a UNet recompute its activations; changes the UNet."""
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        for name in _LISTS:
            if hasattr(block, name):
                layers = [Recomputed(layer) for layer in getattr(block, name)]
                setattr(block, name, nnx.List(layers))
