"""Depth of a video's frames, by a depth-estimation checkpoint of transformers."""

import importlib
import logging
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hotshot_jax.choices import DEPTH_CHECKPOINT
from hotshot_jax.errors import HotshotError


def require(module: str, *, extra: str, purpose: str) -> Any:
    """Imports a module of an optional extra.

    Args:
        module: name of the module.
        extra: the extra that brings it.
        purpose: what it is needed for, as the beginning of a sentence.

    Raises:
        HotshotError: the module is missing, or is there but cannot be loaded.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise HotshotError(
                f"{purpose} needs {module}, which is installed without {error.name}. "
                f"Install it anew: pip install 'hotshot-jax[{extra}]'"
            ) from error
        raise HotshotError(
            f"{purpose} needs {module}, which is not installed: "
            f"pip install 'hotshot-jax[{extra}]'\n"
            "Or make the control frames elsewhere and pass them with `control_preprocess` none."
        ) from error
    except ImportError as error:
        raise HotshotError(
            f"{purpose} needs {module}, which is installed but cannot be loaded: {error}"
        ) from error


logger = logging.getLogger(__name__)

# Models that give a distance, where the others give its inverse.
_DISTANCES: Final = frozenset({"depth_pro", "glpn", "zoedepth"})


class DepthEstimator:
    """A depth-estimation checkpoint, run by PyTorch on the CPU.

    Frames are estimated one by one. Their depths become grey values together, so that a still
    object keeps its value while others come and go.

    Args:
        checkpoint: folder or Hub id.

    Raises:
        HotshotError: PyTorch is not installed, or the checkpoint cannot be loaded.
    """

    def __init__(self, checkpoint: str | Path = DEPTH_CHECKPOINT):
        self._torch = require("torch", extra="depth", purpose="Estimating depth")
        transformers = require("transformers", extra="depth", purpose="Estimating depth")
        self._name = str(checkpoint)
        try:
            # A model names the code that it wants run, and a pickle is code.
            self._processor = transformers.AutoImageProcessor.from_pretrained(
                self._name, trust_remote_code=False
            )
            self._model = transformers.AutoModelForDepthEstimation.from_pretrained(
                self._name, trust_remote_code=False, use_safetensors=True
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            reason = str(error).strip().splitlines()
            raise HotshotError(
                f"{self._name}: cannot load it as a depth-estimation checkpoint: "
                f"{reason[0] if reason else type(error).__name__}\n"
                "Expected a folder or Hub id that transformers' AutoModelForDepthEstimation reads, "
                "with weights in .safetensors and no code of its own."
            ) from error
        self._model.eval()

    def __call__(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Draws the depth of each frame, near white and far black.

        Args:
            frames: uint8 `[frames, height, width, 3]`, RGB.

        Returns:
            uint8 `[frames, height, width, 3]`, grey.

        Raises:
            HotshotError: the checkpoint gives values that are not finite.
        """
        depths = np.stack([self._estimate(frame) for frame in frames])
        if not np.isfinite(depths).all():
            raise HotshotError(f"{self._name}: the estimated depth has values that are not finite.")
        if self._gives_distances():
            depths = 1.0 / np.maximum(depths, 1e-6)
        return np.repeat(_to_grey(depths)[..., None], 3, axis=-1)

    def _estimate(self, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        with self._torch.no_grad():
            inputs: Any = self._processor(images=frame, return_tensors="pt")
            outputs = self._model(**inputs)
            # Sizes by position: one processor calls them source_sizes, the others target_sizes.
            (estimate,) = self._processor.post_process_depth_estimation(outputs, [frame.shape[:2]])
        depth = estimate["predicted_depth"].float().numpy().astype(np.float64)
        return depth.reshape(frame.shape[:2])

    def _gives_distances(self) -> bool:
        config = self._model.config
        kind = getattr(config, "depth_estimation_type", None)
        return config.model_type in _DISTANCES or kind == "metric"


def _to_grey(depths: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    low, high = depths.min(), depths.max()
    if high <= low:
        logger.warning("The estimated depth is the same everywhere: the control frames are black.")
        return np.zeros(depths.shape, np.uint8)
    return np.round((depths - low) / (high - low) * 255).astype(np.uint8)
