"""Loss curves of training runs as an SVG, from their `metrics.jsonl`.

    python -m benchmarks.loss_curves VAE=tiny/vae.metrics.jsonl UNet=tiny/spatial/metrics.jsonl \
        --output losses.svg

Each run is a panel: the loss over the steps on a logarithmic axis, as the median of a hundredth of
the run at a time, and the tenth and ninetieth of a hundred losses around it. Four panels a row.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hotshot_jax.cli.run import Parser, run
from hotshot_jax.errors import HotshotError, UsageError

PROGRAM = "loss_curves"
_BINS = 100
_PANEL, _HEIGHT = 260, 190
_COLUMNS = 4
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 26, 34

Float = npt.NDArray[np.float64]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit status: 0, 1 (run failed) or 2 (wrong usage)."""
    return run(PROGRAM, lambda: draw(_parser().parse_args(arguments)))


def draw(given: argparse.Namespace) -> None:
    """Writes the picture.

    Raises:
        UsageError: an argument is not NAME=FILE.
        HotshotError: a file holds no losses.
    """
    panels = []
    for number, argument in enumerate(given.runs):
        name, equals, path = argument.partition("=")
        if not equals:
            raise UsageError(f"{argument}: expected NAME=FILE.")
        steps, losses = read_losses(Path(path))
        row, column = divmod(number, _COLUMNS)
        panels.append(
            f'<g transform="translate({column * _PANEL},{row * _HEIGHT})">\n'
            f"{_panel(name, steps, losses)}\n</g>"
        )
    width = min(len(panels), _COLUMNS) * _PANEL
    height = math.ceil(len(panels) / _COLUMNS) * _HEIGHT
    given.output.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">\n'
        f'<rect width="{width}" height="{height}" fill="white"/>\n'
        + "\n".join(panels)
        + "\n</svg>\n",
        encoding="utf-8",
    )
    print(given.output)


def read_losses(path: Path) -> tuple[Float, Float]:
    """Steps and losses of a `metrics.jsonl`, lines without a loss left out.

    Raises:
        HotshotError: there are none.
    """
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    pairs = [(line["step"], line["loss"]) for line in lines if line.get("loss")]
    if not pairs:
        raise HotshotError(f"{path} holds no losses.")
    steps, losses = np.array(pairs, np.float64).T
    return steps, losses


def summary(steps: Float, losses: Float, bins: int = _BINS) -> tuple[Float, Float]:
    """The middle step of each part of a run, and the quantiles 0.1, 0.5 and 0.9 of its losses.

    Returns:
        `[parts]` and `[3, parts]`.
    """
    parts = np.array_split(np.arange(len(steps)), min(bins, len(steps)))
    middles = np.array([steps[part].mean() for part in parts])
    return middles, np.array([np.quantile(losses[part], (0.1, 0.5, 0.9)) for part in parts]).T


def _panel(name: str, steps: Float, losses: Float) -> str:
    middles, (low, middle, high) = summary(steps, losses)
    bottom = math.floor(math.log10(low.min()) * 2) / 2
    top = math.ceil(math.log10(high.max()) * 2) / 2

    def x(step: Float) -> Float:
        return _LEFT + (_PANEL - _LEFT - _RIGHT) * step / steps.max()

    def y(loss: Float) -> Float:
        share = (top - np.log10(loss)) / max(top - bottom, 0.5)
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * share

    def points(step: Float, loss: Float) -> str:
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x(step), y(loss), strict=True))

    band = points(np.concatenate([middles, middles[::-1]]), np.concatenate([low, high[::-1]]))
    parts = [f'<text x="{_LEFT}" y="16" font-weight="bold">{escape(name)}</text>']
    for exponent in np.arange(bottom, top + 0.25, 0.5):
        line = float(y(np.array(10.0**exponent)))
        parts.append(
            f'<line x1="{_LEFT}" x2="{_PANEL - _RIGHT}" y1="{line:.1f}" '
            f'y2="{line:.1f}" stroke="#ddd"/><text x="{_LEFT - 5}" y="{line + 4:.1f}" '
            f'text-anchor="end">{10.0**exponent:.2g}</text>'
        )
    parts += [
        f'<polygon points="{band}" fill="#9ecae1" opacity="0.6"/>',
        f'<polyline points="{points(middles, middle)}" fill="none" stroke="#08519c" '
        'stroke-width="1.5"/>',
        f'<text x="{_PANEL - _RIGHT}" y="{_HEIGHT - 14}" text-anchor="end">'
        f"{int(steps.max())} steps</text>",
    ]
    return "\n".join(parts)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"python -m benchmarks.{PROGRAM}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="NAME=FILE", help="a run and its metrics.jsonl")
    parser.add_argument("--output", type=Path, required=True, help="the SVG to write")
    return parser


if __name__ == "__main__":
    sys.exit(main())
