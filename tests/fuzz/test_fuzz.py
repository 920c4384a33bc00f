"""Whatever is damaged in whatever is read: a sentence within seconds, never a traceback."""

import random
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotshot_jax.cli.run import run
from tests.fuzz.mutations import mutate
from tests.fuzz.readers import Kind, kinds

_SEED = 16
_MOST_SECONDS = 20
_MOST_GROWTH_BYTES = 1_000_000_000
_DEFAULT_SECONDS, _SLOW_INPUTS = 20, 500


class Fuzzer:
    """Damages examples and reads them.

    Args:
        folder: for examples and damaged copies.
        checkpoint: a small one.
    """

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        self.folder = folder
        self.mutate = mutate
        self.kinds = kinds(checkpoint)
        self._examples: dict[str, Path] = {}

    def inputs(self) -> Iterator[tuple[str, int]]:
        """Kinds in turn, each with a number that decides the damage."""
        number = 0
        while True:
            for name in self.kinds:
                yield name, number
            number += 1

    def check(self, name: str, number: int) -> None:
        """Reads one damaged input."""
        kind, chance = self.kinds[name], random.Random(f"{_SEED} {name} {number}")
        copy = self._damaged_copy(name, kind, chance)
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        try:
            with _Deadline(f"{name} {number}"):
                status = run("fuzz", lambda: kind.read(copy))
        except Exception as error:
            raise AssertionError(f"{name} {number}: {type(error).__name__}: {error}") from error
        assert status in (0, 1, 2), f"{name} {number} ended with {status}"
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown * 1024 < _MOST_GROWTH_BYTES, f"{name} {number} took {grown // 1024} MB"
        assert time.monotonic() - start < _MOST_SECONDS, f"{name} {number} took too long"

    def _damaged_copy(self, name: str, kind: Kind, chance: random.Random) -> Path:
        example = self._examples.get(name)
        if example is None:
            example = self._examples[name] = self.folder / "whole" / name
            example.parent.mkdir(exist_ok=True)
            kind.make(example)
        copy = self.folder / "damaged" / name
        shutil.rmtree(copy.parent, ignore_errors=True)
        copy.parent.mkdir()
        if example.is_file():
            copy.write_bytes(self.mutate(example.read_bytes(), chance))
            return copy
        shutil.copytree(example, copy)
        files = sorted(file for file in copy.rglob(kind.damaged) if file.is_file())
        for file in chance.sample(files, min(len(files), chance.choice((1, 1, 1, 3)))):
            file.write_bytes(self.mutate(file.read_bytes(), chance))
        return copy


class _Deadline:
    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        def late(number: int, frame: object) -> None:
            raise AssertionError(f"{self.name} takes longer than {_MOST_SECONDS} seconds")

        self.before = signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, _MOST_SECONDS)

    def __exit__(self, *error: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Fuzzer:
    return Fuzzer(tmp_path_factory.mktemp("fuzz"), tiny_checkpoint)


def test_examples_are_read_undamaged(fuzzer: Fuzzer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise nothing of what follows would be tested."""
    monkeypatch.setattr(fuzzer, "mutate", lambda content, chance: content)
    for name in fuzzer.kinds:
        kind = fuzzer.kinds[name]
        kind.read(fuzzer._damaged_copy(name, kind, random.Random(0)))


def test_no_damage_ends_badly_within_seconds(fuzzer: Fuzzer) -> None:
    end = time.monotonic() + _DEFAULT_SECONDS
    for name, number in fuzzer.inputs():
        if time.monotonic() > end:
            return
        fuzzer.check(name, number)


@pytest.mark.slow
def test_no_damage_ends_badly_in_hundreds_of_inputs(fuzzer: Fuzzer) -> None:
    for _, (name, number) in zip(range(_SLOW_INPUTS), fuzzer.inputs(), strict=False):
        fuzzer.check(name, number)
