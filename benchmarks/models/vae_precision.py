"""How far the VAE's pixels lie from float32's in fewer passes and in bfloat16, on any device.

    python -m benchmarks.models.vae_precision                # the small built-in model
    python -m benchmarks.models.vae_precision --full 256     # SDXL's size, formula weights

Products are those of a TPU, emulated (`bfloat16_passes`). Clips of the built-in model are its own;
the VAE of full size decodes standard normal latents to pictures of so many pixels a side.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.models.bfloat16_passes import with_passes
from benchmarks.models.formula_weights import formula_source, read_shapes
from benchmarks.models.loading import load_module
from hotshot_jax.models import AutoencoderKL
from hotshot_jax.models.vae import AutoencoderKLConfig
from hotshot_jax.pipelines.hotshot_xl import HotshotXLPipeline
from hotshot_jax.pipelines.latents import decoded_pixels

_MODELS = Path(__file__).parents[2] / "tests" / "golden" / "models"
PROMPTS = ("a red circle moving to the right", "a blue square growing")


@dataclasses.dataclass(frozen=True)
class Difference:
    """What becomes of float32's pixels, in units of 1/255.

    Attributes:
        most: of any pixel.
        mean: over all of them, without sign.
    """

    most: float
    mean: float


def differences(vae: AutoencoderKL, latents: Any) -> dict[str, Difference]:
    """How far pixels lie from float32's.

    Args:
        vae: float32.
        latents: `[..., height, width, channels]`, as the UNet sees them.

    Returns:
        For `bf16x3`, for `bf16`, and for float32 activations with products of one pass (`1 pass`).
    """
    half = with_dtype(vae, jnp.bfloat16)
    exact = jax.jit(decoded_pixels)(vae, latents)
    ways: dict[str, tuple[Callable[..., Any], AutoencoderKL]] = {
        "bf16x3": (with_passes(decoded_pixels, 3), vae),
        "1 pass": (with_passes(decoded_pixels, 1), vae),
        "bf16": (decoded_pixels, half),
    }
    found = {}
    for name, (function, model) in ways.items():
        apart = 255 * np.abs(np.asarray(jax.jit(function)(model, latents)) - np.asarray(exact))
        found[name] = Difference(float(apart.max()), float(apart.mean()))
    return found


def with_dtype(vae: AutoencoderKL, dtype: Any) -> AutoencoderKL:
    """The same VAE, with weights and activations of another dtype."""

    def build() -> AutoencoderKL:
        return AutoencoderKL(vae.config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=dtype)

    structure = jax.tree.structure(nnx.eval_shape(build))
    leaves = [leaf.astype(dtype) for leaf in jax.tree.leaves(vae)]
    return jax.tree.unflatten(structure, leaves)


def full_size_vae() -> AutoencoderKL:
    """SDXL's VAE with weights from a formula."""
    path = _MODELS / "sdxl_full.vae.config.json"
    config = AutoencoderKLConfig.from_dict(json.loads(path.read_text()))
    shapes = _MODELS / "sdxl_full.vae.shapes.json"
    return load_module(
        lambda rngs: AutoencoderKL(config, rngs=rngs),
        formula_source(read_shapes(shapes), 0, shapes),
        where="vae",
        dtype=jnp.float32,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.models.vae_precision",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--full", type=int, metavar="PIXELS", help="a VAE of SDXL's size")
    parser.add_argument("--seeds", type=int, default=1, help="clips of each prompt (default: 1)")
    options = parser.parse_args(arguments)
    if options.full is not None:
        vae = full_size_vae()
        shape = (1, options.full // 8, options.full // 8, vae.config.latent_channels)
        latents: Any = np.random.default_rng(0).standard_normal(shape, np.float32)
        latents = latents * np.float32(vae.config.scaling_factor)
    else:
        pipeline = HotshotXLPipeline.from_pretrained(precision="f32")
        made = pipeline(
            list(PROMPTS),
            num_inference_steps=10,
            num_videos_per_prompt=options.seeds,
            output_type="latent",
        )
        vae, latents = pipeline.components.vae, made.videos
    spread = float(255 * np.asarray(jax.jit(decoded_pixels)(vae, latents)).std())
    print(f"{tuple(latents.shape)} latents; pixels' standard deviation {spread:.1f} of 255")
    for name, apart in differences(vae, latents).items():
        print(f"{name:>8}: at most {apart.most:.4f} of 255, mean {apart.mean:.5f}")


if __name__ == "__main__":
    main()
