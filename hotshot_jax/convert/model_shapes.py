"""The tensors of a model, by PyTorch's names, from its configuration alone."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from hotshot_jax.convert.builders import KINDS
from hotshot_jax.convert.load import abstract
from hotshot_jax.convert.tensors.rules import torch_slots

Shapes = Mapping[str, tuple[int, ...]]
"""PyTorch's shape of each tensor of a model, by PyTorch's name."""


def model_shapes(component: str, config: Mapping[str, Any], *, where: str) -> Shapes:
    """The tensors that fill a component; a UNet's temporal layers are among them.

    Args:
        component: "unet", "text_encoder", "text_encoder_2" or "vae".
        config: the content of its `config.json`.
        where: the path of that file, for messages.

    Raises:
        HotshotError: names the key of the configuration that is missing or not supported.
    """
    return _shapes(component, KINDS[component].config.from_dict(config, where))


@functools.lru_cache(maxsize=8)
def _shapes(component: str, config: Any) -> Shapes:
    # Tracing a model takes a second, and its shapes are asked for by every file that is opened.
    module = abstract(lambda rngs: KINDS[component].model(config, rngs=rngs))
    return MappingProxyType({name: slot.shape for name, slot in torch_slots(module).items()})
