"""Compiled programs, each compiled once and with the time it took made known."""

import contextlib
import ctypes
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from hotshot_jax.compile_effort import DEFAULT_EFFORT, effort_options
from hotshot_jax.runtime.precision import current_platform
from hotshot_jax.runtime.progress import Progress
from hotshot_jax.runtime.stored_programs import StoredPrograms

MOST_KEPT = 16
"""Programs that are kept: those of three sizes, or of one size in three sizes of batches."""


class Programs:
    """Compiles functions ahead of their first call and keeps the results.

    A program is kept for its key and for the shapes, dtypes and shardings of its arguments, so the
    second prompt of a run finds everything compiled. Each holds tens of megabytes, and every size
    has its own: beyond `MOST_KEPT`, the one that was not used for longest is given up, unless the
    last job of a thread has used it. Several threads may use it, each with a job of its own.

    Args:
        mesh: where the programs run; None for the device that their arguments lie on.
        effort: of the compiler, see `effort_options`; None is `default_effort` of the current
            platform.

    Raises:
        UsageError: the effort is unknown, or the platform has no choice of it.
    """

    def __init__(self, mesh: Mesh | None = None, effort: str | None = None) -> None:
        platform = current_platform()
        self.mesh = mesh
        self._options = effort_options(platform, effort or default_effort(platform))
        self._compiled: OrderedDict[Any, Callable[..., Any]] = OrderedDict()
        self._used: dict[int, set[Any]] = {}
        self._looking = threading.Lock()
        self._compiling = threading.Lock()
        self.stored: StoredPrograms | None = None

    def __len__(self) -> int:
        return len(self._compiled)

    def start_job(self) -> None:
        """Tells that what this thread has used until now may be given up."""
        with self._looking:
            self._used[threading.get_ident()] = set()

    def get(
        self,
        name: str,
        key: Any,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        progress: Progress,
        *,
        donate: tuple[int, ...] = (),
        matmul: str | None = None,
        out_shardings: Any = None,
    ) -> Callable[..., Any]:
        """The compiled form of `function` for arguments like these.

        Args:
            name: for the progress display.
            key: hashable; whatever the function closes over and that changes the program.
            function: takes arrays and pytrees of them.
            arguments: examples of its arguments.
            progress: is told of a compilation.
            donate: positions of arguments whose buffers the outputs may take over.
            matmul: precision of float32 products, see `jax.default_matmul_precision`.
            out_shardings: where results go on the mesh; None leaves it to the compiler. It has to
                follow from the other arguments.
        """
        leaves, structure = jax.tree.flatten(arguments)
        shapes = tuple((jax.typeof(leaf), getattr(leaf, "sharding", None)) for leaf in leaves)
        full_key = (name, key, structure, shapes)
        program = self._used_again(full_key)
        if program is not None:
            return program
        with self._compiling:
            # Another thread may have waited for the same.
            program = self._used_again(full_key)
            if program is not None:
                return program
            on_mesh = contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)
            with progress.compiling(name), jax.default_matmul_precision(matmul), on_mesh:

                def compile_program() -> Any:
                    jitted = jax.jit(function, donate_argnums=donate, out_shardings=out_shardings)
                    return jitted.lower(*arguments).compile(self._options)

                made_of = (*full_key, donate, matmul, self._options, self.mesh)
                if self.stored is None:
                    program = compile_program()
                else:
                    program = self.stored.get_or_compile(made_of, compile_program)
            with self._looking:
                self._compiled[full_key] = program
                self._used.setdefault(threading.get_ident(), set()).add(full_key)
                given_up = self._make_room()
            if given_up:
                return_free_memory()
        return program

    def _used_again(self, full_key: Any) -> Callable[..., Any] | None:
        with self._looking:
            if full_key not in self._compiled:
                return None
            self._compiled.move_to_end(full_key)
            self._used.setdefault(threading.get_ident(), set()).add(full_key)
            return self._compiled[full_key]

    def _make_room(self) -> bool:
        # Only for a new one: a job that needs more than are kept needs them for its next call too.
        # What another thread has used last may be older than what nobody uses any more.
        used = set().union(*self._used.values())
        unused = [key for key in self._compiled if key not in used]
        given_up = unused[: max(0, len(self) - MOST_KEPT)]
        for key in given_up:
            del self._compiled[key]
        return bool(given_up)


def return_free_memory() -> None:
    """Has the C library give free memory back to the system, where it can (glibc).

    What a program and its compilation leave is scattered; without this it stays with the process,
    which grows by as much for every size as if the programs were kept.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def default_effort(platform: str) -> str:
    """The compiler's effort where none is asked for.

    On TPUs at full size, the compiler's own default takes three times as long as O1; what it saves
    in each denoising step is worth that after a few hundred GIFs of one size
    (`docs/performance.md`).

    Args:
        platform: "cpu", "gpu" or "tpu".
    """
    return "O1" if platform == "tpu" else DEFAULT_EFFORT


def flattened(module: nnx.Module) -> tuple[list[jax.Array], Callable[[list[jax.Array]], Any]]:
    """The arrays of a module, and how to put them together again.

    Walking through the thousand modules of a UNet takes milliseconds; a list of arrays does not,
    and is what a program called at every step should be given.
    """
    leaves, structure = jax.tree.flatten(module)
    return leaves, lambda arrays: jax.tree.unflatten(structure, arrays)
