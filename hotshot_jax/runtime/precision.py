"""Which dtypes a run uses, by the reference's names for them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hotshot_jax.choices import PRECISIONS
from hotshot_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Precision:
    """The dtypes of a run. The VAE and the schedulers are float32 in all of them.

    Attributes:
        name: the reference's name.
        noise: dtype in which random numbers are drawn: it decides which numbers they are.
        compute: dtype of the UNet's and text encoders' weights and activations.
    """

    name: str
    noise: np.dtype
    compute: Any

    @classmethod
    def named(cls, name: str, platform: str) -> "Precision":
        """The precision `name` on devices of `platform` ("cpu", "gpu", "tpu").

        float16 has hardware on GPUs only. Elsewhere f16 keeps the reference's random numbers and
        computes in what the device is good at: bfloat16 on TPUs, float32 on CPUs.

        Raises:
            UsageError: the name is unknown.
        """
        if name not in PRECISIONS:
            raise UsageError(f"precision {name!r} is unknown; expected {', '.join(PRECISIONS)}.")
        noise = {"f16": jnp.float16, "f32": jnp.float32, "bf16": jnp.bfloat16}[name]
        compute = noise
        if name == "f16" and platform != "gpu":
            compute = jnp.bfloat16 if platform == "tpu" else jnp.float32
        return cls(name, np.dtype(noise), compute)

    @property
    def description(self) -> str:
        """What is computed in what, in words."""
        compute = np.dtype(self.compute).name
        note = "" if compute == self.noise.name else f", computed in {compute} on this device"
        return f"precision {self.name}{note}"

    @property
    def matmul(self) -> str | None:
        """For `jax.default_matmul_precision`: full float32 products only where float32 is meant."""
        return "float32" if self.compute == jnp.float32 else None


def current_platform() -> str:
    """The platform of the default device, with GPUs of every maker as "gpu"."""
    platform = jax.default_backend()
    return "gpu" if platform in ("cuda", "rocm") else platform
