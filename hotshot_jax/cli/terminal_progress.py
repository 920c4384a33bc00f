"""Progress on the terminal's error stream."""

import contextlib
import sys
import time
from collections.abc import Iterator

from tqdm import tqdm

from hotshot_jax.cli.compilation_cache import CompilationCounter
from hotshot_jax.files.printable import printable
from hotshot_jax.runtime.progress import Advance

_NAME_WIDTH = 10


class TerminalProgress:
    """A bar for each stage, and a line for each compilation.

    Args:
        quiet: shows nothing, as all but one of several processes should.

    Attributes:
        seconds: how long each stage took, by its name, added up.
        totals: the size of each stage in its units, by its name.
        compilations: what was compiled and what came from the cache.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.seconds: dict[str, float] = {}
        self.totals: dict[str, int] = {}
        self.compilations = CompilationCounter()

    @contextlib.contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        """Shows a bar while the stage runs."""
        start = time.monotonic()
        self.totals[name] = total
        in_bytes = unit == "B"
        with tqdm(
            total=total,
            desc=printable(name).ljust(_NAME_WIDTH),
            unit=unit,
            unit_scale=in_bytes,
            unit_divisor=1024,
            file=sys.stderr,
            dynamic_ncols=True,
            disable=self.quiet,
        ) as bar:
            yield bar.update
        self._add(name, start)

    @contextlib.contextmanager
    def compiling(self, name: str) -> Iterator[None]:
        """Says that a program is compiled, and then how long that took."""
        start = time.monotonic()
        misses = self.compilations.misses
        self._write(f"{'compiling'.ljust(_NAME_WIDTH)}: {name} ...")
        yield
        seconds = time.monotonic() - start
        how = "compiled" if self.compilations.misses > misses else "taken from the cache"
        self._write(f"{' ' * _NAME_WIDTH}  {how} in {seconds:.1f} s")
        self._add("compiling", start)

    def _write(self, line: str) -> None:
        if not self.quiet:
            tqdm.write(printable(line), file=sys.stderr)

    def _add(self, name: str, start: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start
