"""`python -m benchmarks.toy.from_scratch {create,vae,text,pack}`: the stages before `train.py`."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from hotshot_jax.cli.flags import checked_settings, flag, parse_flags, written_settings
from hotshot_jax.cli.run import run, run_one_of
from hotshot_jax.errors import UsageError
from hotshot_jax.writing.staging import check_destination

PROGRAM = "python -m benchmarks.toy.from_scratch"
# A decoder alone can learn to show more, while latents stay what a UNet was trained on.
AUTOENCODER_PARTS = ("all", "decoder")
_FIT = "fitting"


@dataclasses.dataclass(frozen=True)
class Create:
    """Write a checkpoint with initial weights."""

    architecture: str | None = flag(None, "JSON file of all configurations", str, "model")
    words: str = flag("", "words that are one token each, beside the data set's", str, "model")
    seed: int = flag(0, "of the weights", int, "model")
    output: str | None = flag(None, "folder to write; required", str, "output", local=True)


@dataclasses.dataclass(frozen=True)
class Vae:
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
        "all",
        "what trains; a decoder alone leaves latents as they are",
        str,
        _FIT,
        choices=AUTOENCODER_PARTS,
    )
    seed: int = flag(0, "of all random numbers", int, _FIT)


@dataclasses.dataclass(frozen=True)
class Text:
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
class Pack:
    """Round all weights to float16, half the size."""

    source: str | None = flag(None, "checkpoint, ControlNet or LoRA; required", str, "model")
    output: str | None = flag(None, "folder to write; required", str, "output", local=True)


STAGES: Mapping[str, type] = {"create": Create, "vae": Vae, "text": Text, "pack": Pack}
_USAGE = f"""usage: {PROGRAM} {{{",".join(STAGES)}}} ...

{PROGRAM} STAGE --help lists the flags of a stage."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit status: 0, 1 (run failed) or 2 (wrong usage)."""
    return run_one_of(PROGRAM, _USAGE, _COMMANDS, arguments)


def _run(name: str, arguments: Sequence[str]) -> int:
    def body() -> None:
        settings = parse(name, arguments)
        from benchmarks.toy.from_scratch import stages

        getattr(stages, name)(settings)

    return run(PROGRAM, body)


_COMMANDS = {name: functools.partial(_run, name) for name in STAGES}


def parse(name: str, arguments: Sequence[str]) -> Any:
    """The settings of a stage, from its flags and the file that they may name.

    Raises:
        UsageError: they are wrong, or there is no place for the output.
    """
    settings = STAGES[name]
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
