"""The former place of `convert.tensors.tensor_source`, by which scripts know it."""

from hotshot_jax.convert.tensors.tensor_source import (
    TensorSource as TensorSource,
    open_file as open_file,
)
