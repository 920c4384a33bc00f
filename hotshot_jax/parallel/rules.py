"""How parameters lie on the mesh: one table, the first rule that matches counts.

The table says which axis of a parameter is split over the mesh axis `tensor`. Over `fsdp` goes the
largest of the other axes of every kernel and table; vectors are too small to be worth a gather.
`data` and `frames` split no parameter.
"""

import dataclasses
import itertools
import re
from collections.abc import Mapping
from typing import Any

from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Path = tuple[Any, ...]

# Lists of layers that are one stacked module when no number follows in the path.
_STACKS = frozenset({"transformer_blocks", "layers"})

WHOLE: tuple[str | None, ...] = ()
HEADS = "heads"
"""Stands for the mesh axis `tensor`, and says that only whole attention heads may be split off."""

# A column-split layer gives each device some of the channels, a row-split one takes them up again
# and sums: between the two nothing is communicated (Megatron-LM, https://arxiv.org/abs/1909.08053).
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    # The VAE splits images over all devices instead.
    (r"^(encoder|decoder|quant_conv|post_quant_conv)/", WHOLE),
    # ControlNets: what comes before and after the layers that they share with the UNet. The name
    # that is misspelt is the published one.
    (r"^controlnet_", WHOLE),
    (r"^(task_embedding|transformer_layes|spatial_ch_projs)(/|$)", WHOLE),
    # Attention by heads: spatial, temporal, and in the text encoders.
    (r"/(to_q|to_k|to_v|q_proj|k_proj|v_proj)/kernel$", (None, HEADS)),
    (r"/(to_q|to_k|to_v|q_proj|k_proj|v_proj)/bias$", (HEADS,)),
    (r"/(to_out/0|out_proj)/kernel$", (HEADS, None)),
    (r"/(to_out/0|out_proj)/bias$", WHOLE),
    # Feed-forward. GEGLU's projection holds value and gate side by side, so its columns cannot stay
    # where they are stored; it is stored by rows and exchanged where it is used.
    (r"/ff/net/0/proj/kernel$", ("tensor", None)),
    (r"/ff/net/0/proj/bias$", WHOLE),
    (r"/ff/net/2/kernel$", ("tensor", None)),
    (r"/ff/net/2/bias$", WHOLE),
    (r"/mlp/fc1/kernel$", (None, "tensor")),
    (r"/mlp/fc1/bias$", ("tensor",)),
    (r"/mlp/fc2/kernel$", ("tensor", None)),
    (r"/mlp/fc2/bias$", WHOLE),
    # Residual blocks by channels, between their two convolutions.
    (r"/resnets/\d+/conv1/kernel$", (None, None, None, "tensor")),
    (r"/resnets/\d+/(conv1|time_emb_proj|norm2)/(bias|scale)$", ("tensor",)),
    (r"/resnets/\d+/time_emb_proj/kernel$", (None, "tensor")),
    (r"/resnets/\d+/conv2/kernel$", (None, None, "tensor", None)),
    # What joins these: norms, residual and skip connections, embeddings.
    (r"norm(s/)?\d*/(scale|bias)$", WHOLE),
    (r"norm_out/(scale|bias)$", WHOLE),
    (r"(conv\w*|proj_in|proj_out)/(kernel|bias)$", WHOLE),
    (r"embedding/(embedding|linear_[12]/(kernel|bias))$", WHOLE),
    (r"^text_projection/kernel$", WHOLE),
)


class UnmatchedParametersError(ValueError):
    """The table of sharding rules does not cover a model: a bug in the table."""


@dataclasses.dataclass(frozen=True)
class _Parameter:
    path: Path
    shape: tuple[int, ...]
    heads: int | None
    """Of the attention layer that the parameter belongs to."""

    @property
    def name(self) -> str:
        return "/".join(str(part) for part in self.path)


def parameter_shardings(module: nnx.Module, mesh: Mesh) -> dict[Path, NamedSharding]:
    """Where each parameter of a (concrete or abstract) module goes.

    An axis that the mesh does not divide stays whole. What a stacked module adds in front, one
    entry for each layer, is never split: layers are used one after another.

    Args:
        module: the model.
        mesh: with the axes of `MeshConfig`.

    Returns:
        A sharding by path, with the paths of `convert.rules.flat_parameters`.

    Raises:
        UnmatchedParametersError: lists the parameters that no rule matches.
    """
    parameters = _parameters(module)
    matched = {parameter: _match(parameter.name) for parameter in parameters}
    missing = [parameter.name for parameter, spec in matched.items() if spec is None]
    if missing:
        raise UnmatchedParametersError(
            f"no sharding rule matches {len(missing)} parameters: {', '.join(missing)}"
        )
    return {
        parameter.path: NamedSharding(mesh, _partition(parameter, spec, dict(mesh.shape)))
        for parameter, spec in matched.items()
        if spec is not None
    }


def state_shardings(module: nnx.Module, mesh: Mesh) -> nnx.State:
    """The same in the form of `nnx.state(module, nnx.Param)`, as `out_shardings` take it."""
    shardings = parameter_shardings(module, mesh)
    state = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return nnx.from_flat_state([(path, leaf.replace(shardings[path])) for path, leaf in state])


def _parameters(module: nnx.Module) -> list[_Parameter]:
    heads = {
        tuple(path): heads
        for path, part in nnx.iter_modules(module)
        if isinstance(heads := getattr(part, "heads", None), int)
    }
    return [
        _Parameter(tuple(path), tuple(leaf.shape), _heads_above(tuple(path), heads))
        for path, leaf in nnx.to_flat_state(nnx.state(module, nnx.Param))
    ]


def _heads_above(path: Path, heads: Mapping[Path, int]) -> int | None:
    prefixes = (path[:end] for end in range(len(path), 0, -1))
    return next((heads[prefix] for prefix in prefixes if prefix in heads), None)


def _match(name: str) -> tuple[str | None, ...] | None:
    return next((spec for pattern, spec in RULES if re.search(pattern, name)), None)


def _partition(
    parameter: _Parameter, spec: tuple[str | None, ...], sizes: Mapping[str, int]
) -> PartitionSpec:
    shape = parameter.shape
    first = int(_is_stacked(parameter.path))
    axes: list[str | None] = [None] * len(shape)
    for position, axis in enumerate(spec, start=first):
        parts = parameter.heads if axis == HEADS else shape[position]
        if axis is not None and parts is not None and parts % sizes["tensor"] == 0:
            axes[position] = "tensor"
    free = [
        position
        for position in range(first, len(shape))
        if axes[position] is None and shape[position] % sizes["fsdp"] == 0
    ]
    if len(shape) - first > 1 and free:
        axes[max(free, key=lambda position: (shape[position], position))] = "fsdp"
    return PartitionSpec(*(axis if axis and sizes[axis] > 1 else None for axis in axes))


def _is_stacked(path: Path) -> bool:
    return any(
        part in _STACKS and not str(following).isdigit()
        for part, following in itertools.pairwise(path)
    )
