"""What is kept for the backward pass changes memory, and nothing else."""

import functools
import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hotshot_jax.cli.train.settings import TrainSettings, parse_train_settings
from hotshot_jax.errors import UsageError
from hotshot_jax.models.layers.layers import Layers
from hotshot_jax.models.unet.blocks import DownBlock3D
from hotshot_jax.models.unet.encoder_config import TemporalShape, UNetLevel
from hotshot_jax.training.rematerialisation import rematerialise

LEVEL = UNetLevel(
    channels=32,
    heads=2,
    transformer_depth=2,
    cross_attention=True,
    groups=32,
    epsilon=1e-5,
    time_channels=32,
    text_channels=16,
    temporal=TemporalShape(),
)
# Kept for the backward pass: from most to least.
ORDER = ("none", "dots", "blocks", "full")


class OneLevel(nnx.Module):
    """A model of a single block, where a UNet has its blocks."""

    def __init__(self, block: DownBlock3D):
        self.down_blocks = nnx.List([block])
        self.mid_block = nnx.Module()
        self.up_blocks = nnx.List([])


def make_block() -> DownBlock3D:
    layers = Layers.create(nnx.Rngs(0), jnp.float32, jnp.float32)
    return DownBlock3D(32, LEVEL, layers, depth=1, downsample=False)


def loss(name: str, side: int) -> Callable[..., jax.Array]:
    """The mean square of what one level of a UNet gives for its parameters."""
    numbers = np.random.default_rng(0)
    x = jnp.asarray(numbers.standard_normal((1, 2, side, side, 32)), jnp.float32)
    text = jnp.asarray(numbers.standard_normal((1, 1, 8, 16)), jnp.float32)

    def of(block: DownBlock3D) -> jax.Array:
        block = nnx.merge(*nnx.split(block))
        rematerialise(OneLevel(block), name)  # type: ignore[arg-type]
        return jnp.square(block(x, jnp.ones((1, 1, 32)), block.project_text(text))[0]).mean()

    return of


def compiled_for_tpu() -> None:
    """Prints what each way needs on a TPU, as JSON."""
    from benchmarks.compile.topologies import Topology, without_tpu

    without_tpu()
    device = Topology.parse("v5e-1").devices()[0]
    place = jax.sharding.SingleDeviceSharding(device)
    block = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        nnx.eval_shape(make_block),
    )
    needed = {}
    for name in ORDER:
        lowered = jax.jit(jax.grad(loss(name, side=64))).lower(block)
        memory = lowered.compile({"xla_optimization_level": "EFFORT_O1"}).memory_analysis()
        assert memory is not None
        needed[name] = memory.temp_size_in_bytes
    print(json.dumps(needed))


@functools.cache
def gradients(name: str) -> np.ndarray:
    block = jax.jit(make_block)()
    # Fresh temporal layers end in zeros, and most of their gradients would be zero too.
    last = block.temporal_attentions[0].proj_out.kernel
    last[...] = 0.2 * jax.random.normal(jax.random.key(0), last.shape)
    leaves = jax.tree.leaves(jax.jit(jax.grad(loss(name, side=4)))(block))
    return np.concatenate([np.ravel(leaf) for leaf in leaves])


@pytest.mark.parametrize(
    # "full" does all that "blocks" does, and more.
    "name",
    ["dots", "full", pytest.param("blocks", marks=pytest.mark.slow)],
)
def test_gradients_stay_the_same(name: str) -> None:
    expected, found = gradients("none"), gradients(name)
    assert np.count_nonzero(expected) > 0.9 * expected.size
    # The same operations in another order: float32 rounding.
    assert np.linalg.norm(found - expected) < 1e-6 * np.linalg.norm(expected)


def kept_bytes(name: str) -> int:
    """Size of what the forward pass hands to the backward pass, the parameters included."""
    _, backward = jax.eval_shape(
        lambda block: jax.vjp(loss(name, 16), block), nnx.eval_shape(make_block)
    )
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(backward))


def test_less_is_handed_to_the_backward_pass() -> None:
    kept = {name: kept_bytes(name) for name in ORDER}
    assert kept["none"] > 2 * kept["dots"]
    assert kept["dots"] > 2 * kept["blocks"]
    # These differ in what is kept while a layer is computed again.
    assert kept["full"] == kept["blocks"]


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu, the TPU compiler, is not installed"
)
def test_compiled_programs_need_less_memory() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import compiled_for_tpu as run; run()"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    needed = list(json.loads(finished.stdout.splitlines()[-1]).values())
    assert needed == sorted(needed, reverse=True)
    assert needed[-1] < 0.5 * needed[0]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="'all' is unknown; expected none, blocks"):
        rematerialise(None, "all")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ([], "none"),
        (["--gradient_checkpointing"], "blocks"),
        (["--remat", "dots"], "dots"),
        (["--gradient_checkpointing", "--remat", "full"], "full"),
    ],
)
def test_flags(arguments: list[str], name: str) -> None:
    settings: TrainSettings = parse_train_settings(arguments, "train.py")
    assert settings.rematerialisation == name
