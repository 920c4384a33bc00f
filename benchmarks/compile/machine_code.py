"""Cycles of the machine code that libtpu writes for a TPU, by the code alone.

libtpu dumps the code of each instruction of a program as text: a line for each bundle, which is
what a core starts in one cycle, with loops and their limits marked. Bundles times turns are the
cycles of an instruction that waits for nothing: neither for memory, nor for the matrix units, whose
time is counted beside it.
"""

import dataclasses
import math
import os
import re
from collections import Counter
from pathlib import Path

_FILE = re.compile(r"^\d+-(?P<name>[\w.\-]+)-\d+-final_bundles\.txt$")
# The code around the instructions of a program.
_FRAME = "TLP"
_BUNDLE = re.compile(r"^\s*(?:0x[0-9a-f]+|0)\s+(?P<mark>[A-Z]{2})?\s*:")
_EXIT = re.compile(r"scmp\.ge\.s32\.totalorder %\w+, (\d+) /\* loop exit test")
_BRANCH = re.compile(r"sbr\.rel .*target = \$region")
# The grid of a loop that overlaps its turns with copies: it has a few more turns than the grid, for
# the first and the last copies, in which the rest of the loop is skipped.
_GRID = re.compile(r"^iteration_bounds: \(([\d, ]+)\)")
_PRODUCT = re.compile(r"vmatmul\.([\w.]+)\.mxu(\d)")


@dataclasses.dataclass
class Code:
    """Cycles of a piece of code.

    Attributes:
        bundles: started, loops multiplied out.
        rows: that each matrix unit multiplies, one a cycle.
    """

    bundles: int = 0
    rows: Counter[str] = dataclasses.field(default_factory=Counter)

    @property
    def matrix_cycles(self) -> int:
        """Of the busiest matrix unit."""
        return max(self.rows.values(), default=0)

    @property
    def cycles(self) -> int:
        """The longer of what is started and what the matrix units are busy with."""
        return max(self.bundles, self.matrix_cycles)

    def add(self, other: "Code", turns: int) -> None:
        """Adds the code of a loop."""
        self.bundles += turns * other.bundles
        for unit, rows in other.rows.items():
            self.rows[unit] += turns * rows


@dataclasses.dataclass
class _Loop:
    code: Code = dataclasses.field(default_factory=Code)
    grid: int | None = None
    limit: int | None = None


def dump_machine_code(folder: Path) -> None:
    """Has libtpu write the code of what it compiles; to be called before JAX starts.

    Args:
        folder: where it writes, some 50 MB for each instruction.
    """
    # A program that comes out of a cache is not compiled.
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    os.environ["LIBTPU_INIT_ARGS"] = f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true"


def take_machine_code(folder: Path) -> dict[str, Code]:
    """The code of the instructions of one program by name, whose dump is removed."""
    found = {}
    for path in sorted(folder.iterdir()):
        match = _FILE.match(path.name)
        if match and match["name"] != _FRAME:
            found[match["name"]] = read_code(path.read_text())
        path.unlink()
    return found


def read_code(text: str) -> Code:
    """Counts a dump of bundles; of branches, both sides count.

    Raises:
        ValueError: a loop is open at the end.
    """
    loops = [_Loop()]
    for line in text.splitlines():
        bundle, grid = _BUNDLE.match(line), _GRID.match(line)
        if bundle and bundle["mark"] == "LB":
            loops.append(_Loop())
        loop = loops[-1]
        loop.code.bundles += bundle is not None
        for kind, unit in _PRODUCT.findall(line):
            # Registers hold 8 rows of 32 bits, or 16 of 16 bits, of which "lmr" takes half.
            loop.code.rows[unit] += 16 if "bf16" in kind and "lmr" not in kind else 8
        if grid:
            loop.grid = math.prod(map(int, grid[1].split(",")))
        exit_test = _EXIT.search(line)
        if exit_test:
            loop.limit = int(exit_test[1])
        if loop.limit is not None and _BRANCH.search(line):
            loops.pop()
            loops[-1].code.add(loop.code, loop.grid or loop.limit)
    if len(loops) > 1:
        raise ValueError("a loop of the machine code has no end")
    return loops[0].code
