"""The autoencoder."""

from collections.abc import Iterator

import jax

from benchmarks.parity_cases.case import WHOLE_MODEL, Case, Result, compare
from benchmarks.parity_cases.layout import channels_first, channels_last
from benchmarks.parity_cases.models import load_vae
from hotshot_jax.models import AutoencoderKL


def matches(case: Case) -> bool:
    """Whether the case encodes or decodes."""
    return case.call.startswith("AutoencoderKL.")


def run(case: Case) -> Iterator[Result]:
    """Compares the encoder's distribution, its sample, and decoded pixels."""
    vae = load_vae(case.model("AutoencoderKL"))
    for prefix in case.prefixes("image"):
        noise = case.get(f"{prefix}noise")
        outputs = _encode(
            vae,
            channels_last(case[f"{prefix}image"]),
            None if noise is None else channels_last(noise),
        )
        for name, got in outputs.items():
            if prefix + name in case:
                yield compare(prefix + name, channels_first(got), case[prefix + name], WHOLE_MODEL)
    for prefix in case.prefixes("z"):
        got = _decode(vae, channels_last(case[f"{prefix}z"]))
        yield compare(
            f"{prefix}decoded", channels_first(got), case[f"{prefix}decoded"], WHOLE_MODEL
        )


@jax.jit
def _encode(vae: AutoencoderKL, image: jax.Array, noise: jax.Array | None) -> dict[str, jax.Array]:
    distribution = vae.encode(image)
    outputs = {
        # Mean and log-variance together, before the log-variance is clamped.
        "moments": vae.quant_conv(vae.encoder(image)),
        "mean": distribution.mean,
        "logvar": distribution.log_variance,
        "std": distribution.standard_deviation,
    }
    if noise is not None:
        outputs["latent_sample"] = distribution.sample(noise)
    return outputs


@jax.jit
def _decode(vae: AutoencoderKL, latents: jax.Array) -> jax.Array:
    return vae.decode(latents)
