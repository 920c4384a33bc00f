"""Where the random numbers of a sampling run come from."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from hotshot_jax.choices import INITIAL_NOISES, NOISES
from hotshot_jax.errors import UsageError
from hotshot_jax.sampling.torch_noise import TorchGenerator
from hotshot_jax.sampling.windows import ContextConfig


class NoiseSource(Protocol):
    """Gives one standard normal array after another."""

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        """The next float32 array `[videos, frames, height, width, channels]`."""
        ...

    def draw_pictures(self, shape: tuple[int, ...]) -> np.ndarray:
        """The next array, drawn frame by frame; one video for all where they share a seed."""
        ...


class TorchNoise:
    """What `torch.randn` gives on a CPU, so that a seed means the picture that it means there."""

    def __init__(self, seeds: Sequence[int], dtype: np.dtype):
        """Takes one seed for all videos together, or one for each; `dtype` is the dtype drawn."""
        self._generators = [TorchGenerator(seed) for seed in seeds]
        self._dtype = dtype

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        """The next float32 array `[videos, frames, height, width, channels]`."""
        videos, frames, height, width, channels = shape
        shared = len(self._generators) == 1
        each = (videos if shared else 1, channels, frames, height, width)
        drawn = np.concatenate([g.randn(each, self._dtype) for g in self._generators])
        return np.moveaxis(drawn, 1, -1).astype(np.float32, order="C")

    def draw_pictures(self, shape: tuple[int, ...]) -> np.ndarray:
        """The next float32 array `[1 or videos, frames, height, width, channels]`."""
        _, frames, height, width, channels = shape
        each = (frames, channels, height, width)
        drawn = np.stack([g.randn(each, self._dtype) for g in self._generators])
        return np.moveaxis(drawn, 2, -1).astype(np.float32, order="C")


class JaxNoise:
    """What `jax.random.normal` gives, from one key for each video."""

    def __init__(self, seeds: Sequence[int]):
        """Takes one seed for all videos together, or one for each."""
        self._keys = [jax.random.key(seed & 0xFFFFFFFF) for seed in seeds]
        self._draws = 0

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        """The next float32 array `[videos, frames, height, width, channels]`."""
        shared = len(self._keys) == 1
        each = shape if shared else (1, *shape[1:])
        keys = [jax.random.fold_in(key, self._draws) for key in self._keys]
        self._draws += 1
        return np.concatenate([np.asarray(jax.random.normal(key, each)) for key in keys])

    def draw_pictures(self, shape: tuple[int, ...]) -> np.ndarray:
        """The next float32 array `[1 or videos, frames, height, width, channels]`."""
        return self.draw((len(self._keys), *shape[1:]))


class GivenNoise:
    """Arrays that the caller brings, in the order in which they are used."""

    def __init__(self, arrays: Iterator[np.ndarray]):
        """Takes float arrays `[videos, frames, height, width, channels]`."""
        self._arrays = arrays

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        """The next array, as float32.

        Raises:
            UsageError: there is none left, or it has another shape.
        """
        array = next(self._arrays, None)
        if array is None:
            raise UsageError("noise: fewer arrays were given than the scheduler draws.")
        if array.shape != shape:
            raise UsageError(f"noise: an array of shape {array.shape}, expected {shape}.")
        return np.asarray(jnp.asarray(array, jnp.float32))

    def draw_pictures(self, shape: tuple[int, ...]) -> np.ndarray:
        """The next array, which all videos share: `[1, frames, height, width, channels]`."""
        return self.draw((1, *shape[1:]))


def source_frames(
    kind: str,
    seed: int | Sequence[int],
    videos: int,
    frames: int,
    context: ContextConfig | None,
) -> np.ndarray | None:
    """Which frame of the noise that is drawn each frame of a clip starts from.

    FreeNoise (Qiu et al., 2023, https://arxiv.org/abs/2310.15169): from the second window on, what
    is new in a window has the noise of the frames one window before, in another order. The order
    comes from a generator of its own with the clip's seed, so that later draws stay what they are.

    Args:
        kind: one of `INITIAL_NOISES`.
        seed: one for all videos together, or one for each.
        videos: how many there are.
        frames: of a clip.
        context: how the clip is divided into windows.

    Returns:
        int `[videos, frames]`, or None where every frame has its own noise.

    Raises:
        UsageError: the kind is unknown.
    """
    if kind not in INITIAL_NOISES:
        raise UsageError(f"`initial_noise` is {kind!r}; expected {' or '.join(INITIAL_NOISES)}.")
    if kind == "independent" or context is None:
        return None
    seeds = [seed] if isinstance(seed, int) else list(seed)
    rows = [freenoise_frames(each, frames, context.length, context.overlap) for each in seeds]
    return np.broadcast_to(np.array(rows), (videos, frames))


def freenoise_frames(seed: int, frames: int, length: int, overlap: int) -> np.ndarray:
    """The frames of FreeNoise for one seed, int `[frames]`.

    Args:
        seed: of the clip.
        frames: of the clip.
        length: frames of a window.
        overlap: frames that neighbouring windows share.
    """
    generator = TorchGenerator(seed)
    sources = np.arange(frames)
    for start in range(length, frames, length - overlap):
        room = min(length - overlap, frames - start)
        sources[start : start + room] = sources[start - length + generator.randperm(room)]
    return sources


def check_seed(seed: int) -> None:
    """Checks a seed.

    Raises:
        UsageError: it is not a whole number from 0 to 2**64 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise UsageError(f"seed {seed!r}: expected a whole number from 0 to 2**64 - 1.")


def noise_source(
    given: str | Iterable[np.ndarray],
    seed: int | Sequence[int],
    videos: int,
    dtype: np.dtype,
) -> NoiseSource:
    """What a call of the pipeline draws from.

    Args:
        given: one of `NOISES`, or the arrays themselves in the order of their use.
        seed: one for all videos together, or one for each.
        videos: how many there are.
        dtype: dtype drawn.

    Raises:
        UsageError: there are other numbers of seeds than of videos, or see `make_noise`.
    """
    if not isinstance(given, str):
        return GivenNoise(iter(given))
    seeds = [seed] if isinstance(seed, int) else list(seed)
    if len(seeds) not in (1, videos):
        raise UsageError(f"{len(seeds)} seeds for {videos} videos; expected one, or as many.")
    return make_noise(given, seeds, dtype)


def make_noise(kind: str, seeds: Sequence[int], dtype: np.dtype) -> NoiseSource:
    """The noise source called `kind`.

    Raises:
        UsageError: the kind is unknown, or a seed is negative or past 2**64.
    """
    for seed in seeds:
        check_seed(seed)
    if kind == "torch":
        return TorchNoise(seeds, dtype)
    if kind == "jax":
        return JaxNoise(seeds)
    raise UsageError(f"noise {kind!r} is unknown; expected {' or '.join(NOISES)}.")
