"""Models with NNX's graph mode off, which Flax means to make the default."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import jax, jax.numpy as jnp, numpy as np
from flax import nnx
from hotshot_jax.convert.load import abstract, with_parameters
from hotshot_jax.convert.tensors.rules import flat_parameters
from hotshot_jax.models import *

unet_config = UNet3DConfig(
    block_out_channels=(32,),
    down_block_types=("CrossAttnDownBlock3D",), up_block_types=("CrossAttnUpBlock3D",),
    cross_attention_dim=12, attention_head_dim=2, transformer_layers_per_block=2,
    layers_per_block=1, addition_time_embed_dim=4, projection_class_embeddings_input_dim=36,
)
vae_config = AutoencoderKLConfig(
    block_out_channels=(8,), down_block_types=("DownEncoderBlock2D",),
    up_block_types=("UpDecoderBlock2D",), layers_per_block=1, norm_num_groups=4,
)
text_config = CLIPTextConfig(
    hidden_size=12, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
    vocab_size=20, max_position_embeddings=7, with_projection=True, projection_dim=12,
)

def random(module):
    numbers = np.random.default_rng(0)
    return with_parameters(module, {
        path: jnp.asarray(numbers.normal(size=leaf.shape), jnp.float32)
        for path, leaf in flat_parameters(module).items()
    })

unet = random(abstract(lambda rngs: UNet3DConditionModel(unet_config, rngs=rngs)))
vae = random(abstract(lambda rngs: AutoencoderKL(vae_config, rngs=rngs)))
text = random(abstract(lambda rngs: CLIPTextModel(text_config, rngs=rngs)))

# Split and merged, and as trees: the two ways in which programs take modules.
graph, state = nnx.split(text)
encoded = jax.jit(lambda state, ids: nnx.merge(graph, state)(ids))(state, jnp.ones((1, 7), int))
latents = jax.jit(lambda vae, x: vae.encode(x).mean)(vae, jnp.ones((1, 2, 4, 4, 3)))
temporal = nnx.All(nnx.Param, nnx.PathContains("temporal_attentions"))
graph, trained, frozen = nnx.split(unet, temporal, ...)

@jax.jit
def loss_and_gradient(trained, frozen):
    def loss(trained):
        unet = nnx.merge(graph, trained, frozen)
        return jnp.square(
            unet(latents, jnp.ones(1), encoded.last_hidden_state, encoded.pooled, jnp.ones((1, 6)))
        ).mean()
    return jax.value_and_grad(loss)(trained)

loss, gradient = loss_and_gradient(trained, frozen)
print("loss", float(loss), "gradients", len(jax.tree.leaves(gradient)))
"""


@pytest.fixture(scope="module")
def outputs() -> dict[str, str]:
    return {mode: run(mode) for mode in ("true", "false")}


def run(mode: str) -> str:
    environment = os.environ | {
        "NNX_GRAPH_MODE": mode,
        "NNX_GRAPH_UPDATES": mode,
    }
    # Warnings are errors here too: deprecated use of NNX must not creep in.
    completed = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


def test_both_modes_give_the_same(outputs: dict[str, str]) -> None:
    assert outputs["false"].splitlines() == outputs["true"].splitlines()


def test_temporal_layers_get_gradients(outputs: dict[str, str]) -> None:
    # 26 parameters in each of three temporal transformers, and none elsewhere.
    words = outputs["false"].split()
    assert float(words[1]) > 0
    assert int(words[3]) == 3 * 26
