"""Text that differs by frame, several contexts in cross-attention, attention that is handed in."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch_twins import normal, relative_error

from benchmarks.parity_cases.case import WHOLE_MODEL, Case
from benchmarks.parity_cases.compilation import jit_for_few_calls
from benchmarks.parity_cases.models import load_unet
from hotshot_jax.models import ProjectedText, UNet3DConditionModel
from hotshot_jax.models.layers.attention import (
    Attention,
    Context,
    dot_product_attention,
    replace_attention,
)
from hotshot_jax.models.layers.layers import Layers
from hotshot_jax.models.unet.spatial_transformer import (
    BasicTransformerBlock,
    attend_to_first_frame,
)

GOLDEN = Path(__file__).parents[1] / "golden-clips"


@pytest.fixture(scope="module")
def travel() -> Case:
    return Case(GOLDEN / "cases" / "clip_travel_loop.json")


@jit_for_few_calls()
def project(unet: Any, hidden: jax.Array) -> ProjectedText:
    return unet.project_text(hidden)


@jit_for_few_calls()
def forward(unet: Any, *inputs: Any) -> jax.Array:
    return unet(*inputs)


def text_by_frame(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Negative prompt and travelling prompt, `[2, frames, ...]`."""
    parts = []
    for negative, keys in (
        ("negative_prompt_embeds", "key_prompt_embeds"),
        ("negative_pooled_prompt_embeds", "key_pooled_prompt_embeds"),
    ):
        blended = np.stack(
            [
                np.float32(1 - t) * case[keys][int(a)] + np.float32(t) * case[keys][int(b)]
                for a, b, t in case.arguments["travel_a_b_t"]
            ]
        )
        parts.append(np.stack([np.broadcast_to(case[negative], blended.shape), blended]))
    return parts[0], parts[1]


def test_text_by_frame_equals_the_reference_and_follows_rotated_frames(travel: Case) -> None:
    unet = load_unet(travel.model("UNet3DConditionModel"))
    hidden, pooled = text_by_frame(travel)
    order = np.asarray(travel.description["windows_per_step"][1][0])
    text = project(unet, hidden).at_frames(order)
    sample = np.moveaxis(travel["step1.unet_input"], 1, -1)[:, order]
    got = forward(unet, sample, travel["timesteps"][1], text, pooled[:, order], travel["time_ids"])
    expected = np.moveaxis(travel["step1.window_outputs"][0], 1, -1)
    assert relative_error(got, expected) < WHOLE_MODEL


def test_equal_text_in_all_frames_is_shared_text(travel: Case) -> None:
    unet = load_unet(travel.model("UNet3DConditionModel"))
    hidden, pooled = (each[:, :1] for each in text_by_frame(travel))
    sample = np.moveaxis(travel["step1.unet_input"], 1, -1)
    results = [
        forward(
            unet,
            sample,
            np.float32(7),
            project(unet, np.repeat(hidden, frames, 1)),
            np.repeat(pooled, frames, 1),
            travel["time_ids"],
        )
        for frames in (1, 8)
    ]
    # Equal products in other shapes: round-off alone.
    assert relative_error(results[1], results[0]) < 1e-5


def attend(query: np.ndarray, context: np.ndarray, attention: Attention) -> torch.Tensor:
    """PyTorch's attention of `[batch, frames, pixels, channels]` to `[batch, frames, ...]`."""

    def heads(x: np.ndarray, layer: nnx.Linear) -> torch.Tensor:
        projected = torch.from_numpy(x) @ torch.tensor(np.asarray(layer.kernel[...]))
        return projected.unflatten(-1, (attention.heads, -1)).transpose(-3, -2)

    return torch.nn.functional.scaled_dot_product_attention(
        heads(query, attention.to_q),
        heads(context, attention.to_k),
        heads(context, attention.to_v),
    ).transpose(-3, -2)


def test_contexts_are_added_with_their_weights_by_frame() -> None:
    layers = Layers.create(nnx.Rngs(0), jnp.float32, jnp.float32)
    attention = Attention(16, 2, layers, context_channels=12)
    x, text, picture = normal(0, 2, 3, 6, 16), normal(1, 2, 1, 5, 12), normal(2, 2, 3, 4, 12)
    weight = np.asarray([[0.0, 0.5, 2.0]], np.float32)
    contexts = [
        attention.project_context(jnp.asarray(text)),
        Context(
            *jax.tree.leaves(attention.project_context(jnp.asarray(picture))),
            weight=jnp.asarray(weight),
        ),
    ]
    got = attention.read(jnp.asarray(x), contexts)
    read = attend(x, np.repeat(text, 3, 1), attention)
    read = read + torch.from_numpy(weight)[:, :, None, None, None] * attend(x, picture, attention)
    out = attention.to_out[0]
    expected = read.flatten(-2) @ torch.tensor(np.asarray(out.kernel[...]))
    expected = expected + torch.tensor(np.asarray(out.bias[...]))
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_every_frame_can_see_the_first_one() -> None:
    layers = Layers.create(nnx.Rngs(0), jnp.float32, jnp.float32)
    block = BasicTransformerBlock(16, 2, 12, layers)
    x = normal(0, 2, 3, 6, 16)
    alone = np.asarray(block.attn1(jnp.asarray(x)))
    attend_to_first_frame(block)
    got = block.attn1(jnp.asarray(x))
    both = np.concatenate([x, np.broadcast_to(x[:, :1], x.shape)], axis=2)
    out = block.attn1.to_out[0]
    expected = attend(x, both, block.attn1).flatten(-2) @ torch.tensor(np.asarray(out.kernel[...]))
    expected = expected + torch.tensor(np.asarray(out.bias[...]))
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-5, atol=1e-6)
    # The first frame sees itself twice, which changes nothing; the others see more.
    np.testing.assert_allclose(got[:, 0], alone[:, 0], rtol=1e-5, atol=1e-6)
    assert np.abs(got[:, 1:] - alone[:, 1:]).max() > 1e-3
    assert block.attn2.attend is dot_product_attention


def test_attention_is_handed_in(travel: Case) -> None:
    unet: UNet3DConditionModel = nnx.clone(load_unet(travel.model("UNet3DConditionModel")))
    shapes = []

    def counted(*arrays: jax.Array, causal: bool = False) -> jax.Array:
        shapes.append(arrays[0].shape)
        return dot_product_attention(*arrays, causal=causal)

    replace_attention(unet, counted)
    hidden, pooled = (each[:, 0] for each in text_by_frame(travel))
    sample = jnp.moveaxis(jnp.asarray(travel["step1.unet_input"]), 1, -1)
    jax.eval_shape(unet, sample, jnp.float32(7), hidden, pooled, travel["time_ids"])
    ranks = {len(shape) for shape in shapes}
    # Within and between frames, and to the text, which all frames of a video share.
    assert ranks == {4, 5}
