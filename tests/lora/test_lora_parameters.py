"""Merging in memory is the same as merging while reading, stacked layers included."""

import numpy as np
import pytest
from flax import nnx
from lora_cases import GOLDEN, config, names, state_dict

from hotshot_jax.convert.load import abstract
from hotshot_jax.convert.tensors.rules import flat_parameters, torch_slots
from hotshot_jax.lora import changed_paths, merge, merged_parameters, open_lora
from hotshot_jax.models import CLIPTextConfig, CLIPTextModel

COMPONENT = "text_encoder"


@pytest.fixture(scope="module")
def lora():
    return open_lora(GOLDEN / "lora" / "lora_kohya.safetensors", names())


@pytest.fixture(scope="module")
def module():
    parsed = CLIPTextConfig.from_dict(config(COMPONENT))
    return abstract(lambda rngs: CLIPTextModel(parsed, rngs=rngs))


@pytest.fixture(scope="module")
def base(module):
    values = {path: np.empty(p.shape, np.float16) for path, p in flat_parameters(module).items()}
    for slot in torch_slots(module).values():
        target = values[slot.path] if slot.layer is None else values[slot.path][slot.layer]
        target[...] = slot.to_flax(state_dict(COMPONENT)[slot.name])
    return values


def test_the_same_as_from_pytorchs_tensors(lora, module, base):
    assert isinstance(module, nnx.Module)
    slots = torch_slots(module)
    tensors = {name: each.astype(np.float16) for name, each in state_dict(COMPONENT).items()}
    expected = merge(tensors, COMPONENT, [(lora, 0.6)])
    merged = merged_parameters(base, slots, COMPONENT, [(lora, 0.6)])
    assert set(merged) == changed_paths(slots, COMPONENT, [(lora, 0.6)])
    # q, k, v, out, fc1, fc2: one stacked kernel each.
    assert len(merged) == 6
    for name, each in expected.items():
        value = merged[slots[name].path]
        assert value.dtype == np.float32
        np.testing.assert_array_equal(slots[name].to_torch(value), each)


def test_strength_zero_gives_the_base_back(lora, module, base):
    kept = {path: each.copy() for path, each in base.items()}
    merged = merged_parameters(base, torch_slots(module), COMPONENT, [(lora, 0.0)])
    assert len(merged) == 6
    for path, each in merged.items():
        assert each.dtype == np.float16 and each is not base[path]
        np.testing.assert_array_equal(each, kept[path])
