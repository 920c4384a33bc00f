"""How PyTorch's tensor names and layouts correspond to the parameters of our models.

Module paths are the same on both sides, so all of it follows from the path of a parameter:

- the last part is `weight` in PyTorch for `kernel`, `scale` and `embedding`;
- linear kernels are transposed, convolution kernels are OIHW in PyTorch and HWIO here;
- a stack (a list name followed by something that is not a number) is one parameter with a leading
  axis here and one tensor a layer in PyTorch.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from flax import nnx, traverse_util

TEMPORAL = "temporal_attentions"
"""The list of a block's temporal layers, in PyTorch's names and in paths."""


def is_temporal(name: str) -> bool:
    """Whether a module or parameter, by PyTorch's name, belongs to a temporal layer."""
    return f".{TEMPORAL}." in f".{name}."


Path = tuple[Any, ...]

STACKS = frozenset({"transformer_blocks", "layers"})
POSITIONAL_TABLE = "pos_encoder.positional_encoding"

# Attentions of the VAE had other names before diffusers 0.17.
_OLD_ATTENTION = {
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}
# Known tensors that no model here has: indices and a temperature of CLIP, what a VAE was trained
# with.
_NO_WEIGHT_ENDINGS = ("position_ids", "logit_scale")
_NO_WEIGHT_START = "loss."

_WEIGHTS = frozenset({"kernel", "scale", "embedding"})


@dataclasses.dataclass(frozen=True)
class Slot:
    """Where one PyTorch tensor goes.

    Attributes:
        name: PyTorch's name.
        shape: PyTorch's shape.
        path: path of the parameter here.
        layer: index along the parameter's leading axis, None where it is not stacked.
        axes: permutation that takes PyTorch's axes to ours.
    """

    name: str
    shape: tuple[int, ...]
    path: Path
    layer: int | None
    axes: tuple[int, ...]

    def to_flax(self, tensor: np.ndarray) -> np.ndarray:
        """PyTorch's tensor in our layout; a view."""
        return tensor.transpose(self.axes)

    def to_torch(self, parameter: np.ndarray) -> np.ndarray:
        """The inverse of `to_flax`, from the whole (possibly stacked) parameter; a view."""
        layer = parameter if self.layer is None else parameter[self.layer]
        return layer.transpose(np.argsort(self.axes))


def current_attention_name(name: str) -> str:
    """The name that a tensor has in current diffusers, where older files spell attentions so."""
    if ".attentions." in name:
        for old, new in _OLD_ATTENTION.items():
            name = name.replace(old, new)
    return name


def is_no_weight(name: str) -> bool:
    """Whether a tensor is none that any model here has."""
    return name.endswith(_NO_WEIGHT_ENDINGS) or name.startswith(_NO_WEIGHT_START)


def is_spare(name: str) -> bool:
    """Whether a tensor that has no place in a model can be passed over without a word.

    Args:
        name: its name in the component, one that the model does not have. A projection beside an
            encoder that is used without one is among these.
    """
    return is_no_weight(name) or name.startswith("text_projection")


def flat_parameters(module: Any) -> dict[Path, Any]:
    """The parameters of a (concrete or abstract) module by path, without their variables."""
    return traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(module, nnx.Param)))


def torch_slots(module: Any) -> dict[str, Slot]:
    """The PyTorch tensors that fill the parameters of a (concrete or abstract) module, by name."""
    return {
        slot.name: slot
        for path, parameter in flat_parameters(module).items()
        for slot in _slots(path, tuple(parameter.shape))
    }


def _slots(path: Path, shape: tuple[int, ...]) -> Iterator[Slot]:
    *modules, leaf = path
    parts = [str(part) for part in modules]
    stack = next(
        (
            index
            for index, (part, following) in enumerate(itertools.pairwise(parts))
            if part in STACKS and not following.isdigit()
        ),
        None,
    )
    layers = [None] if stack is None else list(range(shape[0]))
    layer_shape = shape if stack is None else shape[1:]
    axes = _axes(leaf, len(layer_shape))
    torch_shape = tuple(layer_shape[axis] for axis in np.argsort(axes))
    leaf_name = "weight" if leaf in _WEIGHTS else str(leaf)
    for layer in layers:
        named = list(parts)
        if stack is not None:
            named.insert(stack + 1, str(layer))
        yield Slot(".".join([*named, leaf_name]), torch_shape, path, layer, axes)


def _axes(leaf: str, rank: int) -> tuple[int, ...]:
    of_kernel = {2: (1, 0), 4: (2, 3, 1, 0)}
    unchanged = tuple(range(rank))
    return of_kernel.get(rank, unchanged) if leaf == "kernel" else unchanged
