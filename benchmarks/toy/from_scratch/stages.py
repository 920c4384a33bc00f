"""What each stage does, as its command line says."""

import contextlib
import functools
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from tqdm import tqdm

from benchmarks.toy.from_scratch.autoencoder import AutoencoderConfig, train_autoencoder
from benchmarks.toy.from_scratch.command import Create, Pack, Text, Vae
from benchmarks.toy.from_scratch.fit import FitConfig, Report
from benchmarks.toy.from_scratch.folder import (
    create_checkpoint,
    pack_lora,
    replace_components,
    to_float16,
)
from benchmarks.toy.from_scratch.text_encoders import TextConfig, train_text_encoders
from hotshot_jax.cli.flags import written_settings
from hotshot_jax.conditioning.text.prompt import tokenize
from hotshot_jax.convert.assembly import AnyComponent
from hotshot_jax.convert.builders import CONTROLNET, KINDS
from hotshot_jax.convert.formats.controlnet_files import is_controlnet, open_controlnet
from hotshot_jax.convert.formats.to_torch import write_component
from hotshot_jax.convert.prepare import open_checkpoint, prepare_component
from hotshot_jax.data.open_data import parse_shapes
from hotshot_jax.data.shapes import split_prompts
from hotshot_jax.errors import UsageError
from hotshot_jax.pipelines.loading import load_tokenizer
from hotshot_jax.training.running.metrics import MetricsFile
from hotshot_jax.training.trainees.lora import LORA_FILE
from hotshot_jax.writing.staging import staged_folder

_ENCODERS = ("text_encoder", "text_encoder_2")


def create(settings: Create) -> None:
    """Writes a checkpoint with initial weights.

    Raises:
        HotshotError: a file is damaged, or does not fit.
    """
    architecture = written_settings(str(settings.architecture))
    words = dict.fromkeys(" ".join(split_prompts("all")).split() + settings.words.split())
    create_checkpoint(Path(str(settings.output)), architecture, list(words), settings.seed)


def vae(settings: Vae) -> None:
    """Trains the VAE on single frames.

    Raises:
        HotshotError: a file is damaged, or does not fit.
    """
    frames = parse_shapes(settings.data, 1)
    if frames.frames != 1:
        raise UsageError(f"--data {settings.data}: expected frames=1.")
    fit_config = _fit(settings)
    config, vae = _load(Path(str(settings.source)), "vae")
    with _reporting(settings) as report:
        vae, factor = train_autoencoder(
            vae,
            frames,
            AutoencoderConfig(
                fit=fit_config,
                batch_size=settings.batch_size,
                crop=settings.crop,
                kl_weight=settings.kl_weight,
                edge_weight=settings.edge_weight,
                latent_deviation=settings.latent_deviation,
                part=settings.part,
            ),
            report,
        )
    if settings.part == "all":
        config = {**config, "scaling_factor": round(factor, 5)}
    _finish(settings, {"vae": (config, vae)})


def text(settings: Text) -> None:
    """Trains the text encoders on the data set's prompts.

    Raises:
        HotshotError: a file is damaged, or does not fit.
    """
    fit_config = _fit(settings)
    source = Path(str(settings.source))
    loaded = [_load(source, name) for name in _ENCODERS]
    checkpoint = open_checkpoint(source)
    tokenizers = [load_tokenizer(checkpoint.tokenizer), load_tokenizer(checkpoint.tokenizer_2)]
    with _reporting(settings) as report:
        trained = train_text_encoders(
            [encoder for _, encoder in loaded],
            [functools.partial(tokenize, tokenizer) for tokenizer in tokenizers],
            split_prompts("train"),
            TextConfig(
                fit=fit_config,
                batch_size=settings.batch_size,
                dropped=settings.dropped,
                replaced=settings.replaced,
                other_words=tuple(settings.other_words.split()),
            ),
            report,
        )
    pairs = zip(_ENCODERS, loaded, trained, strict=True)
    _finish(settings, {name: (config, encoder) for name, (config, _), encoder in pairs})


def pack(settings: Pack) -> None:
    """Rounds all weights to float16.

    Raises:
        HotshotError: a file is damaged, or does not fit.
    """
    source, output = Path(str(settings.source)), Path(str(settings.output))
    if is_controlnet(str(source)):
        config, module = _loaded(open_controlnet(str(source)))
        with staged_folder(output) as folder:
            write_component(folder, CONTROLNET, config, to_float16(module))
        return
    if (source / LORA_FILE).is_file():
        pack_lora(source, output)
        return
    replaced = {name: _load(source, name) for name in KINDS}
    rounded = {name: (config, to_float16(module)) for name, (config, module) in replaced.items()}
    replace_components(source, output, rounded)


def _load(source: Path, name: str) -> tuple[Mapping[str, Any], Any]:
    return _loaded(getattr(open_checkpoint(source), name))


def _loaded(component: AnyComponent) -> tuple[Mapping[str, Any], Any]:
    host = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])
    module = prepare_component(component, dtype=jnp.float32).load(shardings=host)
    return component.config, module


def _fit(settings: Any) -> FitConfig:
    if settings.steps < 1 or settings.batch_size < 1 or not settings.learning_rate > 0:
        raise UsageError("--steps, --batch_size and --learning_rate must be positive.")
    warmup = min(100, settings.steps // 10)
    return FitConfig(settings.steps, settings.learning_rate, warmup, seed=settings.seed)


@contextlib.contextmanager
def _reporting(settings: Any) -> Iterator[Report]:
    """A progress bar and `OUTPUT.metrics.jsonl`."""
    path = Path(str(settings.output))
    path.parent.mkdir(parents=True, exist_ok=True)
    file = MetricsFile(path.with_name(f"{path.name}.metrics.jsonl"), 0)
    start = time.monotonic()
    with (
        contextlib.closing(file),
        tqdm(total=settings.steps, unit="step", file=sys.stderr, dynamic_ncols=True) as bar,
    ):

        def report(step: int, numbers: Mapping[str, float]) -> None:
            file.numbers(step, {**numbers, "seconds": time.monotonic() - start})
            bar.set_postfix(loss=f"{numbers['loss']:.4f}", refresh=False)
            bar.update(1)

        yield report


def _finish(settings: Any, replaced: Mapping[str, tuple[Mapping[str, Any], Any]]) -> None:
    output = Path(str(settings.output))
    replace_components(Path(str(settings.source)), output, replaced)
    print(output)
