"""The union ControlNet against current diffusers."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from controlnet_cases import (
    BASE,
    SMALL,
    assert_equal,
    build,
    fold,
    inputs,
    run,
    torch_arguments,
    torch_twin,
)
from diffusers.models.controlnets import ControlNetUnionModel as TorchControlNetUnion
from flax import nnx

from hotshot_jax.convert.tensors.rules import torch_slots
from hotshot_jax.errors import UsageError
from hotshot_jax.models.controlnet.config import ControlNetConfig, ControlNetUnionConfig
from hotshot_jax.models.controlnet.union import ControlNetUnionModel

UNION: dict[str, Any] = BASE | {
    "num_control_type": 5,
    "num_proj_channel": 16,
    "num_trans_channel": 16,
    "num_trans_head": 4,
    "num_trans_layer": 2,
}

ONE_LEVEL = {key: value for key, value in SMALL.items() if BASE.get(key) != value}


def config_of(values: dict[str, Any]) -> ControlNetUnionConfig:
    config = ControlNetConfig.from_dict(values)
    assert isinstance(config, ControlNetUnionConfig)
    return config


@pytest.mark.parametrize(
    ("control_types", "scale", "guess_mode"),
    [((3,), [0.7], False), ((4, 1), [0.5, 1.2], False), ((0, 2), [1.5, 0.4], True)],
)
def test_equals_diffusers(
    control_types: tuple[int, ...], scale: list[float], guess_mode: bool
) -> None:
    config = config_of(UNION)
    ours = build(ControlNetUnionModel, config, 4)
    theirs = torch_twin(TorchControlNetUnion, UNION, 4)
    assert set(torch_slots(ours)) == set(theirs.state_dict())
    arrays = inputs(config, batch=2, frames=2, height=4, width=5, kinds=len(control_types))
    chosen = torch.zeros(4, config.num_control_type)
    chosen[:, list(control_types)] = 1.0
    expected = theirs(
        **torch_arguments(arrays),
        controlnet_cond=[fold(frames) for frames in arrays["controlnet_cond"]],
        control_type=chosen,
        control_type_idx=list(control_types),
        conditioning_scale=scale,
        guess_mode=guess_mode,
    )
    residuals = run(
        ours, arrays, np.float32(scale), control_types=control_types, guess_mode=guess_mode
    )
    assert_equal(residuals, expected)


def test_videos_of_a_batch_are_independent() -> None:
    # The batch of two guided prompts: [negative 0, negative 1, positive 0, positive 1].
    model = build(ControlNetUnionModel, config_of(UNION | ONE_LEVEL), 4)
    arrays = inputs(model.config, batch=4, frames=2, height=4, width=4)
    together = run(model, arrays, control_types=(2,), prompts=2)
    rows = {name: x[:, 1::2] if x.ndim == 6 else x[1::2] for name, x in arrays.items()}
    alone = run(model, rows, control_types=(2,))
    # Same sums in another order: float32 round-off of values around 1.
    np.testing.assert_allclose(together.mid_block[1::2], alone.mid_block, atol=2e-5)
    mixed = run(model, arrays, control_types=(2,)).mid_block[1::2]
    assert np.abs(mixed - alone.mid_block).max() > 1e-3


def test_one_type_for_each_kind_is_needed() -> None:
    model = build(ControlNetUnionModel, config_of(UNION), 4)
    arrays = inputs(model.config, batch=1, frames=1, height=4, width=4, kinds=2)
    with pytest.raises(ValueError, match="2 kinds of control frames"):
        run(model, arrays, control_types=(1,))


def test_control_types_are_checked() -> None:
    config = config_of(UNION)
    config.check_control_types((0, 4), "union")
    with pytest.raises(UsageError, match=r"control type 5; .* the types 0 to 4"):
        config.check_control_types((5,), "union")
    with pytest.raises(UsageError, match=r"no control type; .* the types 0 to 4"):
        config.check_control_types((), "union")
    with pytest.raises(UsageError, match="given twice"):
        config.check_control_types((2, 2), "union")
    plain = ControlNetConfig.from_dict(BASE)
    plain.check_control_types((), "plain")
    with pytest.raises(UsageError, match="not a union ControlNet"):
        plain.check_control_types((1,), "plain")


def test_compute_dtype_is_kept() -> None:
    config = config_of(UNION)
    arrays = inputs(config, batch=1, frames=1, height=4, width=4)
    cond = arrays.pop("controlnet_cond")
    model = nnx.eval_shape(
        lambda: ControlNetUnionModel(config, rngs=nnx.Rngs(0), dtype=jnp.bfloat16)
    )
    residuals = nnx.eval_shape(lambda model: model(**arrays, controlnet_cond=cond[0]), model)
    assert residuals.mid_block.dtype == jnp.bfloat16
