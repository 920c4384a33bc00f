"""Which of a UNet's parameters belong to its temporal layers, by name; needs no JAX."""

TEMPORAL = "temporal_attentions"
"""The list of a block's temporal layers, in PyTorch's names and in paths."""


def is_temporal(name: str) -> bool:
    """Whether a module or parameter, by PyTorch's name, belongs to a temporal layer."""
    return f".{TEMPORAL}." in f".{name}."
