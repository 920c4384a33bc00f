"""Each method against a direct float64 computation, and against peft's own where it has it."""

import numpy as np
import pytest
import torch
from lora_cases import normal
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from torch.nn import functional

from hotshot_jax.lora.changes import (
    Added,
    Decomposed,
    Difference,
    Hadamard,
    Kronecker,
    LowRank,
    Replaced,
)

# float32 against float64, values of order 10 after at most 100 additions.
TOLERANCE = 2e-5
SCALE = 0.6


def close(ours, expected):
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE, rtol=TOLERANCE)


def double(*arrays):
    return [np.asarray(each, np.float64) for each in arrays]


def test_low_rank_of_a_matrix():
    up, down = normal(12, 3), normal(3, 20)
    a, b = double(up, down)
    close(Added(LowRank(down, up, 0.5)).apply(normal(12, 20), SCALE), SCALE * 0.5 * (a @ b))


def test_half_precision_factors_are_multiplied_in_float32():
    up, down = normal(12, 3).astype(np.float16), normal(3, 20).astype(np.float16)
    a, b = double(up, down)
    close(LowRank(down, up, 0.5).delta((12, 20)), 0.5 * (a @ b))


def test_convolution_is_that_of_down_then_up():
    up, down = normal(12, 3, 1, 1), normal(3, 8, 3, 3)
    x = torch.tensor(normal(1, 8, 7, 5)).double()
    expected = functional.conv2d(
        functional.conv2d(x, torch.tensor(down).double(), padding=1), torch.tensor(up).double()
    )
    delta = LowRank(down, up, 1.0).delta((12, 8, 3, 3))
    ours = functional.conv2d(x, torch.tensor(delta).double(), padding=1)
    close(ours.numpy().astype(np.float32), expected.numpy())


def test_mid_tensor_is_a_convolution_between_two():
    up, mid, down = normal(12, 3, 1, 1), normal(3, 3, 3, 3), normal(3, 8, 1, 1)
    x = torch.tensor(normal(1, 8, 7, 5)).double()
    layers = [torch.tensor(each).double() for each in (down, mid, up)]
    expected = functional.conv2d(x, layers[0])
    expected = functional.conv2d(expected, layers[1], padding=1)
    expected = functional.conv2d(expected, layers[2])
    delta = LowRank(down, up, 1.0, mid).delta((12, 8, 3, 3))
    ours = functional.conv2d(x, torch.tensor(delta).double(), padding=1)
    close(ours.numpy().astype(np.float32), expected.numpy())


def test_hadamard():
    pairs = [(normal(12, 3, seed=i), normal(3, 8 * 9, seed=i)) for i in range(2)]
    (a, b), (c, d) = (double(*pair) for pair in pairs)
    expected = ((a @ b) * (c @ d) * 0.25).reshape(12, 8, 3, 3)
    close(Hadamard(*pairs, 0.25).delta((12, 8, 3, 3)), expected)


def test_hadamard_with_cores():
    pairs = [(normal(3, 12, seed=i), normal(3, 8, seed=i)) for i in range(2)]
    cores = normal(3, 3, 3, 3), normal(3, 3, 3, 3, seed=1)
    expected = 0.25
    for core, (outputs, inputs) in zip(cores, pairs, strict=True):
        total = np.zeros((12, 8, 3, 3))
        for i in range(3):
            for j in range(3):
                total += outputs[i, :, None, None, None] * inputs[j, :, None, None] * core[i, j]
        expected = expected * total
    close(Hadamard(*pairs, 0.25, cores).delta((12, 8, 3, 3)), expected)


@pytest.mark.parametrize("whole_first", [True, False])
@pytest.mark.parametrize("whole_second", [True, False])
def test_kronecker(whole_first, whole_second):
    first = (normal(3, 4),) if whole_first else (normal(3, 2), normal(2, 4))
    second = (normal(5, 6),) if whole_second else (normal(5, 2), normal(2, 6))
    a = np.linalg.multi_dot(double(*first)) if len(first) > 1 else first[0]
    b = np.linalg.multi_dot(double(*second)) if len(second) > 1 else second[0]
    close(Kronecker(first, second, 0.5).delta((15, 24)), 0.5 * np.kron(a, b))


def test_kronecker_of_a_kernel():
    """Whole, as two matrices of which one is flattened, and with a core."""
    first, kernel = normal(3, 4), normal(5, 2, 3, 3)
    expected = np.einsum("ab,cdhw->acbdhw", *double(first, kernel)).reshape(15, 8, 3, 3)
    close(Kronecker((first,), (kernel,), 1.0).delta((15, 8, 3, 3)), expected)

    flat = (normal(5, 2), normal(2, 2 * 9))
    product = (flat[0].astype(np.float64) @ flat[1]).reshape(5, 2, 3, 3)
    expected = np.einsum("ab,cdhw->acbdhw", first, product).reshape(15, 8, 3, 3)
    close(Kronecker((first,), flat, 1.0).delta((15, 8, 3, 3)), expected)

    outputs, inputs, core = normal(2, 5), normal(2, 2), normal(2, 2, 3, 3)
    product = np.einsum("ijhw,io,jr->orhw", *double(core, outputs, inputs))
    expected = np.einsum("ab,cdhw->acbdhw", first, product).reshape(15, 8, 3, 3)
    close(Kronecker((first,), (outputs, inputs), 1.0, core).delta((15, 8, 3, 3)), expected)


@pytest.mark.parametrize("shape", [(12, 20), (12, 8, 3, 3)])
@pytest.mark.parametrize("by_input", [False, True])
def test_decomposed(shape, by_input):
    weight, delta = normal(*shape), normal(*shape, seed=1)
    axis = 1 if by_input else 0
    magnitude = np.abs(normal(shape[axis])) + 0.5
    changed = weight.astype(np.float64) + SCALE * delta
    others = tuple(each for each in range(len(shape)) if each != axis)
    norm = np.sqrt((changed**2).sum(axis=others, keepdims=True))
    expected = magnitude.reshape(norm.shape) * changed / norm
    change = Decomposed(Difference(delta), magnitude, by_input)
    close(change.apply(weight, SCALE) + weight, expected)


def test_a_row_of_zeros_has_no_direction():
    change = Decomposed(Difference(np.zeros((2, 3), np.float32)), np.ones(2, np.float32))
    assert np.isfinite(change.apply(np.zeros((2, 3), np.float32), 1.0)).all()


def test_replaced():
    old, new = normal(4, 5), normal(4, 5, seed=1)
    close(old + Replaced(new).apply(old, 1.0), new)
    close(old + Replaced(new).apply(old, SCALE), old + SCALE * (new.astype(np.float64) - old))


def test_stored_values_are_not_written_to():
    values = normal(4, 5)
    kept = values.copy()
    result = Added(Difference(values)).apply(normal(4, 5, seed=1), 1.0) + np.float32(1)
    assert result.shape == (4, 5)
    np.testing.assert_array_equal(values, kept)


class Layers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(40, 24)
        self.conv = torch.nn.Conv2d(16, 24, 3)


def peft_layers(config):
    """Layers with random adapters: their own weights, the adapters' factors, the merged weights."""
    torch.manual_seed(0)
    model = get_peft_model(Layers(), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("lora_", "hada_", "lokr_")):
                parameter.copy_(0.5 + torch.rand_like(parameter))
    result = {}
    for name in ("linear", "conv"):
        layer = getattr(model.base_model.model, name)
        before = layer.get_base_layer().weight.detach().numpy().copy()
        factors = {
            key.replace(".default", ""): value.detach().numpy().copy()
            for key, value in layer.named_parameters()
            if "base_layer" not in key
        }
        layer.merge()
        result[name] = before, factors, layer.get_base_layer().weight.detach().numpy()
    return result


@pytest.mark.parametrize("effective", [False, True])
def test_pefts_loha(effective):
    config = LoHaConfig(
        r=3, alpha=2, target_modules=["linear", "conv"], use_effective_conv2d=effective
    )
    layers = peft_layers(config)
    assert ("hada_t1" in layers["conv"][1]) == effective
    for before, factors, after in layers.values():
        pairs = [(factors[f"hada_w{i}_a"], factors[f"hada_w{i}_b"]) for i in (1, 2)]
        cores = (factors["hada_t1"], factors["hada_t2"]) if "hada_t1" in factors else None
        change = Added(Hadamard(*pairs, 2 / 3, cores))
        close(before + change.apply(before, 1.0), after)


@pytest.mark.parametrize("options", [{}, {"use_effective_conv2d": True}, {"decompose_both": True}])
def test_pefts_lokr(options):
    config = LoKrConfig(r=2, alpha=3, target_modules=["linear", "conv"], **options)
    layers = peft_layers(config)
    assert ("lokr_t2" in layers["conv"][1]) == ("use_effective_conv2d" in options)
    for before, factors, after in layers.values():

        def factor(name, factors=factors):
            whole = (name,) if name in factors else (f"{name}_a", f"{name}_b")
            return tuple(factors[each] for each in whole)

        change = Added(
            Kronecker(factor("lokr_w1"), factor("lokr_w2"), 3 / 2, factors.get("lokr_t2"))
        )
        close(before + change.apply(before, 1.0), after)


def test_pefts_dora():
    config = LoraConfig(r=3, lora_alpha=2, target_modules=["linear", "conv"], use_dora=True)
    for before, factors, after in peft_layers(config).values():
        low_rank = LowRank(factors["lora_A.weight"], factors["lora_B.weight"], 2 / 3)
        change = Decomposed(low_rank, factors["lora_magnitude_vector.weight"])
        close(before + change.apply(before, 1.0), after)
