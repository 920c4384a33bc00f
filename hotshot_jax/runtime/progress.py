"""How long work reports where it is, without knowing who shows it."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

Advance = Callable[[int], object]
"""Tells that so many more units are done."""


class Progress(Protocol):
    """Shows the stages of a run."""

    def stage(self, name: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        """A stage of `total` units; leave the context when it ends, however it ends."""
        ...

    def compiling(self, name: str) -> AbstractContextManager[None]:
        """The compilation of one program; how long it took is worth telling."""
        ...


class NoProgress:
    """Shows nothing."""

    @contextlib.contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        """A stage that nobody watches."""
        yield lambda units: None

    @contextlib.contextmanager
    def compiling(self, name: str) -> Iterator[None]:
        """A compilation that nobody watches."""
        yield
