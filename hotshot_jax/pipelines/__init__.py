"""From prompts to videos: text encoding, noise, guidance, the sampling loop."""

from hotshot_jax.pipelines.hotshot_xl import HotshotXLPipeline
from hotshot_jax.pipelines.output import HotshotXLOutput

__all__ = ["HotshotXLOutput", "HotshotXLPipeline"]
