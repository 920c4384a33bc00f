"""Leaf layers, made with one compute dtype, one storage dtype and one random stream."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
from flax import nnx

from hotshot_jax.models.layers.normalization import GroupNorm, LayerNorm
from hotshot_jax.models.layers.sharding_points import image_by_image


class Conv2d(nnx.Conv):
    """2-D convolution of every frame on its own.

    Takes `[..., height, width, channels]` with any leading axes (batch, frames).
    """

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        """Convolves the last three axes."""
        # nnx.Conv merges the leading axes into one, each device those of its own frames.
        return image_by_image(lambda images, conv: nnx.Conv.__call__(conv, images), x, self)


Module = TypeVar("Module", bound=nnx.Module)
Initializer = Callable[..., jax.Array]
"""As in `jax.nn.initializers`: takes a key, a shape and a dtype."""


class _InitialKeys:
    """Keys for initial values, one for each call, numbered in Python.

    Stands in for `nnx.Rngs`, whose counter is a traced variable: counting a thousand layers with it
    takes most of the time in which a model is built abstractly.
    """

    def __init__(self, key: jax.Array):
        self._key = key
        self._calls = itertools.count()

    def params(self) -> jax.Array:
        return jax.random.fold_in(self._key, next(self._calls))


class NoValues:
    """Stands in for `nnx.Rngs` where the shapes of a model are wanted, and no values.

    Everything is zero then: tracing random numbers for a thousand layers, to throw them away, takes
    several times as long as tracing the layers.
    """

    def params(self) -> None:
        """No key, which zeros do without."""


def _keys(key: jax.Array) -> nnx.Rngs:
    return cast(nnx.Rngs, _InitialKeys(key))


@dataclasses.dataclass(frozen=True)
class Layers:
    """Makes the leaf layers of one model.

    Attributes:
        rngs: random keys for the initial values.
        dtype: dtype of matrix products, convolutions and activations.
        param_dtype: dtype in which parameters are stored.
    """

    rngs: nnx.Rngs
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @classmethod
    def create(cls, rngs: nnx.Rngs, dtype: Any, param_dtype: Any) -> "Layers":
        """Layers whose initial values follow from one key of `rngs`."""
        if isinstance(rngs, NoValues):
            return cls(rngs, dtype, param_dtype)
        return cls(_keys(rngs.params()), dtype, param_dtype)

    def initial(self, initializer: Initializer) -> Initializer:
        """An initializer for this model's parameters, or zeros where no values are wanted."""
        return jax.nn.initializers.zeros if isinstance(self.rngs, NoValues) else initializer

    def linear(
        self, in_features: int, out_features: int, *, use_bias: bool = True, zero: bool = False
    ) -> nnx.Linear:
        """An affine map of the last axis; `zero` starts it at zero, as a silent residual."""
        initializer = jax.nn.initializers.zeros if zero else jax.nn.initializers.lecun_normal()
        return nnx.Linear(
            in_features,
            out_features,
            use_bias=use_bias,
            kernel_init=self.initial(initializer),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            rngs=self.rngs,
        )

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: Any = "SAME",
        zero: bool = False,
    ) -> Conv2d:
        """A 2-D convolution of `[..., height, width, channels]`, frame by frame."""
        initializer = jax.nn.initializers.zeros if zero else jax.nn.initializers.lecun_normal()
        return Conv2d(
            in_channels,
            out_channels,
            (kernel_size, kernel_size),
            strides=stride,
            padding=padding,
            kernel_init=self.initial(initializer),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            rngs=self.rngs,
        )

    def group_norm(
        self, channels: int, groups: int, *, epsilon: float, pool_frames: bool = False
    ) -> GroupNorm:
        """Group norm of `[..., frames, height, width, channels]` with float32 statistics."""
        return GroupNorm(
            channels,
            groups,
            epsilon=epsilon,
            pool_frames=pool_frames,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )

    def layer_norm(self, channels: int, *, epsilon: float = 1e-5) -> LayerNorm:
        """Layer norm of the last axis with float32 statistics."""
        return LayerNorm(channels, epsilon=epsilon, dtype=self.dtype, param_dtype=self.param_dtype)

    def embed(self, entries: int, features: int) -> nnx.Embed:
        """A table of `entries` vectors."""
        return nnx.Embed(
            entries,
            features,
            embedding_init=self.initial(jax.nn.initializers.normal(0.02)),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            rngs=self.rngs,
        )

    def stack(self, depth: int, build: Callable[["Layers"], Module]) -> Module:
        """Builds `depth` equal modules as one whose parameters have a leading axis `[depth]`.

        Run it with `jax.lax.scan`: the program then holds one block however deep the stack is.
        """
        if isinstance(self.rngs, NoValues):
            return jax.vmap(lambda _: build(self))(jnp.arange(depth))
        keys = jax.random.split(self.rngs.params(), depth)
        return jax.vmap(lambda key: build(dataclasses.replace(self, rngs=_keys(key))))(keys)
