"""Clips that start from something: clean latents, and which parts of them stay as they are.

After each call what is known is put back, noised to where the next call finds it. SDXL's inpainting
with a UNet of 4 channels does so. Steps can be made several times, as in Lugmayr et al., 2022
(RePaint, https://arxiv.org/abs/2201.09865), so that what is made fits better to what is known.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from hotshot_jax.errors import UsageError
from hotshot_jax.schedulers import Schedule


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Known:
    """What a run is to keep.

    Attributes:
        clean: latents, float32 `[videos, frames, height / 8, width / 8, channels]`, where one video
            serves all.
        noise: standard normal, the first noise of the run, with the shape of its latents.
        mask: float32 `[videos, frames, height / 8, width / 8, 1]`, likewise: 1 is made, 0 is kept,
            values between are mixed.
    """

    clean: jax.Array
    noise: jax.Array
    mask: jax.Array

    def put_back(self, latents: jax.Array, levels: ArrayLike) -> jax.Array:
        """Latents with what is known in its place.

        Args:
            latents: after a call.
            levels: float32 `[2]`, of signal and noise, as the next call finds them.
        """
        signal, noise_level = jnp.asarray(levels)
        known = signal * self.clean + noise_level * self.noise
        mixed = (1 - self.mask) * known + self.mask * latents
        # What is kept or made as a whole has no round-off of the other.
        return jnp.where(self.mask == 0, known, jnp.where(self.mask == 1, latents, mixed))

    def gone_back(
        self, latents: jax.Array, noise: ArrayLike, after: ArrayLike, before: ArrayLike
    ) -> jax.Array:
        """Latents as they might have been before a step that is to be made once more.

        Args:
            latents: after the step.
            noise: standard normal, with their shape.
            after: float32 `[2]`, their levels of signal and noise.
            before: float32 `[2]`, those before the step.
        """
        after, before = jnp.asarray(after), jnp.asarray(before)
        shrunk = before[0] / after[0]
        added = jnp.sqrt(jnp.maximum(before[1] ** 2 - (shrunk * after[1]) ** 2, 0))
        return self.put_back(shrunk * latents + added * noise, before)


@dataclasses.dataclass(frozen=True)
class Start:
    """What a run starts from.

    Attributes:
        clean: latents, as in `Known`.
        strength: the part of the schedule that is run, above 0 to 1.
        mask: as in `Known`; None where nothing is kept, only started from.
        repaint: how often each step is made, with a mask.
        first_frame_attention: whether every frame also sees the first one's keys and values.
    """

    clean: np.ndarray | jax.Array
    strength: float = 1.0
    mask: np.ndarray | None = None
    repaint: int = 1
    first_frame_attention: bool = False

    def first_step(self, steps: int) -> int:
        """How many steps are left out at the beginning.

        Raises:
            UsageError: none is left.
        """
        left = min(int(steps * self.strength), steps)
        if left < 1:
            raise UsageError(
                f"`strength` is {self.strength:g}: of {steps} steps none is left. Raise it to at "
                f"least {math.ceil(100 / steps) / 100:g}, or take more steps."
            )
        return steps - left

    def first_latents(self, schedule: Schedule, noise: ArrayLike) -> jax.Array:
        """The latents that the first call is given.

        Args:
            schedule: of the run, without the steps that are left out.
            noise: standard normal.
        """
        if self.mask is not None and schedule.calls_before == 0:
            # Nothing of what is made has seen the clean latents.
            return jnp.asarray(noise) * np.float32(schedule.init_noise_sigma)
        return schedule.add_noise(self.clean, noise, 0)


def calls_with_repeats(step_of_call: Sequence[int], repeats: int) -> list[int]:
    """Calls in the order in which they are made, where each step is made several times.

    Args:
        step_of_call: the step of each call; solvers that call the model twice have it twice.
        repeats: how often each step is made.
    """
    order = []
    for _, calls in itertools.groupby(range(len(step_of_call)), lambda call: step_of_call[call]):
        order += [*calls] * repeats
    return order


def levels_at(schedule: Schedule, call: int) -> np.ndarray:
    """Signal and noise that a call finds, float32 `[2]`."""
    return np.array([schedule.signal[call], schedule.noise_level[call]], np.float32)


def known_levels(schedule: Schedule, call: int) -> np.ndarray:
    """Signal and noise of what is put back after a call, float32 `[2]`."""
    if call + 1 == schedule.calls:
        return np.array([1.0, 0.0], np.float32)
    return levels_at(schedule, call + 1)
