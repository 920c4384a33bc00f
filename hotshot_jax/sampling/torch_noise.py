"""The numbers of PyTorch's CPU generator, bit for bit, without PyTorch.

`TorchGenerator(seed).randn(shape, dtype)` equals `torch.randn(shape, generator=g, dtype=dtype)`
with `g = torch.Generator().manual_seed(seed)`, so that a seed gives the picture that the PyTorch
reference makes from it. Successive draws continue the stream as they do there.

Sources: ATen's `DistributionTemplates.h` (`normal_fill`, `NormalFill16`), `DistributionsHelper.h`
(`normal_distribution`) and `avx_mathfun.h` (the Cephes polynomials for log, sin and cos), as of
PyTorch 2.13; the Mersenne Twister MT19937 (Matsumoto and Nishimura, 1998); Box and Muller (1958).

PyTorch chooses its normal kernel by the processor. The one reproduced here is the AVX2 kernel,
which x86 machines with AVX2 and with AVX-512 both use (an AVX-512 variant of it is not compiled),
including the fused multiply-adds of the published Linux builds. Where PyTorch falls back to its
scalar kernel (`ATEN_CPU_CAPABILITY=default`, ARM), its numbers differ from these in the last bits.
Half-precision draws are computed in float32 and rounded once, as PyTorch 2.13 does; older releases
that compute in float16 or bfloat16 throughout give other half-precision numbers.
"""

import math
from typing import Final

import ml_dtypes
import numpy as np
import numpy.typing as npt

from hotshot_jax.errors import UsageError

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

SEED_LIMIT: Final = 2**64

# The kernel works on groups of sixteen uniforms: eight for the radius, eight for the angle.
_GROUP: Final = 16
_HALF_GROUP: Final = 8
# Numbers transformed at a time, so that the intermediate arrays stay in the processor's cache.
_CHUNK: Final = 16384

_STATE_WORDS: Final = 624
_UNIFORM_BITS: Final = 24
_DOUBLE_UNIFORM_BITS: Final = 53

_SUPPORTED_DTYPES: Final = (
    np.dtype(np.float32),
    np.dtype(np.float16),
    np.dtype(ml_dtypes.bfloat16),
)


def _float32_constants(*values: float) -> tuple[float, ...]:
    """Round constants to float32 as the kernel's source holds them, kept as Python floats."""
    return tuple(float(np.float32(value)) for value in values)


_SQRT_HALF, _LOG_Q1, _LOG_Q2 = _float32_constants(0.707106781186547524, -2.12194440e-4, 0.693359375)
_LOG_P = _float32_constants(
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
_MINUS_PI_QUARTER_PARTS = _float32_constants(
    -0.78515625, -2.4187564849853515625e-4, -3.77489497744594108e-8
)
_SIN_P = _float32_constants(-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COS_P = _float32_constants(2.443315711809948e-005, -1.388731625493765e-003, 4.166664568298827e-002)
_FOUR_OVER_PI, _TWO_PI = _float32_constants(1.27323954473516, 2 * math.pi)


class TorchGenerator:
    """PyTorch's CPU generator after `manual_seed(seed)`.

    Args:
        seed: from 0 to 2**64 - 1. As in PyTorch, only the low 32 bits matter.

    Raises:
        UsageError: the seed is not an integer of that range.
    """

    def __init__(self, seed: int) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
            raise UsageError(f"`seed` is {seed!r}; it must be a whole number from 0 to 2**64 - 1.")
        if not 0 <= seed < SEED_LIMIT:
            raise UsageError(f"`seed` is {seed}; it must be a whole number from 0 to 2**64 - 1.")
        self._words = np.random.MT19937()
        self._words.state = {
            "bit_generator": "MT19937",
            "state": {"key": _seeded_state(int(seed)), "pos": _STATE_WORDS},
        }
        self._next_normal: float | None = None

    def randn(
        self, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32
    ) -> npt.NDArray[np.floating]:
        """Draw standard normal numbers.

        Args:
            shape: any shape, `()` and empty ones included.
            dtype: float32, float16 or bfloat16 (`ml_dtypes.bfloat16`).

        Returns:
            An array of that shape and dtype. As in PyTorch, draws of fewer than 16 numbers come
            from another algorithm than larger ones and keep an unused number for the next of them.

        Raises:
            ValueError: for another dtype.
        """
        dtype = np.dtype(dtype)
        if dtype not in _SUPPORTED_DTYPES:
            raise ValueError(f"dtype is {dtype}; it must be float32, float16 or bfloat16")
        size = math.prod(shape)
        if size < _GROUP:
            # By way of float32, as PyTorch's conversion from double to its half types goes.
            values = np.array([self._small_normal() for _ in range(size)], np.float32)
        else:
            values = self._large_normals(size, drops_ragged_end=dtype == np.float32)
        return values.astype(dtype, copy=False).reshape(shape)

    def randperm(self, count: int) -> npt.NDArray[np.int64]:
        """A random order of `count` things: `torch.randperm(count, generator=g)`.

        Args:
            count: from 0 to 2**31 - 1, beyond which PyTorch draws otherwise.
        """
        order = np.arange(count)
        for place in range(count - 1):
            other = place + int(self._words.random_raw()) % (count - place)
            order[[place, other]] = order[[other, place]]
        return order

    def _large_normals(self, size: int, *, drops_ragged_end: bool) -> Float32Array:
        values = np.empty(size, np.float32)
        ragged = size % _GROUP
        for start in range(0, size - ragged, _CHUNK):
            stop = min(start + _CHUNK, size - ragged)
            values[start:stop] = _box_muller(self._uniforms(stop - start))
        if ragged:
            # PyTorch draws the last sixteen numbers anew. Its float32 kernel has by then drawn the
            # uniforms of the ragged end, which it drops; its half-precision kernels have not.
            if drops_ragged_end:
                self._words.random_raw(ragged)
            values[size - _GROUP :] = _box_muller(self._uniforms(_GROUP))
        return values

    def _uniforms(self, size: int) -> Float32Array:
        words = self._words.random_raw(size)
        return (words & ((1 << _UNIFORM_BITS) - 1)).astype(np.float32) * np.float32(
            2.0**-_UNIFORM_BITS
        )

    def _small_normal(self) -> float:
        if self._next_normal is not None:
            value, self._next_normal = self._next_normal, None
            return value + 0.0
        u1, u2 = self._double_uniform(), self._double_uniform()
        radius = math.sqrt(-2.0 * math.log1p(-u2))
        theta = 2.0 * math.pi * u1
        self._next_normal = radius * math.sin(theta)
        return radius * math.cos(theta) + 0.0

    def _double_uniform(self) -> float:
        high, low = (int(word) for word in self._words.random_raw(2))
        word = ((high << 32) | low) & ((1 << _DOUBLE_UNIFORM_BITS) - 1)
        return word * 2.0**-_DOUBLE_UNIFORM_BITS


def _seeded_state(seed: int) -> npt.NDArray[np.uint32]:
    """The initial state of MT19937 for a 32-bit seed, as its authors' `init_genrand` makes it."""
    state = np.empty(_STATE_WORDS, np.uint32)
    word = seed & 0xFFFFFFFF
    for index in range(_STATE_WORDS):
        state[index] = word
        word = (1812433253 * (word ^ (word >> 30)) + index + 1) & 0xFFFFFFFF
    return state


def _box_muller(uniforms: Float32Array) -> Float32Array:
    """Turn uniforms in [0, 1) into normals, sixteen at a time: float32 [16 * n] -> [16 * n]."""
    groups = uniforms.reshape(-1, 2, _HALF_GROUP)
    radius = np.sqrt(np.float32(-2) * _log(np.float32(1) - groups[:, 0]))
    sine, cosine = _sine_and_cosine(np.float32(_TWO_PI) * groups[:, 1])
    normals = np.empty_like(groups)
    np.multiply(radius, cosine, out=normals[:, 0])
    np.multiply(radius, sine, out=normals[:, 1])
    # The kernel ends on `normal * std + mean`; adding the mean of 0 turns -0 into 0.
    normals += np.float32(0)
    return normals.reshape(-1)


def _log(x: Float32Array) -> Float32Array:
    """Cephes' natural logarithm of positive normal float32 numbers, in the kernel's operations."""
    one, half = np.float32(1), np.float32(0.5)
    bits = x.view(np.int32)
    exponent = ((bits >> 23) - 127).astype(np.float32) + one
    mantissa = ((bits & 0x007FFFFF) | 0x3F000000).view(np.float32)
    below = mantissa < np.float32(_SQRT_HALF)
    exponent = exponent - below
    x = (mantissa - one) + mantissa * below
    square = x * x
    y: Float32Array = np.full_like(x, _LOG_P[0])
    for coefficient in _LOG_P[1:]:
        y = _fused_multiply_add(y, x, coefficient)
    y = y * x
    y = _fused_multiply_add(y, square, exponent * np.float32(_LOG_Q1))
    y = y - square * half
    return _fused_multiply_add(exponent, _LOG_Q2, x + y)


def _sine_and_cosine(x: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Cephes' sine and cosine of non-negative float32 numbers, in the kernel's operations."""
    half = np.float32(0.5)
    octant = ((x * np.float32(_FOUR_OVER_PI)).astype(np.int32) + 1) & ~1
    multiple = octant.astype(np.float32)
    for part in _MINUS_PI_QUARTER_PARTS:
        x = _fused_multiply_add(multiple, part, x)
    square = x * x

    cosine = _fused_multiply_add(square, _COS_P[0], _COS_P[1])
    cosine = _fused_multiply_add(cosine, square, _COS_P[2]) * square
    cosine = _fused_multiply_add(cosine, square, square * -half) + np.float32(1)
    sine = _fused_multiply_add(square, _SIN_P[0], _SIN_P[1])
    sine = _fused_multiply_add(sine, square, _SIN_P[2]) * square
    sine = _fused_multiply_add(sine, x, x)

    straight = (octant & 2) == 0
    sine_sign = (octant & 4) << 29
    cosine_sign = (~(octant - 2) & 4) << 29
    return (
        _flip_sign(np.where(straight, sine, cosine), sine_sign),
        _flip_sign(np.where(straight, cosine, sine), cosine_sign),
    )


def _flip_sign(x: Float32Array, sign_bit: npt.NDArray[np.int32]) -> Float32Array:
    return (x.view(np.int32) ^ sign_bit).view(np.float32)


def _fused_multiply_add(
    a: Float32Array, b: Float32Array | float, c: Float32Array | float
) -> Float32Array:
    """`a * b + c` of float32 numbers, rounded to float32 once.

    The product is exact in float64. The sum is rounded there and again to float32, which goes wrong
    only where the first rounding lands on the midpoint of two float32 numbers.
    """
    product: Float64Array = np.multiply(a, b, dtype=np.float64)
    total = product + c
    midpoint = (total.view(np.int64) & 0x1FFFFFFF) == 0x10000000
    if midpoint.any():
        # Knuth's TwoSum: the exact error of the sum says to which side of the midpoint it lies.
        addend = total - product
        error = (product - (total - addend)) + (c - addend)
        towards = np.copysign(np.inf, error)
        total = np.where(midpoint & (error != 0), np.nextafter(total, towards), total)
    return total.astype(np.float32)
