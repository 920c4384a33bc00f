"""Rematerialisation (gradient checkpointing): computing activations again on the way back.

Chen et al., 2016, https://arxiv.org/abs/1604.06174. The less is kept, the more is computed twice.
"""

from typing import Any

import jax
from flax import nnx

from hotshot_jax.choices import REMATERIALISATIONS
from hotshot_jax.errors import UsageError
from hotshot_jax.models.clip import CLIPEncoder

_LISTS = ("resnets", "attentions", "temporal_attentions")


def _products(primitive: Any, *shapes: Any, **parameters: Any) -> bool:
    """Whether the result of an operation is kept: of linear layers and convolutions alone.

    The products within attention are left out: they are as large as queries times keys.
    """
    if primitive is jax.lax.conv_general_dilated_p:
        return True
    return jax.checkpoint_policies.dots_with_no_batch_dims_saveable(
        primitive, *shapes, **parameters
    )


_POLICIES = {"blocks": None, "dots": _products, "full": None}


class Recomputed(nnx.Module):
    """A layer whose activations are not kept for the backward pass.

    Args:
        layer: the layer.
        policy: tells what is kept all the same, as `jax.checkpoint` takes it.
    """

    def __init__(self, layer: Any, policy: Any = None):
        self.layer = layer
        self.policy = policy

    def __call__(self, *arguments: Any) -> Any:
        """What the layer gives."""
        run = jax.checkpoint(lambda layer, given: layer(*given), policy=self.policy)
        return run(self.layer, arguments)

    def project_text(self, text: jax.Array) -> Any:
        """As the spatial transformers have it."""
        return self.layer.project_text(text)


class _RecomputedBlock(Recomputed):
    @property
    def attn2(self) -> Any:
        """As the text is projected by."""
        return self.layer.attn2


def rematerialise(model: nnx.Module, name: str) -> None:
    """Makes a model keep less for its backward pass; changes the model, not its results.

    Args:
        model: a UNet, one with a ControlNet, or a text encoder, put together within the function
            that is differentiated.
        name: one of `choices.REMATERIALISATIONS`. "none" keeps everything. "blocks" keeps the input
            of every resnet and transformer, and of every layer of a text encoder. "dots" keeps,
            besides these, what linear layers and convolutions give, so that only the cheap
            operations are computed again. "full" keeps the same as "blocks", and while a
            transformer is computed again only the inputs of its inner blocks.

    Raises:
        UsageError: the name is unknown.
    """
    if name not in REMATERIALISATIONS:
        raise UsageError(
            f"rematerialisation {name!r} is unknown; expected {', '.join(REMATERIALISATIONS)}."
        )
    if name == "none":
        return
    policy = _POLICIES[name]
    blocks = [
        (part, list_name)
        for _, part in nnx.iter_modules(model)
        for list_name in _LISTS
        if hasattr(part, list_name)
    ]
    for _, part in nnx.iter_modules(model):
        if isinstance(part, CLIPEncoder):
            stacked: Any = Recomputed(part.layers, policy)
            part.layers = stacked
    for block, list_name in blocks:
        layers: list[Any] = list(getattr(block, list_name))
        if name == "full":
            for layer in layers:
                _recompute_inner_blocks(layer)
        setattr(block, list_name, nnx.List([Recomputed(layer, policy) for layer in layers]))


def _recompute_inner_blocks(layer: Any) -> None:
    blocks = getattr(layer, "transformer_blocks", None)
    if blocks is None:
        return
    if isinstance(blocks, nnx.List):
        layer.transformer_blocks = nnx.List([Recomputed(block) for block in blocks])
    else:
        # Stacked: `jax.lax.scan` hands out one block at a time, wrapper and all.
        layer.transformer_blocks = _RecomputedBlock(blocks)
