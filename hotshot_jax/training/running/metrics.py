"""Where the numbers of a run go: JSON lines always, TensorBoard and Weights & Biases if asked for.

Neither of the two may stop a run: what goes wrong with them is told once, and training goes on.
"""

import contextlib
import errno
import importlib
import importlib.util
import io
import json
import logging
import math
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hotshot_jax.choices import AUTO, REPORTS
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.files.parsed import parse_json
from hotshot_jax.files.plain_file import MOST_FILE_BYTES, open_plain, read_bytes, read_text
from hotshot_jax.media.formats.gif import encode_gif
from hotshot_jax.media.formats.output_form import frame_times
from hotshot_jax.writing.staging import replace_anything, staged_file

_MODULES = {
    # Any of the lines of modules will do.
    "tensorboard": (("tensorboardX",), ("torch", "tensorboard")),
    "wandb": (("wandb",),),
}
_RUN_ID_FILE = "wandb_run_id"
_MILLISECONDS = 1000
_LONGEST_RUN_ID = 1000

logger = logging.getLogger(__name__)

Video = npt.NDArray[np.uint8]
"""[frames, height, width, 3]."""


class Report:
    """Takes the numbers and clips of a run; this one keeps nothing, as one of several processes."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step, by name."""

    def video(self, step: int, name: str, frames: Video) -> None:
        """A validation clip."""

    def close(self) -> None:
        """No more will come."""


class MetricsFile(Report):
    """`metrics.jsonl`: a line a step, on disk as soon as it is known.

    Args:
        path: the file.
        last_step: lines of later steps are removed, since a resumed run will write them again.

    Raises:
        HotshotError: the file cannot be written, here or later.
    """

    def __init__(self, path: Path, last_step: int):
        self.path = path
        with self._explained():
            if path.exists():
                if not is_metrics(path):
                    raise HotshotError(
                        f"{path} holds no metrics, and would be replaced; move it or name another "
                        "folder."
                    )
                lines = read_bytes(path, MOST_FILE_BYTES).decode(errors="replace").splitlines()
                kept = "".join(f"{each}\n" for each in lines if _step_of(each) <= last_step)
                with staged_file(path, may_replace=replace_anything) as staged:
                    staged.write_text(kept)
            # Unbuffered: on a full disk, closing would try once more to write what is left.
            self._file = path.open("ab", buffering=0)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one line; what is not finite is null, which JSON has no number for."""
        finite = {
            name: value if value is None or math.isfinite(value) else None
            for name, value in values.items()
        }
        line = (json.dumps({"step": step, **finite}) + "\n").encode()
        with self._explained():
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise HotshotError(
                f"{self.path} cannot be written: {error.strerror or error}. Make room or check "
                "permissions, and run the same command again."
            ) from error


class TensorBoardReport(Report):
    """Event files, through tensorboardX or PyTorch's writer, whichever is installed."""

    _MODULES = (
        ("tensorboardX", "tensorboardX.proto.summary_pb2"),
        ("torch.utils.tensorboard", "tensorboard.compat.proto.summary_pb2"),
    )

    def __init__(self, folder: Path):
        for module, messages in self._MODULES:
            try:
                writer = importlib.import_module(module).SummaryWriter
                self._summary = importlib.import_module(messages).Summary
            except ImportError:
                continue
            self._writer = writer(str(folder))
            return
        raise ImportError("neither tensorboardX nor torch with tensorboard is installed")

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Scalars of a step."""
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)

    def video(self, step: int, name: str, frames: Video) -> None:
        """A clip, as the GIF that TensorBoard shows."""
        # Both writers' `add_video` would make the same of it, with moviepy.
        _, height, width, _ = frames.shape
        image = self._summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=_gif(frames)
        )
        value = self._summary.Value(tag=f"validation/{name}", image=image)
        self._writer.file_writer.add_summary(self._summary(value=[value]), step)

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()


class WandbReport(Report):
    """A run at Weights & Biases; offline where `WANDB_MODE=offline` says so.

    Its id is kept in the folder, so that a resumed training goes on in the same run there.
    """

    def __init__(self, folder: Path, project: str, name: str, config: Mapping[str, Any]):
        self._wandb = importlib.import_module("wandb")
        kept = folder / _RUN_ID_FILE
        run_id = os.environ.get("WANDB_RUN_ID") or _run_id_in(kept) or secrets.token_hex(4)
        self._run = self._wandb.init(
            project=project,
            name=name,
            dir=str(folder),
            config=dict(config),
            id=run_id,
            resume="allow",
        )
        kept.write_text(f"{run_id}\n")

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step."""
        self._run.log({k: v for k, v in values.items() if v is not None}, step=step)

    def video(self, step: int, name: str, frames: Video) -> None:
        """A clip."""
        # Of an array it could make a clip only with moviepy.
        clip = self._wandb.Video(io.BytesIO(_gif(frames)), format="gif")
        self._run.log({f"validation/{name}": clip}, step=step)

    def close(self) -> None:
        """Ends the run there."""
        self._run.finish()


class Reports:
    """All reports of a run; one that fails is left out from then on, with a warning.

    Args:
        reports: the first is the run's own file, whose failure is not forgiven.
    """

    def __init__(self, reports: Sequence[Report]):
        self._own, *self._others = reports

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step, by name."""
        self._own.numbers(step, values)
        self._each(lambda report: report.numbers(step, values))

    def video(self, step: int, name: str, frames: Video) -> None:
        """A validation clip."""
        self._each(lambda report: report.video(step, name, frames))

    def close(self) -> None:
        """No more will come."""
        self._each(lambda report: report.close())
        self._own.close()

    def _each(self, call: Any) -> None:
        for report in list(self._others):
            try:
                call(report)
            # Their clients raise anything, from network errors to their own classes.
            except Exception as error:
                logger.warning(
                    "%s failed and gets nothing more (%s); training goes on.",
                    type(report).__name__.removesuffix("Report"),
                    error,
                )
                self._others.remove(report)


def chosen_reports(report_to: str) -> tuple[str, ...]:
    """Where numbers go besides `metrics.jsonl`.

    Args:
        report_to: one of `choices.REPORTS`; "auto" takes what is installed.

    Raises:
        UsageError: it is unknown.
    """
    if report_to not in REPORTS:
        raise UsageError(f"`report_to` {report_to} is unknown; expected {', '.join(REPORTS)}.")
    if report_to == AUTO:
        return tuple(
            kind
            for kind, ways in _MODULES.items()
            if any(all(_is_installed(module) for module in way) for way in ways)
        )
    return tuple(kind for kind in _MODULES if report_to in (kind, "all"))


def _is_installed(module: str) -> bool:
    if module in sys.modules:
        return sys.modules[module] is not None
    return importlib.util.find_spec(module) is not None


def open_reports(
    report_to: str,
    output_dir: Path,
    logging_dir: str,
    project: str,
    name: str,
    config: Mapping[str, Any],
    last_step: int,
) -> Reports:
    """Opens `metrics.jsonl`, and what `report_to` names as far as it can be had.

    Args:
        report_to: one of `choices.REPORTS`.
        output_dir: the run's folder.
        logging_dir: for TensorBoard, below `output_dir`.
        project: name of the project at Weights & Biases.
        name: of the run there.
        config: settings to show with it.
        last_step: that a resumed run goes on from, otherwise 0.

    Raises:
        UsageError: `report_to` is unknown.
    """
    reports: list[Report] = [MetricsFile(output_dir / "metrics.jsonl", last_step)]
    makers: dict[str, Callable[[], Report]] = {
        "tensorboard": lambda: TensorBoardReport(output_dir / logging_dir),
        "wandb": lambda: WandbReport(output_dir, project, name, config),
    }
    for kind in chosen_reports(report_to):
        try:
            reports.append(makers[kind]())
        except Exception as error:
            logger.warning(
                "`report_to` %s cannot be used (%s); training goes on, and metrics.jsonl has "
                "all numbers.",
                kind,
                error,
            )
    return Reports(reports)


def _gif(frames: Video) -> bytes:
    return encode_gif(frames, frame_times(_MILLISECONDS, len(frames), unit_ms=10))


def _run_id_in(file: Path) -> str:
    try:
        return read_text(file, _LONGEST_RUN_ID).strip()
    except (OSError, UnicodeDecodeError):
        return ""


def is_metrics(file: Path) -> bool:
    """Whether the first line of a file is one of ours; later ones may have been cut short."""
    try:
        with open_plain(file) as lines:
            first = lines.readline(1 << 16)
        return not first or "step" in parse_json(first)
    except (OSError, ValueError, TypeError):
        return False


def _step_of(line: str) -> float:
    try:
        return float(parse_json(line)["step"])
    except (ValueError, KeyError, TypeError):
        # The last line of a killed run may be cut short.
        return math.inf
