"""Checkpoints of a run, by Orbax: written beside the training, complete or not there at all.

FOLDER/STEP/state     parameters, optimiser, moving average, random key, step
FOLDER/STEP           and, in its metadata, the position in the data and the run's settings
"""

import contextlib
import dataclasses
import gc
import itertools
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from hotshot_jax.convert.checkpoint import quiet
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.parallel.hosts import failing_together, is_first
from hotshot_jax.training.running.step import TrainState
from hotshot_jax.writing.staging import probe_renaming, probe_writable

FORMAT = 1
_NAME = "state"
_INCOMPLETE = ".orbax-checkpoint-tmp"
# What may go wrong with a whole checkpoint, in the words of JAX, TensorStore and Linux.
_NOT_ITS_FAULT = ("RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "Permission denied", "Stale file")

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Saved:
    """Where a checkpoint lies.

    Attributes:
        folder: that holds the checkpoints of a run.
        step: its step.
    """

    folder: Path
    step: int

    @property
    def path(self) -> Path:
        """Its own folder."""
        return self.folder / str(self.step)


class DamagedCheckpointError(HotshotError):
    """A checkpoint that cannot be restored; the one before may be whole."""


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: made if missing.
        keep: how many of the latest to keep.

    All hosts have to make it together.

    Raises:
        HotshotError: on every host, that the folder cannot be made, or that checkpoints cannot be
            written there.
    """

    def __init__(self, folder: Path, keep: int):
        self.folder = folder.resolve()
        with failing_together():
            _prepare(self.folder, folder)
        training = ocp.training
        with quiet():
            self._checkpointer = training.Checkpointer(
                self.folder,
                # Only when asked to: the loop knows when a step is known to be good.
                save_decision_policy=training.save_decision_policies.FixedIntervalPolicy(1),
                preservation_policy=training.preservation_policies.LatestN(keep),
            )
        self._saving: Any = None
        self._step: int | None = None

    @property
    def complete(self) -> list[Saved]:
        """The complete ones, the last first."""
        return _complete(self.folder)

    @property
    def latest(self) -> Saved | None:
        """The last complete one."""
        return next(iter(self.complete), None)

    def set_aside_after(self, step: int) -> list[Path]:
        """Renames the checkpoints of later steps, which would stand in the way of new ones.

        All hosts have to call it together.

        Returns:
            Their new paths; nothing is ever removed from there.

        Raises:
            HotshotError: they cannot be renamed.
        """
        moved = []
        with failing_together():
            later = [saved for saved in self.complete if saved.step > step]
            for saved in later if is_first() else ():
                number = next(n for n in itertools.count() if not _aside(saved, n).exists())
                try:
                    saved.path.rename(_aside(saved, number))
                except OSError as error:
                    raise HotshotError(
                        f"{saved.path} cannot be renamed ({error.strerror or error}), and stands "
                        "in the way of new checkpoints. Move it elsewhere."
                    ) from error
                moved.append(_aside(saved, number))
        with quiet():
            self._checkpointer.reload()
        return moved

    def save(self, state: TrainState, step: int, metadata: Mapping[str, Any]) -> None:
        """Starts to write a checkpoint; the arrays may be given away at once.

        A step that this has been called for is not written again. Those of an earlier run have to
        be out of the way (`set_aside_after`).

        Raises:
            HotshotError: this one or the one before could not be written.
        """
        self.wait()
        # By what this run has saved and not by what the folder lists: all hosts have to save
        # together, and file systems show them at different times what is there.
        if self._step is not None and self._step >= step:
            return
        self._step = step
        with self._explained(step):
            self._saving = self._checkpointer.save_async(
                step,
                stored(state),
                force=True,
                custom_metadata={"format": FORMAT, **metadata},
            )

    def wait(self) -> None:
        """Waits until the checkpoint that is being written is complete.

        Raises:
            HotshotError: it could not be written.
        """
        saving, self._saving = self._saving, None
        if saving is not None:
            with self._explained(self._step):
                saving.result()

    def close(self) -> None:
        """Waits, and lets go of the folder.

        Raises:
            HotshotError: the last checkpoint could not be written. Orbax tells it again here, also
                after `save` or `wait` have.
        """
        try:
            self.wait()
        finally:
            with self._explained(self._step):
                self._checkpointer.close()

    @contextlib.contextmanager
    def _explained(self, step: int | None) -> Iterator[None]:
        try:
            with quiet():
                yield
        except (OSError, ValueError, RuntimeError) as error:
            text = str(error)
            full = "No space left" in text or "Disk quota" in text
            reason = "the disk is full" if full else (text.splitlines() or [repr(error)])[0]
            before = self.latest
            last = f"The one before is {before.path}" if before else "There is none before it"
            advice, perhaps = "Make room or check permissions, and run the same command again.", ""
            if jax.process_count() > 1 and not full:
                advice = "Start the command again on all hosts."
                perhaps = ", perhaps because another of its processes has ended"
            raise HotshotError(
                f"{self.folder}: the checkpoint of step {step} could not be written{perhaps}: "
                f"{reason[:200]}.\n{last}. {advice}"
            ) from error


def find(path: Path) -> list[Saved]:
    """The checkpoints that `resume` names.

    Args:
        path: one of them; or a run's output or its checkpoints, for all of these.

    Returns:
        At least one, the last first.

    Raises:
        UsageError: there is no such folder.
        HotshotError: it holds no complete checkpoint.
    """
    # One name for each folder: there may be symbolic links on the way, and "..".
    path = path.resolve()
    if not path.is_dir():
        raise UsageError(f"`resume` {path}: there is no such folder.")
    if path.name.isdigit() and (path / _NAME).is_dir():
        return [Saved(path.parent, int(path.name))]
    for folder in (path / "checkpoints", path):
        if folder.is_dir() and (complete := _complete(folder.resolve())):
            return complete
    raise HotshotError(
        f"`resume` {path}: the folder holds no complete checkpoint (its writing may have been "
        "interrupted). Name the `output_dir` of a run, or one of its checkpoints."
    )


def read_metadata(saved: Saved) -> Mapping[str, Any]:
    """What was stored beside the arrays.

    Raises:
        DamagedCheckpointError: it cannot be read.
        HotshotError: it is of another version.
    """
    with _damaged(saved), quiet():
        with contextlib.closing(ocp.training.Checkpointer(saved.folder)) as checkpointer:
            metadata = checkpointer.checkpointables_metadata(saved.step).custom_metadata
        if not isinstance(metadata, Mapping):
            raise ValueError("its metadata is missing")
        if metadata.get("format") == FORMAT:
            _check_metadata(metadata)
            return metadata
    raise HotshotError(
        f"{saved.path} is no checkpoint of train.py, or one of another version of it."
    )


def restore(saved: Saved, like: TrainState) -> TrainState:
    """Reads a checkpoint to where the arrays of `like` lie, on whatever mesh that is.

    Raises:
        DamagedCheckpointError: it cannot be read, or does not fit.
        HotshotError: memory or permission for it is missing.
    """
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding),
        stored(like),
    )
    with _damaged(saved), quiet():
        with contextlib.closing(ocp.training.Checkpointer(saved.folder)) as checkpointer:
            loaded = checkpointer.load(saved.step, target)
        if int(loaded["step"]) != saved.step:
            raise ValueError(f"it is of step {int(loaded['step'])}")
    optimizer = jax.tree.unflatten(
        jax.tree.structure(like.optimizer), [loaded["optimizer"][key] for key in _numbered(like)]
    )
    return dataclasses.replace(
        like,
        step=loaded["step"],
        key=loaded["key"],
        trained=loaded["trained"],
        optimizer=optimizer,
        average=loaded.get("average"),
    )


def forget_failure() -> None:
    """Drops what a failed restore has left behind, of which asyncio would tell line by line."""
    with quiet():
        gc.collect()


def stored(state: TrainState) -> dict[str, Any]:
    """The arrays of a state as dictionaries, so that a file outlives the classes of Optax."""
    tree = {
        "step": state.step,
        "key": state.key,
        "trained": state.trained,
        "optimizer": dict(zip(_numbered(state), jax.tree.leaves(state.optimizer), strict=True)),
    }
    return tree if state.average is None else {**tree, "average": state.average}


def _numbered(state: TrainState) -> list[str]:
    paths = jax.tree_util.tree_flatten_with_path(state.optimizer)[0]
    return [jax.tree_util.keystr(path) for path, _ in paths]


def _prepare(folder: Path, name: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe_writable(folder)
    except OSError as error:
        raise HotshotError(
            f"{name}: checkpoints cannot be written ({error.strerror or error}). Give another "
            "`output_dir`."
        ) from error
    if not is_first():
        return
    # What a killed run was writing. Orbax would do so in a thread that nobody waits for, and that
    # tells of its end when the program ends before it does.
    for path in folder.glob(f"*{_INCOMPLETE}*"):
        shutil.rmtree(path, ignore_errors=True)
    try:
        probe_renaming(folder)
    except OSError as error:
        raise HotshotError(
            f"{name}: checkpoints could not be completed, because folders with files in them "
            f"cannot be renamed there ({error.strerror or error}).\nOn Cloud Storage FUSE use a "
            "bucket with hierarchical namespace, or mount it with rename-dir-limit=100000; or give "
            "another `output_dir`."
        ) from error


def _complete(folder: Path) -> list[Saved]:
    # Orbax counts the one that it is writing too; a folder gets its number when it is complete.
    steps = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
    return [Saved(folder, step) for step in sorted(steps, reverse=True)]


def _aside(saved: Saved, number: int) -> Path:
    return saved.path.with_name(f"set-aside-{saved.step}" + (f"-{number}" if number else ""))


def _check_metadata(metadata: Mapping[str, Any]) -> None:
    data = metadata.get("data")
    if not isinstance(metadata.get("settings"), Mapping) or not isinstance(data, Mapping):
        raise ValueError("its metadata is not whole")
    if type(data.get("next_batch")) is not int or data["next_batch"] < 0:
        raise ValueError("its metadata has no position in the data")


@contextlib.contextmanager
def _damaged(saved: Saved) -> Iterator[None]:
    # Orbax and TensorStore raise whatever they meet, from KeyError to their own classes.
    try:
        yield
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        if any(sign in str(error) for sign in _NOT_ITS_FAULT) or isinstance(error, MemoryError):
            raise HotshotError(f"{saved.path} cannot be read: {reason}.") from error
        raise DamagedCheckpointError(
            f"{saved.path} cannot be restored: it is damaged, or of another model ({reason})."
        ) from error
