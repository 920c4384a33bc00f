"""Hotshot-XL text-to-GIF in JAX; `hotshot_jax.pipelines` is where to begin."""

from hotshot_jax.version import __version__

__all__ = ["__version__"]
