"""From pixels to latents and back."""

import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from hotshot_jax.errors import HotshotError
from hotshot_jax.models import AutoencoderKL
from hotshot_jax.parallel.placement import image_sharding, on_host, place
from hotshot_jax.runtime.precision import Precision
from hotshot_jax.runtime.runtime import Runtime


def latent_moments(vae: AutoencoderKL, frames: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation of the latents of pictures, not yet scaled; to be compiled.

    Args:
        vae: in any float dtype, in which it encodes.
        frames: uint8 `[videos, frames, height, width, 3]`.

    Returns:
        Two of float32 `[videos, frames, height / 8, width / 8, channels]`.
    """
    pixels = (frames.astype(jnp.float32) / 255 - 0.5) / 0.5
    distribution = vae.encode(pixels.astype(jax.tree.leaves(vae)[0].dtype))
    mean = distribution.mean.astype(jnp.float32)
    # From float32, since the exponential of a half-precision number has few digits.
    return mean, jnp.exp(0.5 * distribution.log_variance.astype(jnp.float32))


def decoded_pixels(vae: AutoencoderKL, latents: jax.Array) -> jax.Array:
    """The pictures of latents; to be compiled.

    Args:
        vae: in any float dtype, in which it decodes.
        latents: scaled, float32 `[..., height / 8, width / 8, channels]`.

    Returns:
        float32 `[..., height, width, 3]` in [0, 1].
    """
    dtype = jax.tree.leaves(vae)[0].dtype
    pixels = vae.decode((latents / vae.config.scaling_factor).astype(dtype))
    return jnp.clip(pixels.astype(jnp.float32) / 2 + 0.5, 0.0, 1.0)


def encode_frames(
    runtime: Runtime, frames: np.ndarray, noise: np.ndarray, *, most_frames: int
) -> np.ndarray:
    """Samples the latents of pictures, a few frames at a time, in the VAE's precision.

    Args:
        runtime: holds the VAE.
        frames: uint8 `[frames, height, width, 3]`.
        noise: standard normal, `[videos, frames, height / 8, width / 8, channels]`.
        most_frames: frames that a device encodes at once, at most.

    Returns:
        `[videos, frames, height / 8, width / 8, channels]` as the UNet sees them, float32.
    """
    arrays, build = runtime.model("vae")
    left = len(frames)

    def encode(arrays: list[jax.Array], frames: jax.Array) -> tuple[jax.Array, jax.Array]:
        vae: AutoencoderKL = build(arrays)
        return latent_moments(vae, frames)

    chunks, out_sharding = _divided(runtime, frames[None], most_frames)
    first = next(chunks)
    program = runtime.program(
        "VAE encoder",
        None,
        encode,
        (arrays, first),
        matmul=_products(runtime),
        out_shardings=out_sharding,
    )
    moments: list[list[np.ndarray]] = [[], []]
    with runtime.progress.stage("encoding", left, "frame") as advance:
        for chunk in itertools.chain([first], chunks):
            for kept, found in zip(moments, program(arrays, chunk), strict=True):
                kept.append(on_host(found).reshape(-1, *found.shape[-3:])[:left])
            left -= len(moments[0][-1])
            advance(len(moments[0][-1]))
    runtime.rest("vae")
    mean, deviation = map(np.concatenate, moments)
    scaling = np.float32(runtime.components.vae.config.scaling_factor)
    return scaling * (mean + deviation * noise)


def decode_latents(
    runtime: Runtime, latents: jax.Array, *, most_frames: int
) -> Iterator[np.ndarray]:
    """Decodes videos, a few frames at a time, in the VAE's precision.

    On a mesh, frames of all videos are spread over all devices, whatever axes these are on.

    Args:
        runtime: holds the VAE.
        latents: `[videos, frames, height / 8, width / 8, 4]`, as the UNet sees them.
        most_frames: frames that a device decodes at once, at most.

    Yields:
        `[images, height, width, 3]`, float32 in [0, 1]: all frames of the first video, then of the
        next.

    Raises:
        HotshotError: there are values that are not finite.
    """
    arrays, build = runtime.model("vae")

    def decode(arrays: list[jax.Array], latents: jax.Array) -> jax.Array:
        return decoded_pixels(build(arrays), latents)

    left = latents.shape[0] * latents.shape[1]
    chunks, out_sharding = _divided(runtime, latents, most_frames)
    # All chunks have one shape, and the time to compile for it is not decoding.
    first = next(chunks)
    program = runtime.program(
        "VAE decoder",
        None,
        decode,
        (arrays, first),
        matmul=_products(runtime),
        out_shardings=out_sharding,
    )
    with runtime.progress.stage("decoding", left, "frame") as advance:
        for chunk in itertools.chain([first], chunks):
            decoded = on_host(program(arrays, chunk))
            # Without the leading axis of one video, and without what filled up the last chunk.
            images = decoded.reshape(-1, *decoded.shape[-3:])[:left]
            left -= len(images)
            _check_finite(images, runtime.precision)
            yield images
            advance(len(images))
    runtime.rest("vae")


def decode_videos(runtime: Runtime, latents: jax.Array, *, most_frames: int) -> np.ndarray:
    """All that `decode_latents` gives, `[videos, frames, height, width, 3]`."""
    images = np.concatenate(list(decode_latents(runtime, latents, most_frames=most_frames)))
    return images.reshape(*latents.shape[:2], *images.shape[1:])


def _products(runtime: Runtime) -> str:
    """For `jax.default_matmul_precision`."""
    config = runtime.components.vae.config
    return runtime.precision.of_vae(force_upcast=config.force_upcast).matmul


def _check_finite(frames: np.ndarray, precision: Precision) -> None:
    if not np.isfinite(frames).all():
        raise HotshotError(
            "The result has values that are not finite; nothing was written. With precision "
            f"{precision.name}, try bf16 or f32; otherwise the checkpoint is damaged."
        )


def _divided(
    runtime: Runtime, videos: Any, most_frames: int
) -> tuple[Iterator[Any], NamedSharding | None]:
    """Frames a few at a time, where a program takes them, and where its results lie."""
    if runtime.mesh is None:
        return _chunks(videos, most_frames), None
    return _chunks_on_mesh(videos, most_frames, runtime.mesh), image_sharding(runtime.mesh)


def _chunks(latents: Any, most_frames: int) -> Iterator[Any]:
    """`[1, frames, ...]`: a few frames of a video."""
    videos, frames = latents.shape[:2]
    at_once = _at_once(frames, most_frames)
    for video in range(videos):
        for first in range(0, frames, at_once):
            yield latents[video : video + 1, first : first + at_once]


def _chunks_on_mesh(latents: Any, most_frames: int, mesh: Mesh) -> Iterator[jax.Array]:
    """`[images, ...]`: as many for each device, of whatever videos; the last are filled up."""
    images = on_host(latents)
    images = images.reshape(-1, *images.shape[2:])
    each = -(-len(images) // mesh.size)
    images = np.concatenate([images, np.zeros_like(images[:1]).repeat(each * mesh.size, 0)])
    at_once = _at_once(each, most_frames) * mesh.size
    for first in range(0, each * mesh.size, at_once):
        yield place(images[first : first + at_once], image_sharding(mesh))


def _at_once(frames: int, most: int) -> int:
    return max(count for count in range(1, most + 1) if frames % count == 0)
