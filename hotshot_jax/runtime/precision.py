"""Which dtypes a run uses, by the reference's names for them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hotshot_jax.choices import PRECISIONS, VAE_PRECISIONS
from hotshot_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class VaePrecision:
    """In what the VAE works.

    Attributes:
        name: one of `choices.VAE_PRECISIONS`.
        compute: dtype of its weights and activations.
        matmul: for `jax.default_matmul_precision`.
    """

    name: str
    compute: Any
    matmul: str

    @classmethod
    def named(cls, name: str, platform: str) -> "VaePrecision":
        """The precision `name` on devices of `platform` ("cpu", "gpu", "tpu").

        A TPU multiplies bfloat16 numbers only, and makes a float32 product of six products of their
        parts. `bf16x3` leaves out the three smallest of them. Other devices have float32 products,
        and `bf16x3` is `f32` there.

        Raises:
            UsageError: the name is unknown.
        """
        if name not in VAE_PRECISIONS:
            raise UsageError(
                f"vae_precision {name!r} is unknown; expected {', '.join(VAE_PRECISIONS)}."
            )
        if name == "bf16":
            return cls(name, jnp.bfloat16, "default")
        # "high" would be TensorFloat-32 on GPUs, whose products are a hundred times coarser.
        three = name == "bf16x3" and platform == "tpu"
        return cls(name, jnp.float32, "high" if three else "float32")

    @property
    def description(self) -> str:
        """What is computed in what, in words."""
        exact = self.name == "bf16x3" and self.matmul == "float32"
        return f"VAE {self.name}{', computed in float32 on this device' if exact else ''}"


@dataclasses.dataclass(frozen=True)
class Precision:
    """The dtypes of a run. The schedulers are float32 in all of them.

    Attributes:
        name: the reference's name.
        noise: dtype in which random numbers are drawn: it decides which numbers they are.
        compute: dtype of the UNet's and text encoders' weights and activations.
        vae: what is asked of the VAE, one of `choices.VAE_PRECISIONS`; None leaves it to `of_vae`.
        platform: "cpu", "gpu" or "tpu".
    """

    name: str
    noise: np.dtype
    compute: Any
    vae: str | None = None
    platform: str = "cpu"

    @classmethod
    def named(cls, name: str, platform: str, vae: str | None = None) -> "Precision":
        """The precision `name` on devices of `platform` ("cpu", "gpu", "tpu").

        float16 has hardware on GPUs only. Elsewhere f16 keeps the reference's random numbers and
        computes in what the device is good at: bfloat16 on TPUs, float32 on CPUs.

        Raises:
            UsageError: the name is unknown, or that of the VAE's precision.
        """
        if vae is not None:
            VaePrecision.named(vae, platform)
        if name not in PRECISIONS:
            raise UsageError(f"precision {name!r} is unknown; expected {', '.join(PRECISIONS)}.")
        noise = {"f16": jnp.float16, "f32": jnp.float32, "bf16": jnp.bfloat16}[name]
        compute = noise
        if name == "f16" and platform != "gpu":
            compute = jnp.bfloat16 if platform == "tpu" else jnp.float32
        return cls(name, np.dtype(noise), compute, vae, platform)

    def of_vae(self, *, force_upcast: bool | None) -> VaePrecision:
        """In what a VAE works.

        Where nothing is asked for, three passes on TPUs and float32 elsewhere; and bfloat16 on
        TPUs and GPUs for a VAE that is made for half precision.

        Args:
            force_upcast: what its configuration says, whether it needs float32; None if nothing.
        """
        if self.vae is not None:
            return VaePrecision.named(self.vae, self.platform)
        if force_upcast is False and self.platform != "cpu":
            return VaePrecision.named("bf16", self.platform)
        return VaePrecision.named("bf16x3" if self.platform == "tpu" else "f32", self.platform)

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
