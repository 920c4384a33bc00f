"""Hotshot-XL text-to-GIF in JAX.

The names below are what most programs need; each is imported from its module when it is first
asked for, so that importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from hotshot_jax.version import __version__

if TYPE_CHECKING:
    from hotshot_jax.conditioning.control.windows import ControlWindow as ControlWindow
    from hotshot_jax.convert.conversion import (
        convert_folder as convert_folder,
        write_torch_folder as write_torch_folder,
    )
    from hotshot_jax.errors import HotshotError as HotshotError, UsageError as UsageError
    from hotshot_jax.jobs.maker import Cancelled as Cancelled, Clip as Clip, ClipMaker as ClipMaker
    from hotshot_jax.jobs.settings import (
        ClipSettings as ClipSettings,
        ModelSettings as ModelSettings,
        RunSettings as RunSettings,
    )
    from hotshot_jax.measure.comparison import (
        Comparison as Comparison,
        compare_frames as compare_frames,
    )
    from hotshot_jax.measure.frames import (
        ClipMeasures as ClipMeasures,
        measure_frames as measure_frames,
    )
    from hotshot_jax.media.reading.read import open_clip as open_clip
    from hotshot_jax.media.write import write_video as write_video
    from hotshot_jax.models import (
        AutoencoderKL as AutoencoderKL,
        CLIPTextModel as CLIPTextModel,
        ControlNetModel as ControlNetModel,
        UNet3DConditionModel as UNet3DConditionModel,
    )
    from hotshot_jax.models.layers.attention import (
        dot_product_attention as dot_product_attention,
        replace_attention as replace_attention,
    )
    from hotshot_jax.parallel.mesh import MeshConfig as MeshConfig, create_mesh as create_mesh
    from hotshot_jax.pipelines.control import ControlInput as ControlInput
    from hotshot_jax.pipelines.hotshot_xl import HotshotXLPipeline as HotshotXLPipeline
    from hotshot_jax.pipelines.output import HotshotXLOutput as HotshotXLOutput
    from hotshot_jax.pipelines.start import StartInput as StartInput
    from hotshot_jax.runtime.precision import Precision as Precision
    from hotshot_jax.runtime.progress import Progress as Progress
    from hotshot_jax.sampling.guidance import (
        ClassifierFreeGuidance as ClassifierFreeGuidance,
        Guidance as Guidance,
    )
    from hotshot_jax.sampling.predict import (
        Conditioning as Conditioning,
        Predictor as Predictor,
        StepInput as StepInput,
    )
    from hotshot_jax.sampling.windows import ContextConfig as ContextConfig
    from hotshot_jax.schedulers import (
        Schedule as Schedule,
        Scheduler as Scheduler,
        make_scheduler as make_scheduler,
    )
    from hotshot_jax.training.running.step import Trainer as Trainer

_MODULES = {
    "conditioning.control.windows": "ControlWindow",
    "convert.conversion": "convert_folder write_torch_folder",
    "errors": "HotshotError UsageError",
    "jobs.maker": "Cancelled Clip ClipMaker",
    "jobs.settings": "ClipSettings ModelSettings RunSettings",
    "measure.comparison": "Comparison compare_frames",
    "measure.frames": "ClipMeasures measure_frames",
    "media.reading.read": "open_clip",
    "media.write": "write_video",
    "models": "AutoencoderKL CLIPTextModel ControlNetModel UNet3DConditionModel",
    "models.layers.attention": "dot_product_attention replace_attention",
    "parallel.mesh": "MeshConfig create_mesh",
    "pipelines.control": "ControlInput",
    "pipelines.hotshot_xl": "HotshotXLPipeline",
    "pipelines.output": "HotshotXLOutput",
    "pipelines.start": "StartInput",
    "runtime.precision": "Precision",
    "runtime.progress": "Progress",
    "sampling.guidance": "ClassifierFreeGuidance Guidance",
    "sampling.predict": "Conditioning Predictor StepInput",
    "sampling.windows": "ContextConfig",
    "schedulers": "Schedule Scheduler make_scheduler",
    "training.running.step": "Trainer",
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = ["__version__", *_MODULE_OF]


if not TYPE_CHECKING:
    # Type checkers would take any name to be there.
    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'hotshot_jax' has no attribute {name!r}")
        return getattr(importlib.import_module(f"hotshot_jax.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
