"""`python -m hotshot_jax.from_scratch {create,vae,text,pack}`: the stages before `train.py`."""

import contextlib
import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from tqdm import tqdm

from hotshot_jax.cli.flags import checked_settings, flag, parse_flags, written_settings
from hotshot_jax.cli.run import run
from hotshot_jax.conditioning.text.prompt import tokenize
from hotshot_jax.convert.assembly import AnyComponent
from hotshot_jax.convert.builders import CONTROLNET, KINDS
from hotshot_jax.convert.formats.controlnet_files import is_controlnet, open_controlnet
from hotshot_jax.convert.formats.to_torch import write_component
from hotshot_jax.convert.prepare import open_checkpoint, prepare_component
from hotshot_jax.data.open_data import parse_shapes
from hotshot_jax.data.shapes import split_prompts
from hotshot_jax.errors import UsageError
from hotshot_jax.from_scratch.autoencoder import PARTS, AutoencoderConfig, train_autoencoder
from hotshot_jax.from_scratch.fit import FitConfig, Report
from hotshot_jax.from_scratch.folder import create_checkpoint, replace_components, to_float16
from hotshot_jax.from_scratch.text_encoders import TextConfig, train_text_encoders
from hotshot_jax.pipelines.loading import load_tokenizer
from hotshot_jax.training.running.metrics import MetricsFile
from hotshot_jax.writing.staging import check_destination, staged_folder

PROGRAM = "python -m hotshot_jax.from_scratch"
_ENCODERS = ("text_encoder", "text_encoder_2")
_FIT = "fitting"


@dataclasses.dataclass(frozen=True)
class _Create:
    """Write a checkpoint with initial weights."""

    architecture: str | None = flag(None, "JSON file of all configurations", str, "model")
    words: str = flag("", "words that are one token each, beside the data set's", str, "model")
    seed: int = flag(0, "of the weights", int, "model")
    output: str | None = flag(None, "folder to write; required", str, "output", local=True)


@dataclasses.dataclass(frozen=True)
class _Vae:
    """Train the VAE on single frames."""

    source: str | None = flag(None, "checkpoint to start from; required", str, "model", local=True)
    output: str | None = flag(None, "folder to write; required", str, "output", local=True)
    data: str = flag("shapes:train?frames=1", "frames to train on", str, "data")
    crop: int | None = flag(None, "side of the part of a frame that is trained on", int, "data")
    batch_size: int = flag(16, "frames a step", int, _FIT)
    steps: int = flag(2500, "updates", int, _FIT)
    learning_rate: float = flag(2e-3, "after the warm-up", float, _FIT)
    kl_weight: float = flag(5e-4, "of the divergence", float, _FIT)
    edge_weight: float = flag(4.0, "how much more edges weigh", float, _FIT)
    latent_deviation: float = flag(0.7, "of the scaled latents", float, _FIT)
    part: str = flag(
        "all", "what trains; a decoder alone leaves latents as they are", str, _FIT, choices=PARTS
    )
    seed: int = flag(0, "of all random numbers", int, _FIT)


@dataclasses.dataclass(frozen=True)
class _Text:
    """Train the text encoders on the data set's prompts."""

    source: str | None = flag(None, "checkpoint to start from; required", str, "model", local=True)
    output: str | None = flag(None, "folder to write; required", str, "output", local=True)
    other_words: str = flag("shape", "words that replace those of the prompts", str, "data")
    dropped: float = flag(0.15, "fraction of words left out", float, "data")
    replaced: float = flag(0.1, "fraction of words replaced", float, "data")
    batch_size: int = flag(64, "prompts a step", int, _FIT)
    steps: int = flag(1500, "updates", int, _FIT)
    learning_rate: float = flag(2e-3, "after the warm-up", float, _FIT)
    seed: int = flag(0, "of all random numbers", int, _FIT)


@dataclasses.dataclass(frozen=True)
class _Pack:
    """Round all weights to float16, half the size."""

    source: str | None = flag(None, "checkpoint or ControlNet; required", str, "model")
    output: str | None = flag(None, "folder to write; required", str, "output", local=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit status: 0, 1 (run failed) or 2 (wrong usage)."""
    return run(PROGRAM, lambda: _main(sys.argv[1:] if arguments is None else arguments))


def _main(arguments: Sequence[str]) -> None:
    if not arguments or arguments[0] not in _STAGES:
        raise UsageError(f"expected one of {', '.join(_STAGES)}, then its flags.")
    settings, stage = _STAGES[arguments[0]]
    stage(_parse(settings, arguments[0], arguments[1:]))


def _parse(settings: type, name: str, arguments: Sequence[str]) -> Any:
    given = parse_flags(
        settings, arguments, f"{PROGRAM} {name}", settings.__doc__ or "", "YAML file of settings"
    )
    path = given.pop("config", None)
    if path is not None:
        given = checked_settings(settings, path, written_settings(path)) | given
    parsed = settings(**given)
    for required in ("architecture", "source", "output"):
        if getattr(parsed, required, "") is None:
            raise UsageError(f"--{required} is missing.")
    # Before anything is trained that could then not be written.
    check_destination(parsed.output, source=getattr(parsed, "source", None))
    return parsed


def _create(settings: _Create) -> None:
    architecture = written_settings(str(settings.architecture))
    words = dict.fromkeys(" ".join(split_prompts("all")).split() + settings.words.split())
    create_checkpoint(Path(str(settings.output)), architecture, list(words), settings.seed)


def _vae(settings: _Vae) -> None:
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


def _text(settings: _Text) -> None:
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


def _pack(settings: _Pack) -> None:
    source, output = Path(str(settings.source)), Path(str(settings.output))
    if is_controlnet(str(source)):
        config, module = _loaded(open_controlnet(str(source)))
        with staged_folder(output) as folder:
            write_component(folder, CONTROLNET, config, to_float16(module))
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


_STAGES: Mapping[str, tuple[type, Callable[[Any], None]]] = {
    "create": (_Create, _create),
    "vae": (_Vae, _vae),
    "text": (_Text, _text),
    "pack": (_Pack, _pack),
}


if __name__ == "__main__":
    sys.exit(main())
