"""Loading a checkpoint for training: the UNet divided, everything else at rest."""

import dataclasses
import logging
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hotshot_jax.convert.assembly import scheduler_of, switch_prediction
from hotshot_jax.convert.builders import model_builder
from hotshot_jax.convert.formats.diffusers_folder import open_component
from hotshot_jax.convert.hub import resolve
from hotshot_jax.convert.load import abstract
from hotshot_jax.convert.prepare import open_checkpoint, prepare_component
from hotshot_jax.convert.tensors.rules import flat_parameters
from hotshot_jax.parallel.placement import in_host_memory, place
from hotshot_jax.pipelines.components import Components
from hotshot_jax.pipelines.loading import load_tokenizer
from hotshot_jax.runtime.progress import Progress
from hotshot_jax.training.trainees.lora import TEXT_ENCODERS
from hotshot_jax.training.trainees.trainee import Parameters, Trainee

# What the reference's fine-tuning script leaves beside its weights.
_OPTIMIZER = "optimizer.bin"
_TOKENIZERS = ("tokenizer", "tokenizer_2")
# All of a small array; of a large one enough to tell any training of it.
_SAMPLED = 65536

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TrainingModels:
    """A checkpoint, ready to be trained.

    Attributes:
        components: text encoders and VAE in host memory, tokenizers; the UNet without weights.
        division: what trains, and the model that it is part of.
        trained: float32 parameters that train, on the mesh.
        frozen: those that do not, in the compute dtype, on the mesh.
        unet_config: content of the UNet's `config.json`.
        folder: the checkpoint's folder.
        fingerprint: tells checkpoints apart by the norms and biases of the UNet.
        fingerprints: of the weights of each model and of the tokenizers, by name.
    """

    components: Components
    division: Trainee
    trained: Parameters
    frozen: Parameters
    unet_config: Mapping[str, Any]
    folder: Path
    fingerprint: int
    fingerprints: Mapping[str, int]

    def predicting(self, prediction_type: str) -> "TrainingModels":
        """The same models, whose UNet is to find something else: "epsilon" or "v_prediction"."""
        config = {**self.components.scheduler_config, "prediction_type": prediction_type}
        components = dataclasses.replace(self.components, scheduler_config=config)
        return dataclasses.replace(self, components=components)


def load_models(
    path: str,
    unet_path: str | None,
    divide: Callable[[Components], Trainee],
    mesh: Mesh,
    *,
    dtype: Any,
    vae_dtype: Any,
    seed: int,
    progress: Progress,
) -> TrainingModels:
    """Loads a checkpoint.

    Args:
        path: a folder in the diffusers layout or converted, or a Hub id.
        unet_path: a folder that holds `unet/`, to be taken in place of the checkpoint's own.
        divide: from the models, with shapes in place of arrays, to what trains.
        mesh: where what trains goes, and the rest of the models that it is a part of.
        dtype: in which UNet and text encoders compute, and frozen parameters are kept.
        vae_dtype: the same of the VAE.
        seed: of initial values that the checkpoint does not have.
        progress: shows the loading.

    Raises:
        HotshotError: the checkpoint is missing, damaged or of another model.
        UsageError: `divide` refuses the models.
    """
    host = in_host_memory()
    checkpoint = open_checkpoint(resolve(path))
    for note in checkpoint.notes:
        logger.warning("%s", note)
    _warn_of_optimizer(unet_path)
    unet, scheduler = checkpoint.unet, dict(checkpoint.scheduler_config)
    if unet_path is not None:
        unet = open_component(unet_path, "unet")
        for note in switch_prediction(scheduler, scheduler_of(unet), unet_path):
            logger.warning("%s", note)
    # Read as float32: rounding what trains to the compute dtype first would lose digits.
    source = prepare_component(unet, dtype=jnp.float32)
    others = {
        name: prepare_component(
            getattr(checkpoint, name), dtype=vae_dtype if name == "vae" else dtype
        )
        for name in (*TEXT_ENCODERS, "vae")
    }
    build = model_builder("unet", unet.config, where=str(unet.config_path), dtype=dtype)
    module: Any = abstract(build)
    components = Components(
        **{name: each.module for name, each in others.items()},
        tokenizer=load_tokenizer(checkpoint.tokenizer),
        tokenizer_2=load_tokenizer(checkpoint.tokenizer_2),
        unet=module,
        scheduler_config=scheduler,
        force_zeros_for_empty_prompt=checkpoint.index.get("force_zeros_for_empty_prompt", True),
        name=path,
    )
    components.check()
    division = divide(components)
    total = sum(each.nbytes for each in (source, *others.values()))
    with progress.stage("loading", total, "B") as advance:
        values = flat_parameters(source.load(shardings=host, progress=advance))
        fingerprint, fingerprints = _fingerprint(values), {"unet": _sampled(values, np.float32)}
        models: dict[str, Any] = {
            name: each.load(shardings=host, progress=advance) for name, each in others.items()
        }
        of_text = {
            (name, *path): leaf
            for name in TEXT_ENCODERS
            for path, leaf in flat_parameters(models[name]).items()
        }
        trained, frozen = _placed({**values, **of_text}, division, mesh, dtype, seed)
    return TrainingModels(
        components=dataclasses.replace(components, **models),
        division=division,
        trained=trained,
        frozen=frozen,
        unet_config=unet.config,
        folder=Path(checkpoint.path),
        fingerprint=fingerprint,
        fingerprints={
            **fingerprints,
            # Rounded alike, since a run may go on with its VAE in another dtype.
            **{name: _sampled(flat_parameters(x), jnp.bfloat16) for name, x in models.items()},
            **{name: _vocabulary(getattr(components, name)) for name in _TOKENIZERS},
        },
    )


def _placed(
    values: Mapping[Any, jax.Array], division: Trainee, mesh: Mesh, dtype: Any, seed: int
) -> tuple[Parameters, Parameters]:
    shardings = division.shardings(mesh)
    trained, frozen = division.start(values, seed)
    return (
        # A copy: the arrays of what trains are given away to the first step. The others never are.
        {name: _place(np.array(x, np.float32), shardings[name]) for name, x in trained.items()},
        {name: place(x.astype(dtype), shardings[name]) for name, x in frozen.items()},
    )


def _place(array: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    # Through a program, so that the buffer is JAX's own: one shared with NumPy cannot be donated.
    placed = jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
    return jnp.copy(placed)


def _warn_of_optimizer(unet_path: str | None) -> None:
    if unet_path is not None and (file := Path(unet_path) / _OPTIMIZER).exists():
        logger.warning(
            "%s is not read: only the weights are taken from there, and the optimiser starts anew.",
            file,
        )


def _fingerprint(values: Mapping[Any, jax.Array]) -> int:
    # Norms and biases tell two checkpoints apart, and are a thousandth of the whole.
    code = 0
    for path, leaf in values.items():
        if leaf.ndim == 1:
            code = zlib.crc32(np.asarray(leaf).tobytes(), zlib.crc32(repr(path).encode(), code))
    return code


def _sampled(values: Mapping[Any, jax.Array], dtype: Any) -> int:
    code = 0
    for path, leaf in values.items():
        flat = np.asarray(leaf).reshape(-1)
        sample = flat[:: max(1, flat.size // _SAMPLED)].astype(dtype)
        code = zlib.crc32(sample.tobytes(), zlib.crc32(repr(path).encode(), code))
    return code


def _vocabulary(tokenizer: Any) -> int:
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return zlib.crc32(repr(words).encode())
