"""What a run has come to: its curves as a picture, and its sums."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hotshot_jax.files.parsed import parse_json
from hotshot_jax.files.plain_file import MOST_FILE_BYTES, read_bytes
from hotshot_jax.measure.plot import draw_plot
from hotshot_jax.training.running.pace import Smoothed

# What can be told apart across a picture.
_MOST_POINTS = 400
_NEEDED = ("loss", "step_seconds", "samples_per_second")

Metrics = Sequence[Mapping[str, Any]]
"""Lines of a `metrics.jsonl`."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """Sums over all updates of a run, also those before it was resumed.

    Attributes:
        steps: updates.
        samples: that were trained on, each as often as it was.
        training_seconds: of the updates.
        waited_seconds: of these in which devices may have waited for data.
        other_seconds: of compiling, saving and validating between them.
        device_hours: hours of all of it, times the devices.
        devices: those of the last update.
        loss: smoothed, at the end.
        flop_utilisation: mean, weighted by time; None where the devices' peak is not known.
        price: of the device hours; None if no price is known.
    """

    steps: int
    samples: int
    training_seconds: float
    waited_seconds: float
    other_seconds: float
    device_hours: float
    devices: int
    loss: float
    flop_utilisation: float | None
    price: float | None

    @classmethod
    def of(cls, metrics: Metrics, price: float | None = None) -> "Summary | None":
        """That of a run's metrics; None if they have no update.

        Args:
            metrics: of the run.
            price: of a device for an hour.
        """
        updates = [line for line in metrics if all(is_number(line.get(name)) for name in _NEEDED)]
        if not updates:
            return None

        def column(name: str, missing: float = 0.0) -> npt.NDArray[np.float64]:
            # Older lines do not have all.
            return np.array([line.get(name) or missing for line in updates], np.float64)

        smoothed = Smoothed()
        losses = [smoothed.add(line["loss"]) for line in updates]
        seconds, other, devices = (
            column("step_seconds"),
            column("other_seconds"),
            column("devices", 1),
        )
        hours = float(((seconds + other) * devices).sum() / 3600)
        used = column("flop_utilisation")
        return cls(
            steps=len(updates),
            samples=round(float((seconds * column("samples_per_second")).sum())),
            training_seconds=float(seconds.sum()),
            waited_seconds=float(column("data_seconds").sum()),
            other_seconds=float(other.sum()),
            device_hours=hours,
            devices=int(devices[-1]),
            loss=losses[-1],
            flop_utilisation=float((used * seconds).sum() / seconds.sum()) if used.all() else None,
            price=None if price is None else price * hours,
        )

    def describe(self) -> str:
        """In words, a line."""
        parts = [
            f"{self.steps} steps in {describe_seconds(self.training_seconds)} on {self.devices} "
            f"device{'s' * (self.devices > 1)}",
            f"{self.samples / self.training_seconds:.3g} samples/s",
            f"{self.waited_seconds / self.training_seconds:.0%} waiting for data",
            f"{describe_seconds(self.other_seconds)} compiling, saving and validating",
            f"loss {self.loss:.4g}",
        ]
        if self.flop_utilisation is not None:
            parts.append(f"{self.flop_utilisation:.1%} of the peak FLOP/s")
        if self.price is not None:
            parts.append(f"price {self.price:.2f}")
        return ", ".join(parts)

    def to_json(self) -> str:
        """As an object of JSON, for programs."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def read_metrics(file: Path) -> Metrics:
    """Lines of a `metrics.jsonl`; one that was cut short is left out.

    Raises:
        OSError: the file cannot be read.
    """
    lines = []
    for text in read_bytes(file, MOST_FILE_BYTES).decode(errors="replace").splitlines():
        try:
            line = parse_json(text)
        except ValueError:
            continue
        if isinstance(line, dict) and "step" in line:
            lines.append(line)
    return lines


def draw_losses(metrics: Metrics) -> npt.NDArray[np.uint8] | None:
    """The loss over the updates, smoothed, and that of held-out data where it was measured.

    Args:
        metrics: of the run.

    Returns:
        uint8 `[height, width, 3]`; None if there is no loss.
    """
    updates = [line for line in metrics if is_number(line.get("loss"))]
    if not updates:
        return None
    smoothed = Smoothed()
    losses = [line["loss"] for line in updates]
    averages = [smoothed.add(loss) for loss in losses]
    first, last = updates[0]["step"], updates[-1]["step"]
    panels = {
        f"loss, steps {first} to {last}": {
            "a step": _fewer(losses, np.median),
            "smoothed": _fewer(averages, lambda part: part[-1]),
        }
    }
    held_out = [line for line in metrics if is_number(line.get("loss_held_out"))]
    if held_out:
        panels[f"loss on held-out data, steps {held_out[0]['step']} to {held_out[-1]['step']}"] = {
            "held out": [line["loss_held_out"] for line in held_out]
        }
    return draw_plot(panels)


def describe_seconds(seconds: float) -> str:
    """A time as people say it, such as "1 h 20 min" or "45 s"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def _fewer(values: Sequence[float], choose: Any) -> list[float]:
    parts = np.array_split(np.asarray(values, np.float64), min(_MOST_POINTS, len(values)))
    return [float(choose(part)) for part in parts]


def is_number(value: Any) -> bool:
    """Whether a value of a line is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)
