"""Models and inputs as shapes with places on a mesh, for programs that are only compiled."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from hotshot_jax.models import (
    AutoencoderKL,
    AutoencoderKLConfig,
    UNet3DConditionModel,
    UNet3DConfig,
)
from hotshot_jax.parallel.placement import batch_sharding, video_sharding, whole
from hotshot_jax.parallel.rules import state_shardings
from hotshot_jax.runtime.precision import VaePrecision

MODELS = Path(__file__).parents[2] / "tests" / "golden" / "models"
CONFIGS = {
    "full": ("hotshot_xl_full.unet", "sdxl_full.vae"),
    "tiny": ("unet_tiny", "vae_tiny"),
}
# Fewer layers compile faster, and have every kind of layer all the same.
_CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    "full": {"unet": {}, "vae": {}},
    "tiny": {
        "unet": {
            "block_out_channels": [32, 64],
            "attention_head_dim": [2, 4],
            "transformer_layers_per_block": [1, 2],
            "layers_per_block": 1,
            "down_block_types": ["DownBlock3D", "CrossAttnDownBlock3D"],
            "up_block_types": ["CrossAttnUpBlock3D", "UpBlock3D"],
        },
        "vae": {"layers_per_block": 1},
    },
}


FLOAT32 = VaePrecision.named("f32", "cpu")


@dataclasses.dataclass(frozen=True)
class Size:
    """What a program works on.

    Attributes:
        model: "full" or "tiny".
        width: of the video, in pixels.
        height: of the video, in pixels.
        frames: of a video.
        videos: prompts sampled together, or samples trained on, over all devices.
        decoded_at_once: frames that the VAE decodes in one call.
        trained: which parameters train, "temporal" or "unet".
        rematerialisation: what training computes again instead of keeping it.
        context_length: frames of the windows in which a clip is sampled; None for no windows.
        context_batch: windows that are sampled at once; None for one on each device along `data`.
        vae_precision: in what the VAE works.
    """

    model: str
    width: int
    height: int
    frames: int
    videos: int = 1
    decoded_at_once: int = 1
    trained: str = "temporal"
    rematerialisation: str = "blocks"
    context_length: int | None = None
    context_batch: int | None = None
    vae_precision: VaePrecision = FLOAT32

    @property
    def window(self) -> "Size":
        """A single window as a clip of its own."""
        frames = self.context_length or self.frames
        return dataclasses.replace(self, frames=frames, context_length=None)


@dataclasses.dataclass(frozen=True)
class Program:
    """A function to compile.

    Attributes:
        function: takes arrays.
        arguments: their shapes, dtypes and, on a mesh, shardings.
        donate: positions of arguments that the results take the place of.
        parameter_bytes: on each device.
        matmul: precision of float32 products.
        out_shardings: of the results.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    donate: tuple[int, ...]
    parameter_bytes: int
    matmul: str | None = None
    out_shardings: Any = None

    def lower(self) -> jax.stages.Lowered:
        """The function as a program that is not yet compiled."""
        with jax.default_matmul_precision(self.matmul):
            jitted = jax.jit(
                self.function, donate_argnums=self.donate, out_shardings=self.out_shardings
            )
            return jitted.lower(*self.arguments)


@dataclasses.dataclass(frozen=True)
class Abstract:
    """Makes `jax.ShapeDtypeStruct`s that stand in for arrays, and are typed as what they stand for.

    Attributes:
        mesh: where they lie; None for one device.
    """

    mesh: Mesh | None

    def array(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Any:
        """An array that every device holds a copy of."""
        return self._placed(shape, dtype, lambda mesh: whole(mesh))

    def video(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Any:
        """An array `[batch, frames, ...]`."""
        return self._placed(shape, dtype, lambda mesh: video_sharding(mesh, shape))

    def samples(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Any:
        """An array `[batch, ...]`."""
        return self._placed(shape, dtype, lambda mesh: batch_sharding(mesh, shape))

    def tree(self, tree: Any, shardings: Callable[[Mesh, Any], Any]) -> Any:
        """A tree of shapes, with the places that `shardings(mesh, tree)` gives them."""
        if self.mesh is None:
            return tree
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            tree,
            shardings(self.mesh, tree),
        )

    def module(self, module: Any) -> Any:
        """A module with its parameters where the sharding rules want them."""
        graph, state = nnx.split(module)
        return nnx.merge(graph, self.tree(state, lambda mesh, _: state_shardings(module, mesh)))

    def _placed(
        self, shape: tuple[int, ...], dtype: Any, sharding: Callable[[Mesh], Any]
    ) -> jax.ShapeDtypeStruct:
        place = None if self.mesh is None else sharding(self.mesh)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)


def unet_of(size: Size) -> UNet3DConditionModel:
    """The UNet with bfloat16 weights and activations."""
    values = json.loads((MODELS / f"{CONFIGS[size.model][0]}.config.json").read_text())
    config = UNet3DConfig.from_dict(values | _CHANGES[size.model]["unet"])
    return nnx.eval_shape(
        lambda: UNet3DConditionModel(
            config, rngs=nnx.Rngs(0), dtype=jnp.bfloat16, param_dtype=jnp.bfloat16
        )
    )


def vae_of(size: Size, dtype: Any = jnp.float32) -> AutoencoderKL:
    """The VAE."""
    values = json.loads((MODELS / f"{CONFIGS[size.model][1]}.config.json").read_text())
    config = AutoencoderKLConfig.from_dict(values | _CHANGES[size.model]["vae"])
    return nnx.eval_shape(
        lambda: AutoencoderKL(config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=dtype)
    )


def latents_shape(size: Size) -> tuple[int, ...]:
    """`(videos, frames, height / 8, width / 8, channels)`."""
    config = vae_of(size).config
    height, width = size.height // config.scale_factor, size.width // config.scale_factor
    return size.videos, size.frames, height, width, config.latent_channels


def bytes_per_device(tree: Any) -> int:
    """Size of the part of a tree of shapes that one device holds."""

    def size(leaf: Any) -> int:
        sharding = getattr(leaf, "sharding", None)
        held = leaf.shape if sharding is None else sharding.shard_shape(leaf.shape)
        return math.prod(held) * np.dtype(leaf.dtype).itemsize

    return sum(size(leaf) for leaf in jax.tree.leaves(tree))
