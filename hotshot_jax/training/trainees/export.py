"""What was trained, for PyTorch users: see `Trainee.export` of each."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from hotshot_jax.convert.builders import KINDS
from hotshot_jax.convert.formats.diffusers_folder import open_component
from hotshot_jax.convert.formats.small_files import copy_small_files
from hotshot_jax.convert.formats.to_torch import write_component
from hotshot_jax.convert.load import with_parameters
from hotshot_jax.convert.prepare import open_checkpoint, prepare_component
from hotshot_jax.convert.tensors.rules import Path as ParameterPath
from hotshot_jax.convert.tensors.rules import flat_parameters
from hotshot_jax.parallel.placement import in_host_memory
from hotshot_jax.training.trainees.trainee import Origin, Parameters, Trainee
from hotshot_jax.writing.made_here import check_made_here, list_files
from hotshot_jax.writing.staging import staged_folder


def export(
    dest: Path,
    source: Path,
    unet_path: str | None,
    trainee: Trainee,
    trained: Parameters,
    scheduler_config: Mapping[str, Any] | None = None,
) -> None:
    """Writes a folder with the trained weights; it appears under its name when complete.

    Args:
        dest: the folder; replaced if it is there and an earlier export.
        source: see `Origin`.
        unet_path: see there.
        trainee: what trained.
        trained: NumPy arrays of what trained.
        scheduler_config: see `Origin`.

    Raises:
        UsageError: `dest` is something else than an earlier export.
        HotshotError: the source is gone, or `dest` cannot be written.
    """
    with staged_folder(dest, may_replace=check_made_here) as folder:
        trainee.export(folder, trained, Origin(source, unet_path, scheduler_config))
        list_files(folder)


def write_checkpoint(
    folder: Path, origin: Origin, values: Mapping[ParameterPath, np.ndarray]
) -> Any:
    """Writes a whole checkpoint in the diffusers layout, float32, with other values in the UNet.

    Args:
        folder: an empty one.
        origin: what was trained from.
        values: by path.

    Returns:
        The UNet, in host memory.

    Raises:
        HotshotError: the source is gone.
    """
    checkpoint = open_checkpoint(origin.source)
    for name in KINDS:
        component: Any = getattr(checkpoint, name)
        if name == "unet" and origin.unet_path is not None:
            component = open_component(origin.unet_path, name)
        module = prepare_component(component, dtype=jnp.float32).load(shardings=in_host_memory())
        if name == "unet":
            unet = module = with_parameters(module, {**flat_parameters(module), **values})
        write_component(folder / name, name, component.config, module)
    copy_small_files(checkpoint.path, folder)
    (folder / "model_index.json").write_text(json.dumps(dict(checkpoint.index), indent=2) + "\n")
    if origin.scheduler_config is not None:
        text = json.dumps(dict(origin.scheduler_config), indent=2) + "\n"
        (folder / "scheduler" / "scheduler_config.json").write_text(text, encoding="utf-8")
    return unet
