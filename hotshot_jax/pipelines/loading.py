"""From a checkpoint on disk or on the Hub to the components of a pipeline."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flax import nnx
from jax.sharding import Mesh

from hotshot_jax.conditioning.text.clip_tokenizer import ClipTokenizer
from hotshot_jax.conditioning.text.embedding_files import ENCODERS, open_embeddings, with_embeddings
from hotshot_jax.conditioning.text.prompt_weighting import Vocabulary
from hotshot_jax.convert.assembly import Parts, open_assembled
from hotshot_jax.convert.builders import KINDS
from hotshot_jax.convert.formats.controlnet_files import open_controlnet
from hotshot_jax.convert.prepare import prepare_component
from hotshot_jax.errors import HotshotError
from hotshot_jax.parallel.placement import in_host_memory
from hotshot_jax.parallel.rules import parameter_shardings
from hotshot_jax.pipelines.components import Components
from hotshot_jax.pipelines.loras import open_loras
from hotshot_jax.runtime.precision import Precision
from hotshot_jax.runtime.progress import Progress
from hotshot_jax.schedulers import Scheduler, make_scheduler

logger = logging.getLogger(__name__)


def load_components(
    path: str,
    precision: Precision,
    *,
    variant: str | None = None,
    scheduler: str | Scheduler | None = None,
    scheduler_options: Mapping[str, Any] | None = None,
    parts: Parts | None = None,
    loras: Sequence[tuple[str, float]] = (),
    lora_allow_partial: bool = False,
    embeddings: Sequence[tuple[str, str]] = (),
    controlnets: Sequence[str] = (),
    control_types: Sequence[int | None] | None = None,
    on_host: bool = False,
    mesh: Mesh | None = None,
    progress: Progress,
) -> Components:
    """Loads all components of a checkpoint.

    Args:
        path: a folder in the diffusers layout or converted, a single SDXL file (with temporal
            layers in `parts`), or `organisation/name[@revision]`.
        precision: dtypes; that of the VAE follows from its configuration where none is asked for.
        variant: which weight files to prefer where there are several.
        scheduler: the scheduler that will be used, checked against the checkpoint's configuration
            before its weights are read.
        scheduler_options: what replaces values of that configuration.
        parts: what comes from elsewhere: spatial or temporal layers, encoders, VAE.
        loras: paths or Hub ids of LoRAs and their strengths, merged into the weights.
        lora_allow_partial: whether keys of a LoRA that fit nowhere are left out.
        embeddings: paths or Hub ids of textual inversions, and their words.
        controlnets: paths or Hub ids of ControlNets.
        control_types: kind of the control frames that each will be given, as far as it is known.
        on_host: leaves the weights in host memory.
        mesh: the devices that the weights are spread over; None for the default device.
        progress: shows the loading.

    Raises:
        HotshotError: the checkpoint is missing, damaged or of another model.
        UsageError: the scheduler is unknown, two embeddings have one word, or a control type does
            not fit its ControlNet.
    """
    checkpoint = open_assembled(path, parts or Parts(), variant=variant)
    for note in checkpoint.notes:
        logger.warning("%s", note)
    # Everything that can be wrong short of the numbers is found before gigabytes are read.
    upcast = checkpoint.components["vae"].config.get("force_upcast")
    of_vae = precision.of_vae(force_upcast=upcast)
    dtypes = {name: (of_vae if name == "vae" else precision).compute for name in KINDS}
    prepared = {
        name: prepare_component(checkpoint.components[name], dtype=dtypes[name]) for name in KINDS
    }
    tokenizer, tokenizer_2 = (
        load_tokenizer(folder, padding)
        for folder, padding in zip(checkpoint.tokenizers, checkpoint.paddings, strict=True)
    )
    widths = {name: prepared[name].module.config.hidden_size for name in ENCODERS}
    inversions = open_embeddings(embeddings, widths)
    if inversions:
        extended = with_embeddings(checkpoint.components, inversions, Vocabulary.of(tokenizer))
        prepared |= {
            name: prepare_component(each, dtype=dtypes[name]) for name, each in extended.items()
        }
    nets = [
        prepare_component(open_controlnet(net, variant=variant), dtype=precision.compute)
        for net in controlnets
    ]
    scheduler_config = {**checkpoint.scheduler_config, **(scheduler_options or {})}
    components = Components(
        **{name: each.module for name, each in prepared.items()},
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        scheduler_config=scheduler_config,
        force_zeros_for_empty_prompt=checkpoint.index.get("force_zeros_for_empty_prompt", True),
        name=path,
        controlnets=tuple(net.module for net in nets),
        inversions=inversions,
    )
    components.check()
    if control_types is not None:
        components.check_control_types(control_types)
    if scheduler is not None:
        make_scheduler(scheduler, scheduler_config)
    opened = open_loras(loras, prepared, allow_partial=lora_allow_partial)
    for note in opened.trained_otherwise(scheduler_config.get("prediction_type", "epsilon")):
        logger.warning("%s", note)
    with progress.stage("loading", sum(each.nbytes for each in prepared.values()), "B") as advance:
        models: dict[str, Any] = {
            name: each.load(
                shardings=_shardings(each.module, mesh, on_host=on_host),
                progress=advance,
                change=opened.change(name),
            )
            for name, each in prepared.items()
        }
    loaded_nets: list[Any] = []
    for ready in nets:
        with progress.stage("ControlNet", ready.nbytes, "B") as advance:
            shardings = _shardings(ready.module, mesh, on_host=on_host)
            loaded_nets.append(ready.load(shardings=shardings, progress=advance))
    return dataclasses.replace(components, **models, loras=opened, controlnets=tuple(loaded_nets))


def load_tokenizer(folder: Path, padding: str | None = None) -> ClipTokenizer:
    """Loads a CLIP tokenizer from its folder.

    Args:
        folder: holds its files.
        padding: what it fills up with, if not what its files say.

    Raises:
        HotshotError: its files are missing or damaged.
    """
    with _damaged(folder):
        tokenizer = ClipTokenizer(folder, padding)
        tokenizer.encode("test")
        return tokenizer


@contextlib.contextmanager
def _damaged(folder: Path) -> Iterator[None]:
    # The tokenizers raise whatever their parser meets, down to bare Exceptions from Rust.
    try:
        yield
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise HotshotError(
            f"{folder}: the tokenizer files are missing or damaged ({reason}); download "
            "vocab.json, merges.txt and tokenizer_config.json again."
        ) from error


def _shardings(module: nnx.Module, mesh: Mesh | None, *, on_host: bool) -> Any:
    """Where a model is born: on the mesh in parts, so that no device ever holds all of it."""
    if on_host:
        return in_host_memory()
    return None if mesh is None else parameter_shardings(module, mesh)
