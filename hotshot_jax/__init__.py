"""Hotshot-XL text-to-GIF in JAX.

    from hotshot_jax.pipelines import HotshotXLPipeline

    pipeline = HotshotXLPipeline.from_pretrained("hotshotco/Hotshot-XL")
    videos = pipeline("a bulldog in the captains chair of a spaceship", seed=455).videos
"""

from hotshot_jax.version import __version__

__all__ = ["__version__"]
