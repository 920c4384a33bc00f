"""Which program computes an attention, and that the kernel for TPUs computes the same."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from hotshot_jax.models.layers.attention import dot_product_attention
from hotshot_jax.models.layers.attention_choice import Accelerator, choose_attention
from hotshot_jax.models.layers.flash_attention import splash_attention
from hotshot_jax.models.layers.narrow_attention import head_sums_attention

CPU, TPU = Accelerator("cpu"), Accelerator("tpu")
H100, T4, ROCM = Accelerator("cuda", 9.0), Accelerator("cuda", 7.5), Accelerator("rocm")
BF16, F16, F32 = jnp.bfloat16, jnp.float16, jnp.float32

# Of the full-size model for 8 frames of 512 x 512 with guidance.
MIDDLE = (2, 8, 1024, 10, 64)
DEEP = (2, 8, 256, 20, 64)
TEMPORAL = (2, 4096, 8, 8, 40)
TEXT = (2, 8, 1024, 10, 64), (2, 8, 77, 10, 64)
VAE = (1, 1, 4096, 1, 512)


@pytest.mark.parametrize(
    ("accelerator", "query", "key", "dtype", "expected"),
    [
        (CPU, MIDDLE, MIDDLE, F32, "xla"),
        (CPU, MIDDLE, MIDDLE, BF16, "xla"),
        (CPU, TEMPORAL, TEMPORAL, BF16, "xla"),
        (ROCM, MIDDLE, MIDDLE, BF16, "xla"),
        (TPU, MIDDLE, MIDDLE, BF16, "splash"),
        (TPU, MIDDLE, MIDDLE, F32, "xla"),
        # 80 and 40 MiB of logits.
        (TPU, (2, 1, *MIDDLE[2:]), (2, 1, *MIDDLE[2:]), BF16, "splash"),
        (TPU, (1, 1, *MIDDLE[2:]), (1, 1, *MIDDLE[2:]), BF16, "late_division"),
        (TPU, (2, 1, 4096, 10, 64), (2, 1, 4096, 10, 64), BF16, "splash"),
        (TPU, DEEP, DEEP, BF16, "late_division"),
        (TPU, DEEP, DEEP, F16, "xla"),
        (TPU, TEMPORAL, TEMPORAL, BF16, "head_sums"),
        (TPU, TEMPORAL, TEMPORAL, F32, "xla"),
        (TPU, (2, 1024, 8, 8, 80), (2, 1024, 8, 8, 80), BF16, "late_division"),
        (TPU, (2, 4096, 16, 8, 40), (2, 4096, 16, 8, 40), BF16, "late_division"),
        (TPU, *TEXT, BF16, "late_division"),
        (TPU, VAE, VAE, F32, "xla"),
        (TPU, (2, 8, 1024, 10, 40), (2, 8, 1024, 10, 40), BF16, "late_division"),
        (H100, MIDDLE, MIDDLE, BF16, "cudnn"),
        (H100, MIDDLE, MIDDLE, F16, "cudnn"),
        (H100, MIDDLE, MIDDLE, F32, "xla"),
        (H100, DEEP, DEEP, BF16, "xla"),
        (H100, TEMPORAL, TEMPORAL, BF16, "xla"),
        (H100, *TEXT, BF16, "xla"),
        (H100, VAE, VAE, BF16, "xla"),
        (H100, (2, 8, 1024, 10, 60), (2, 8, 1024, 10, 60), BF16, "xla"),
        (T4, MIDDLE, MIDDLE, F16, "xla"),
    ],
)
def test_choice(
    accelerator: Accelerator,
    query: tuple[int, ...],
    key: tuple[int, ...],
    dtype: object,
    expected: str,
) -> None:
    assert choose_attention(accelerator, query, key, dtype) == expected


def test_no_kernel_is_chosen_for_causal_attention() -> None:
    assert choose_attention(TPU, MIDDLE, MIDDLE, BF16, causal=True) == "xla"


def test_what_counts_is_what_one_device_computes() -> None:
    device = AbstractDevice(device_kind="TPU v5 lite", num_cores=1, platform="tpu")
    for videos, expected in ((2, "late_division"), (1, "splash")):
        mesh = AbstractMesh(
            (videos, 8), ("data", "frames"), (AxisType.Auto,) * 2, abstract_device=device
        )
        with jax.sharding.use_abstract_mesh(mesh):
            assert Accelerator.current() == TPU
            assert choose_attention(TPU, MIDDLE, MIDDLE, BF16) == expected
    assert Accelerator.current() == CPU


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", H100),
        ("NVIDIA A100-SXM4-80GB", Accelerator("cuda", 8.0)),
        ("NVIDIA GeForce RTX 4090", Accelerator("cuda", 8.9)),
        ("NVIDIA T1000", Accelerator("cuda", 0.0)),
    ],
)
def test_a_gpu_that_is_compiled_for_need_not_be_there(kind: str, expected: Accelerator) -> None:
    device = AbstractDevice(device_kind=kind, num_cores=132, platform="gpu")
    mesh = AbstractMesh((1,), ("data",), (AxisType.Auto,), abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        assert Accelerator.current() == expected


@pytest.mark.parametrize(("dtype", "tolerance"), [(F32, 1e-5), (BF16, 2e-2)])
def test_sums_over_narrow_heads_equal_xla(dtype: object, tolerance: float) -> None:
    numbers = np.random.default_rng(0)
    arrays = [jnp.asarray(numbers.standard_normal((2, 5, 8, 4, 40)), dtype) for _ in range(3)]

    def values_and_gradients(attend: Callable[..., jax.Array]) -> tuple[jax.Array, ...]:
        def loss(*arrays: jax.Array) -> jax.Array:
            return jnp.square(attend(*arrays).astype(F32)).sum()

        return (attend(*arrays), *jax.grad(loss, (0, 1, 2))(*arrays))

    with jax.default_matmul_precision("float32"):
        expected, found = map(values_and_gradients, (dot_product_attention, head_sums_attention))
    for theirs, ours in zip(expected, found, strict=True):
        theirs, ours = (np.asarray(each, np.float32) for each in (theirs, ours))
        assert ours.shape == theirs.shape
        assert np.linalg.norm(ours - theirs) <= tolerance * np.linalg.norm(theirs)


def test_the_kernel_for_tpus_equals_xla() -> None:
    """Its 200 tokens are padded to 256, and the padding must not be attended to."""
    numbers = np.random.default_rng(0)
    arrays = [
        jnp.asarray(numbers.standard_normal((1, 2, 200, 2, 64)), jnp.float32) for _ in range(4)
    ]

    def loss(attention: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
        return (attention(*arrays[:3]) * arrays[3]).sum()

    kernel = functools.partial(splash_attention, interpret=True)
    found, expected = (
        jax.jit(jax.value_and_grad(functools.partial(loss, way), argnums=(0, 1, 2)))(*arrays)
        for way in (kernel, dot_product_attention)
    )
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    for ours, theirs in zip(found[1], expected[1], strict=True):
        # float32 sums over the tokens in another order.
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
