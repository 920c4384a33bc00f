"""The generator against PyTorch's own numbers. Everything here is exact: no tolerance anywhere."""

import json
from fractions import Fraction
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from hotshot_jax.errors import UsageError
from hotshot_jax.sampling import torch_noise
from hotshot_jax.sampling.torch_noise import TorchGenerator

GOLDEN = Path(__file__).parents[1] / "golden" / "cases"
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
SEEDS = [0, 1, 455, 2**31, 2**32 - 1, 2**32, 2**32 + 455, 2**64 - 1]

needs_avx2_torch = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"),
    reason="PyTorch runs its scalar kernel on this processor, whose last bits differ",
)


def bits(array: np.ndarray) -> np.ndarray:
    return array.view({2: np.uint16, 4: np.uint32}[array.dtype.itemsize])


def torch_bits(tensor: torch.Tensor) -> np.ndarray:
    integer = {2: torch.int16, 4: torch.int32}[tensor.element_size()]
    return bits(tensor.view(integer).numpy())


def assert_equals_torch(seed: int, dtype: str, shapes: list[tuple[int, ...]]) -> None:
    ours = TorchGenerator(seed)
    theirs = torch.Generator().manual_seed(seed)
    for index, shape in enumerate(shapes):
        expected = torch.randn(shape, generator=theirs, dtype=getattr(torch, dtype))
        got = ours.randn(shape, DTYPES[dtype])
        assert got.shape == shape
        assert got.dtype == DTYPES[dtype]
        np.testing.assert_array_equal(
            bits(got), torch_bits(expected), err_msg=f"seed {seed}, draw {index}, shape {shape}"
        )


def golden_draws() -> dict[tuple[int, str], list[dict]]:
    draws: dict[tuple[int, str], list[dict]] = {}
    for call in json.loads((GOLDEN / "torch_noise.json").read_text())["calls"]:
        draws.setdefault((call["seed"], call["dtype"]), []).append(call)
    return draws


@pytest.mark.parametrize(("seed", "dtype"), golden_draws())
def test_stored_draws(seed, dtype):
    tensors = load_file(GOLDEN / "torch_noise.safetensors")
    generator = TorchGenerator(seed)
    for call in golden_draws()[seed, dtype]:
        got = generator.randn(tuple(call["shape"]), DTYPES[dtype])
        expected = tensors[call["tensor"]]
        assert got.dtype == expected.dtype
        assert got.shape == expected.shape
        np.testing.assert_array_equal(bits(got), bits(expected), err_msg=call["tensor"])


@needs_avx2_torch
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", SEEDS)
def test_successive_draws_of_many_sizes(seed, dtype):
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 70, size=40).tolist()
    shapes: list[tuple[int, ...]] = [(size,) for size in sizes]
    shapes += [(1, 4, 8, 6, 10), (3, 5, 7), (), (0, 4), (15,), (16,), (17,), (1,), (2, 4, 8, 9, 12)]
    assert_equals_torch(seed, dtype, shapes)


@needs_avx2_torch
@pytest.mark.parametrize("dtype", DTYPES)
def test_latents_of_full_size(dtype):
    # 8 frames of 672x512 pixels twice, then sizes about the internal chunk of 16384 numbers.
    chunk = torch_noise._CHUNK
    shapes: list[tuple[int, ...]] = [(1, 4, 8, 64, 84), (1, 4, 8, 64, 84)]
    shapes += [(chunk - 1,), (chunk,), (chunk + 1,), (chunk + 17,)]
    assert_equals_torch(455, dtype, shapes)


@needs_avx2_torch
def test_a_million_numbers():
    assert_equals_torch(12345, "float32", [(1_000_003,)])


@needs_avx2_torch
@pytest.mark.parametrize("between", [(16,), (37,), (2, 4, 8)])
def test_small_draw_keeps_its_second_number_across_a_large_one(between):
    assert_equals_torch(9, "float32", [(1,), between, (1,), (3,), between, (2,)])


def test_only_the_low_32_bits_of_the_seed_matter():
    low = TorchGenerator(455).randn((100,))
    np.testing.assert_array_equal(low, TorchGenerator(455 + 2**32).randn((100,)))
    np.testing.assert_array_equal(low, TorchGenerator(np.int64(455)).randn((100,)))
    assert not np.array_equal(low, TorchGenerator(456).randn((100,)))


@pytest.mark.parametrize("seed", [-1, 2**64, 2**70, 1.0, "455", True, None])
def test_a_seed_out_of_range_is_a_usage_error(seed):
    with pytest.raises(UsageError, match="`seed`"):
        TorchGenerator(seed)


@pytest.mark.parametrize("dtype", [np.float64, np.int32])
def test_another_dtype_is_refused(dtype):
    with pytest.raises(ValueError, match="float32, float16 or bfloat16"):
        TorchGenerator(0).randn((4,), dtype)


def rounded_once(exact: Fraction) -> np.float32:
    """The float32 number nearest to an exact value of normal size, ties to even."""
    guess = np.float32(float(exact))
    neighbours = [
        np.nextafter(guess, np.float32(-np.inf)),
        guess,
        np.nextafter(guess, np.float32(np.inf)),
    ]
    return min(
        neighbours,
        key=lambda x: (abs(Fraction(float(x)) - exact), int(x.view(np.uint32)) & 1),
    )


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("addend", [2.0**-80, -(2.0**-80), 0.0])
@pytest.mark.parametrize("factor", [1 + 2.0**-12, 1 + 3 * 2.0**-12])
def test_fused_multiply_add_rounds_once_at_a_midpoint(factor, addend, sign):
    # These products lie midway between two float32 numbers, so that the addend, too small to
    # show in float64, decides.
    a = np.full(3, sign * factor, np.float32)
    b = np.full(3, 1 + 2.0**-12, np.float32)
    c = np.full(3, addend, np.float32)
    exact = Fraction(float(a[0])) * Fraction(float(b[0])) + Fraction(float(c[0]))
    np.testing.assert_array_equal(
        torch_noise._fused_multiply_add(a, b, c), np.full(3, rounded_once(exact))
    )


def test_fused_multiply_add_of_random_numbers():
    random = np.random.default_rng(0)
    a, b, c = random.standard_normal((3, 500)).astype(np.float32)
    c *= np.exp2(random.integers(-40, 5, 500)).astype(np.float32)
    expected = [
        rounded_once(Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)))
        for x, y, z in zip(a, b, c, strict=True)
    ]
    np.testing.assert_array_equal(torch_noise._fused_multiply_add(a, b, c), expected)
