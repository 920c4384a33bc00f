"""From prompts to videos: text encoding, noise, guidance, the sampling loop."""

from hotshot_jax.pipelines.hotshot_xl import HotshotXLOutput, HotshotXLPipeline

__all__ = ["HotshotXLOutput", "HotshotXLPipeline"]
