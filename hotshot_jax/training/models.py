"""Loading a checkpoint for training: the UNet divided, everything else at rest."""

import dataclasses
import logging
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hotshot_jax.convert.builders import model_builder
from hotshot_jax.convert.diffusers_folder import open_component
from hotshot_jax.convert.hub import resolve
from hotshot_jax.convert.load import abstract
from hotshot_jax.convert.prepare import open_checkpoint, prepare_component
from hotshot_jax.convert.rules import flat_parameters
from hotshot_jax.parallel.rules import parameter_shardings
from hotshot_jax.pipelines.components import Components
from hotshot_jax.pipelines.loading import load_tokenizer
from hotshot_jax.pipelines.progress import Progress
from hotshot_jax.training.selection import Division, Parameters

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TrainingModels:
    """A checkpoint, ready to be trained.

    Attributes:
        components: text encoders and VAE in host memory, tokenizers; the UNet without weights.
        division: the UNet, and what of it trains.
        trained: float32 parameters that train, on the mesh.
        frozen: the others, in the compute dtype, on the mesh.
        unet_config: content of the UNet's `config.json`.
        folder: the checkpoint's folder.
        fingerprint: tells checkpoints apart by the weights of the UNet.
    """

    components: Components
    division: Division
    trained: Parameters
    frozen: Parameters
    unet_config: Mapping[str, Any]
    folder: Path
    fingerprint: int


def load_models(
    path: str,
    unet_path: str | None,
    selection: str,
    mesh: Mesh,
    *,
    dtype: Any,
    vae_dtype: Any,
    progress: Progress,
) -> TrainingModels:
    """Loads a checkpoint.

    Args:
        path: a folder in the diffusers layout or converted, or a Hub id.
        unet_path: a folder that holds `unet/`, to be taken in place of the checkpoint's own.
        selection: what trains; see `selection.is_trained`.
        mesh: where the UNet goes.
        dtype: in which UNet and text encoders compute, and frozen parameters are kept.
        vae_dtype: the same of the VAE.
        progress: shows the loading.

    Raises:
        HotshotError: the checkpoint is missing, damaged or of another model.
        UsageError: the selection is unknown.
    """
    host = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])
    checkpoint = open_checkpoint(resolve(path))
    for note in checkpoint.notes:
        logger.warning("%s", note)
    unet = checkpoint.unet if unet_path is None else open_component(unet_path, "unet")
    # Read as float32: rounding what trains to the compute dtype first would lose digits.
    source = prepare_component(unet, dtype=jnp.float32)
    others = {
        name: prepare_component(
            getattr(checkpoint, name), dtype=vae_dtype if name == "vae" else dtype
        )
        for name in ("text_encoder", "text_encoder_2", "vae")
    }
    build = model_builder("unet", unet.config, where=str(unet.config_path), dtype=dtype)
    module: Any = abstract(build)
    components = Components(
        **{name: each.module for name, each in others.items()},
        tokenizer=load_tokenizer(checkpoint.tokenizer),
        tokenizer_2=load_tokenizer(checkpoint.tokenizer_2),
        unet=module,
        scheduler_config=checkpoint.scheduler_config,
        force_zeros_for_empty_prompt=checkpoint.index.get("force_zeros_for_empty_prompt", True),
        name=path,
    )
    components.check()
    division = Division.of(module, selection)
    with progress.stage("loading", checkpoint.nbytes, "B") as advance:
        values = flat_parameters(source.load(shardings=host, progress=advance))
        fingerprint = _fingerprint(values)
        trained, frozen = _placed(values, division, mesh, dtype)
        models: dict[str, Any] = {
            name: each.load(shardings=host, progress=advance) for name, each in others.items()
        }
    return TrainingModels(
        components=dataclasses.replace(components, **models),
        division=division,
        trained=trained,
        frozen=frozen,
        unet_config=unet.config,
        folder=Path(checkpoint.path),
        fingerprint=fingerprint,
    )


def _placed(
    values: Mapping[Any, jax.Array], division: Division, mesh: Mesh, dtype: Any
) -> tuple[Parameters, Parameters]:
    shardings = parameter_shardings(division.module, mesh)
    trained, frozen = {}, {}
    for name, path in division.paths.items():
        array = np.asarray(values[path])
        if name in division.trained:
            # A copy: the arrays of what trains are given away to the first step.
            trained[name] = _place(np.array(array, np.float32), shardings[path])
        else:
            frozen[name] = _place(array.astype(dtype), shardings[path])
    return trained, frozen


def _place(array: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    # Through a program, so that the buffer is JAX's own: one shared with NumPy cannot be donated.
    placed = jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
    return jnp.copy(placed)


def _fingerprint(values: Mapping[Any, jax.Array]) -> int:
    # Norms and biases tell two checkpoints apart, and are a thousandth of the whole.
    code = 0
    for path, leaf in values.items():
        if leaf.ndim == 1:
            code = zlib.crc32(np.asarray(leaf).tobytes(), zlib.crc32(repr(path).encode(), code))
    return code
