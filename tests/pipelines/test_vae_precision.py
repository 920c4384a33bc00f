"""In what the VAE works: as before where nothing changes, bfloat16 where it was made for that."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hotshot_jax.errors import UsageError
from hotshot_jax.pipelines import HotshotXLPipeline
from hotshot_jax.pipelines.latents import decode_videos, encode_frames
from hotshot_jax.runtime.precision import Precision

LATENTS = np.random.default_rng(0).standard_normal((1, 4, 4, 4, 4)).astype(np.float32)
FRAMES = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def made_for_half(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VAE's folder, as `sdxl-vae-fp16-fix` is published."""
    folder = tmp_path_factory.mktemp("half") / "vae"
    shutil.copytree(tiny_checkpoint / "vae", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"force_upcast": False}))
    return folder


def load(checkpoint: Path, vae_precision: str | None = None, **options: Any) -> HotshotXLPipeline:
    return HotshotXLPipeline.from_pretrained(
        str(checkpoint), precision="f32", vae_precision=vae_precision, **options
    )


def decoded(pipeline: HotshotXLPipeline) -> np.ndarray:
    return decode_videos(pipeline.runtime, jnp.asarray(LATENTS), most_frames=4)


def encoded(pipeline: HotshotXLPipeline) -> np.ndarray:
    noise = np.ones((1, 2, 4, 4, 4), np.float32)
    return encode_frames(pipeline.runtime, FRAMES, noise, most_frames=2)


def dtype_of(pipeline: HotshotXLPipeline) -> Any:
    (dtype,) = {leaf.dtype for leaf in jax.tree.leaves(pipeline.components.vae)}
    return dtype


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Any:
    def pretend(platform: str) -> None:
        monkeypatch.setattr("hotshot_jax.pipelines.hotshot_xl.current_platform", lambda: platform)

    return pretend


def test_float32_is_what_it_was_bit_by_bit(tiny_checkpoint: Path) -> None:
    pipelines = [load(tiny_checkpoint, name) for name in (None, "f32", "bf16x3")]
    vae = pipelines[0].components.vae

    def as_before(latents: jax.Array) -> jax.Array:
        return jnp.clip(vae.decode(latents / vae.config.scaling_factor) / 2 + 0.5, 0.0, 1.0)

    with jax.default_matmul_precision("float32"):
        expected = np.asarray(jax.jit(as_before)(LATENTS))
    for pipeline in pipelines:
        assert dtype_of(pipeline) == jnp.float32
        np.testing.assert_array_equal(decoded(pipeline), expected)
        np.testing.assert_array_equal(encoded(pipeline), encoded(pipelines[0]))


def test_bfloat16_is_close_and_not_the_same(tiny_checkpoint: Path) -> None:
    exact, half = load(tiny_checkpoint), load(tiny_checkpoint, "bf16")
    assert dtype_of(half) == jnp.bfloat16
    for function in (decoded, encoded):
        got, expected = function(half), function(exact)
        assert got.dtype == np.float32
        # Eight bits in every one of some thirty layers.
        assert 1e-4 < np.abs(got - expected).mean() < 0.05 * np.ptp(expected)


@pytest.mark.parametrize(
    ("platform", "vae_precision", "dtype"),
    [
        ("tpu", None, jnp.bfloat16),
        ("gpu", None, jnp.bfloat16),
        ("cpu", None, jnp.float32),
        ("tpu", "f32", jnp.float32),
        ("cpu", "bf16", jnp.bfloat16),
    ],
)
def test_a_vae_made_for_half_precision_is_known_by_its_configuration(
    tiny_checkpoint: Path,
    made_for_half: Path,
    on: Any,
    platform: str,
    vae_precision: str | None,
    dtype: Any,
) -> None:
    on(platform)
    assert dtype_of(load(tiny_checkpoint, vae_precision, vae=str(made_for_half))) == dtype


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_the_published_vae_stays_float32(tiny_checkpoint: Path, on: Any, platform: str) -> None:
    on(platform)
    assert dtype_of(load(tiny_checkpoint)) == jnp.float32


@pytest.mark.parametrize(
    ("platform", "vae_precision", "matmul"),
    [
        ("tpu", None, "high"),
        ("tpu", "f32", "float32"),
        ("tpu", "bf16", "default"),
        ("gpu", None, "float32"),
        ("gpu", "bf16x3", "float32"),
    ],
)
def test_the_compiler_is_told(
    tiny_checkpoint: Path,
    on: Any,
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    vae_precision: str | None,
    matmul: str,
) -> None:
    on(platform)
    pipeline, asked = load(tiny_checkpoint, vae_precision), []

    @contextlib.contextmanager
    def noted(name: str | None) -> Iterator[None]:
        asked.append(name)
        yield

    monkeypatch.setattr(jax, "default_matmul_precision", noted)
    decoded(pipeline)
    encoded(pipeline)
    assert asked == [matmul, matmul]


def test_an_unknown_name_fails_before_weights_are_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="vae_precision 'f16' is unknown; expected f32, bf16x3"):
        load(tmp_path / "nowhere", "f16")


def test_a_precision_of_the_vae_does_not_touch_the_unet() -> None:
    assert Precision.named("f16", "tpu", "f32").compute == jnp.bfloat16
