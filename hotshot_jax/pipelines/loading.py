"""From a checkpoint on disk or on the Hub to the components of a pipeline."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from hotshot_jax.convert.builders import KINDS
from hotshot_jax.convert.hub import resolve
from hotshot_jax.convert.prepare import open_checkpoint, prepare_component
from hotshot_jax.errors import HotshotError
from hotshot_jax.pipelines.components import Components
from hotshot_jax.pipelines.precision import Precision
from hotshot_jax.pipelines.progress import Progress
from hotshot_jax.schedulers import make_scheduler

logger = logging.getLogger(__name__)


def load_components(
    path: str,
    precision: Precision,
    *,
    variant: str | None = None,
    scheduler: str | None = None,
    on_host: bool = False,
    progress: Progress,
) -> Components:
    """Loads all components of a checkpoint.

    Args:
        path: a folder in the diffusers layout or converted, or `organisation/name[@revision]`.
        precision: dtypes; the VAE is float32 whatever they are.
        variant: which weight files to prefer where there are several.
        scheduler: the scheduler that will be used, checked against the checkpoint's configuration
            before its weights are read.
        on_host: leaves the weights in host memory.
        progress: shows the loading.

    Raises:
        HotshotError: the checkpoint is missing, damaged or of another model.
        UsageError: the scheduler is unknown.
    """
    folder = resolve(path, variant=variant)
    sharding = _host_sharding() if on_host else None
    checkpoint = open_checkpoint(folder, variant=variant)
    for note in checkpoint.notes:
        logger.warning("%s", note)
    # Everything that can be wrong short of the numbers is found before gigabytes are read.
    prepared = {
        name: prepare_component(
            getattr(checkpoint, name),
            dtype=jnp.float32 if name == "vae" else precision.compute,
        )
        for name in KINDS
    }
    components = Components(
        **{name: each.module for name, each in prepared.items()},
        tokenizer=load_tokenizer(checkpoint.tokenizer),
        tokenizer_2=load_tokenizer(checkpoint.tokenizer_2),
        scheduler_config=checkpoint.scheduler_config,
        force_zeros_for_empty_prompt=checkpoint.index.get("force_zeros_for_empty_prompt", True),
        name=path,
    )
    components.check()
    if scheduler is not None:
        make_scheduler(scheduler, checkpoint.scheduler_config)
    with progress.stage("loading", checkpoint.nbytes, "B") as advance:
        models: dict[str, Any] = {
            name: each.load(shardings=sharding, progress=advance) for name, each in prepared.items()
        }
    return dataclasses.replace(components, **models)


def load_tokenizer(folder: Path) -> Any:
    """Loads a CLIP tokenizer from its folder.

    Raises:
        HotshotError: its files are missing or damaged.
    """
    from transformers import CLIPTokenizer

    with _damaged(folder):
        tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
        tokenizer("test")
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


def _host_sharding() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])
