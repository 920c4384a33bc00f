"""Which model each component of a checkpoint is, and how it is built from its `config.json`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
from flax import nnx

from hotshot_jax.convert.load import abstract
from hotshot_jax.convert.tensors.rules import torch_slots
from hotshot_jax.errors import HotshotError
from hotshot_jax.models import (
    AutoencoderKL,
    AutoencoderKLConfig,
    CLIPTextConfig,
    CLIPTextModel,
    UNet3DConditionModel,
    UNet3DConfig,
)
from hotshot_jax.models.controlnet.config import ControlNetConfig
from hotshot_jax.models.controlnet.union import controlnet_class

_LONGEST_REASON = 160

Build = Callable[[nnx.Rngs], nnx.Module]


@dataclasses.dataclass(frozen=True)
class ComponentKind:
    """A configuration class and the model class that takes it."""

    config: Any
    model: Any


KINDS: Mapping[str, ComponentKind] = {
    "text_encoder": ComponentKind(CLIPTextConfig, CLIPTextModel),
    "text_encoder_2": ComponentKind(CLIPTextConfig, CLIPTextModel),
    "unet": ComponentKind(UNet3DConfig, UNet3DConditionModel),
    "vae": ComponentKind(AutoencoderKLConfig, AutoencoderKL),
}
"""The models of a checkpoint by the name of their folder."""


def _controlnet(config: ControlNetConfig, **options: Any) -> nnx.Module:
    return controlnet_class(config)(config, **options)


CONTROLNET = "controlnet"
_BUILT = {**KINDS, CONTROLNET: ComponentKind(ControlNetConfig, _controlnet)}


def model_builder(
    component: str,
    config: Mapping[str, Any],
    *,
    where: str,
    dtype: Any = jnp.float32,
    param_dtype: Any = jnp.float32,
) -> Build:
    """A function that builds a component from random streams.

    Args:
        component: a key of `KINDS`, or `CONTROLNET`.
        config: the content of its `config.json`.
        where: the path of that file, for messages.
        dtype: compute dtype.
        param_dtype: dtype of the parameters.

    Raises:
        HotshotError: names the key of the configuration that is missing or not supported. What
            is returned raises it too, where the values do not make a model.
    """
    kind = _BUILT[component]
    with _impossible_values(where):
        parsed = kind.config.from_dict(config, where)

    def build(rngs: nnx.Rngs) -> nnx.Module:
        with _impossible_values(where):
            return kind.model(parsed, rngs=rngs, dtype=dtype, param_dtype=param_dtype)

    return build


@contextlib.contextmanager
def _impossible_values(where: str) -> Iterator[None]:
    """Names the file whose values are of another type than a model can be built from.

    Configurations check what people change; a text where a number should be, or widths that do not
    divide, show only in the arithmetic on them.
    """
    try:
        yield
    except (TypeError, ValueError, AttributeError, ArithmeticError, LookupError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        if len(reason) > _LONGEST_REASON:
            reason = f"{reason[:_LONGEST_REASON]} ..."
        raise HotshotError(
            f"{where}: no model can be built from these values ({reason}); download the file again."
        ) from error


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
