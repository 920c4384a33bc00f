"""The models say where their activations lie, on a mesh, and nothing without one."""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from hotshot_jax.models.layers.layers import Layers
from hotshot_jax.models.unet.encoder_config import TemporalShape
from hotshot_jax.models.unet.spatial_transformer import Transformer2DModel
from hotshot_jax.models.unet.temporal_transformer import TransformerTemporal
from hotshot_jax.parallel.mesh import MeshConfig, create_mesh

VIDEO = jax.ShapeDtypeStruct((2, 4, 3, 5, 32), jnp.float32)
TEXT = jax.ShapeDtypeStruct((2, 1, 7, 16), jnp.float32)


def spatial(layers: Layers) -> Any:
    return Transformer2DModel(32, 4, layers, depth=2, text_channels=16, groups=8)


def temporal(layers: Layers) -> Any:
    return TransformerTemporal(32, TemporalShape(), layers)


def program(build: Any, mesh: jax.sharding.Mesh | None) -> Any:
    module = nnx.eval_shape(lambda: build(Layers.create(nnx.Rngs(0), jnp.float32, jnp.float32)))

    def run(module: Any, x: jax.Array, text: jax.Array) -> jax.Array:
        return module(x, module.project_text(text)) if build is spatial else module(x)

    with jax.set_mesh(mesh) if mesh else contextlib.nullcontext():
        return jax.make_jaxpr(run)(module, VIDEO, TEXT)


@pytest.mark.parametrize("build", [spatial, temporal])
def test_nothing_is_said_without_a_mesh(build: Any) -> None:
    assert "sharding_constraint" not in str(program(build, None))


@pytest.mark.parametrize("build", [spatial, temporal])
def test_transformers_say_where_activations_lie(build: Any) -> None:
    """Unsaid, activations follow parameters that are split over fsdp, and samples are gathered."""
    mesh = create_mesh(MeshConfig(), jax.devices()[:1])
    assert "sharding_constraint" in str(program(build, mesh))


def test_it_is_said_again_for_every_block_of_a_stack() -> None:
    """Inside the loop: the compiler decides for a loop's body on its own."""
    made = program(spatial, create_mesh(MeshConfig(), jax.devices()[:1]))
    (scan,) = (line for line in made.eqns if line.primitive.name == "scan")
    assert "sharding_constraint" in str(scan.params["jaxpr"])
