"""The temporal transformer against diffusers' motion transformer, which has the same layers."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from flax import nnx
from torch_twins import MODEL_TOLERANCE, build, from_torch, normal, relative_error, to_torch

from benchmarks.models.formula_weights import formula_tensor
from benchmarks.parity_cases.compilation import jit_for_few_calls
from hotshot_jax.models.layers.embeddings import positional_encoding
from hotshot_jax.models.layers.layers import Layers
from hotshot_jax.models.unet.encoder_config import TemporalShape
from hotshot_jax.models.unet.temporal_transformer import TransformerTemporal

# The names of the motion transformer, as diffusers converts motion modules.
_RENAMED = {
    r"\.attn([12])\.": lambda match: f".attention_blocks.{int(match[1]) - 1}.",
    r"\.norm([12])\.": lambda match: f".norms.{int(match[1]) - 1}.",
    r"\.norm3\.": lambda match: ".ff_norm.",
}


class PerFrameGroupNorm(torch.nn.GroupNorm):
    """Motion modules pool the statistics over frames, Hotshot-XL does not."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalises each frame of `[batch, channels, frames, height, width]`."""
        return torch.stack([super(PerFrameGroupNorm, self).forward(y) for y in x.unbind(2)], 2)


def make(channels: int) -> TransformerTemporal:
    return build(
        lambda rngs: TransformerTemporal(
            channels, TemporalShape(), Layers.create(rngs, jnp.float32, jnp.float32)
        )
    )


def motion_transformer(channels: int) -> AnimateDiffTransformer3D:
    twin = AnimateDiffTransformer3D(
        num_attention_heads=8,
        attention_head_dim=channels // 8,
        in_channels=channels,
        norm_num_groups=32,
        activation_fn="geglu",
        attention_bias=False,
        double_self_attention=True,
        positional_embeddings="sinusoidal",
        num_positional_embeddings=24,
    )
    twin.norm = PerFrameGroupNorm(32, channels, eps=1e-6)
    state = twin.state_dict()
    for name, tensor in state.items():
        if name.endswith("pos_embed.pe"):
            continue
        renamed = name
        for pattern, replacement in _RENAMED.items():
            renamed = re.sub(pattern, replacement, renamed)
        state[name] = torch.from_numpy(formula_tensor(renamed, tuple(tensor.shape)))
    twin.load_state_dict(state)
    return twin.eval().requires_grad_(False)


@jit_for_few_calls()
def run(module: TransformerTemporal, x: np.ndarray) -> np.ndarray:
    return module(x)


@pytest.mark.parametrize(
    ("channels", "shape"),
    [(32, (2, 8, 3, 5)), (64, (1, 24, 2, 2)), (160, (1, 1, 4, 3)), (96, (3, 5, 1, 1))],
)
def test_equals_motion_transformer(channels: int, shape: tuple[int, ...]) -> None:
    x = normal(channels, *shape, channels)
    batch, frames, height, width = shape
    folded = to_torch(x.reshape(batch * frames, height, width, channels))
    expected = from_torch(motion_transformer(channels)(folded, num_frames=frames))
    got = run(make(channels), x)
    assert relative_error(got, expected.reshape(x.shape)) < MODEL_TOLERANCE


@pytest.mark.parametrize("channels", [32, 320, 640, 1280])
def test_table_of_positions_equals_motion_transformer(channels: int) -> None:
    table = motion_transformer(channels).transformer_blocks[0].pos_embed.pe[0]
    # Positions up to 23 times frequencies up to 1, rounded to float32 before the sine.
    assert np.abs(positional_encoding(24, channels) - table.numpy()).max() < 3e-6


def test_new_layer_changes_nothing() -> None:
    module = TransformerTemporal(
        32, TemporalShape(), Layers.create(nnx.Rngs(0), jnp.float32, jnp.float32)
    )
    x = normal(0, 1, 4, 2, 2, 32)
    np.testing.assert_array_equal(run(module, x), x)


def test_pixels_do_not_see_each_other() -> None:
    """But for the statistics of the group norm, which are those of a whole frame."""
    module = make(32)
    x = normal(1, 1, 4, 3, 3, 32)
    got = run(module, x)
    order = np.random.default_rng(0).permutation(9)
    shuffled = x.reshape(1, 4, 9, 32)[:, :, order].reshape(x.shape)
    expected = np.asarray(got).reshape(1, 4, 9, 32)[:, :, order].reshape(x.shape)
    assert relative_error(run(module, shuffled), expected) < MODEL_TOLERANCE
