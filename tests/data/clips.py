"""Small data folders for the tests of this room."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]


def picture(seed: int, width: int, height: int) -> Pixels:
    """Smooth enough that JPEG keeps it, different for each seed."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (3, 3, 3), np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))


def write_sample(
    folder: Path,
    frames: int = 8,
    size: tuple[int, int] = (32, 32),
    prompt: str = "a prompt",
    ending: str = ".png",
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> list[Pixels]:
    folder.mkdir(parents=True)
    pictures = [picture(1000 * seed + index, *size) for index in range(frames)]
    for name, pixels in zip(
        names or [f"{i}{ending}" for i in range(frames)], pictures, strict=True
    ):
        Image.fromarray(pixels).save(folder / name)
    (folder / "prompt.txt").write_text(prompt, encoding="utf-8")
    return pictures


def write_data(root: Path, sizes: Sequence[tuple[int, int]], frames: int = 8) -> None:
    for index, size in enumerate(sizes):
        write_sample(root / f"sample_{index}", frames, size, prompt=f"prompt {index}", seed=index)
