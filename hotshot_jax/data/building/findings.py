"""What training would learn wrongly from clips that can be read: told, not refused."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from hotshot_jax.data.left_out import LeftOut, Tally

MOST_TOKENS: Final = 75
"""Of a prompt that the text encoders read: 77 with those of beginning and end."""

CUTS: Final = "videos with cuts, of which clips keep clear"
CUT_CLIPS: Final = "clips in which another scene may begin"
LEAST_FPS: Final = 5.5
SLOW_CLIPS: Final = f"clips of fewer than {LEAST_FPS} frames a second, where Hotshot-XL makes 8"
FEW_FRAMES: Final = "videos of too few frames a second: clips last longer than asked"
SHORT: Final = "videos that are too short: clips last less than half of what is asked"
_LONG: Final = f"prompts of more than the {MOST_TOKENS} tokens that the text encoders read"
_ALIKE: Final = "clips that look like an earlier one"

_MOST_COMPARED: Final = 20_000
_NOT_COMPARED: Final = f"clips after the first {_MOST_COMPARED}, not compared with others"
_SIDE: Final = 8
# Root of the mean square, of 256 levels. Compressing a clip anew changes its signature by less.
_NEAR: Final = 3.0
_PIECE: Final = 1000


def signature(frames: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """What stands for a clip when clips are compared: its first, middle and last frame, small.

    Args:
        frames: of the clip, uint8 `[height, width, 3]`.

    Returns:
        uint8 `[576]`.
    """
    chosen = [frames[0], frames[len(frames) // 2], frames[-1]]
    return np.concatenate([thumbnail(frame) for frame in chosen])


def thumbnail(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A frame's part of a signature, uint8 `[192]`."""
    image = Image.fromarray(frame)
    factor = max(1, min(image.size) // (2 * _SIDE))
    small = image.reduce(factor).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(small).reshape(-1)


class Findings:
    """Gathers what is found, clip by clip.

    Args:
        count_tokens: of a prompt, without those of beginning and end; None not to count them.
    """

    def __init__(self, count_tokens: Callable[[str], int] | None = None) -> None:
        self._count_tokens = count_tokens
        self._tally = Tally()
        self._long: dict[str, bool] = {}
        self._names: list[str] = []
        self._signatures: list[npt.NDArray[np.uint8]] = []

    def add(
        self,
        name: str,
        prompt: str,
        remarks: Sequence[tuple[str, str]],
        signature: npt.NDArray[np.uint8] | None,
    ) -> None:
        """Look at a clip.

        Args:
            name: of the clip.
            prompt: of the clip.
            remarks: kinds of what is known of it, each with the name to be told.
            signature: None for a clip that is not compared.
        """
        for kind, told in remarks:
            self._tally.add(kind, told)
        if self._count_tokens is not None:
            if prompt not in self._long:
                self._long[prompt] = self._count_tokens(prompt) > MOST_TOKENS
            if self._long[prompt]:
                self._tally.add(_LONG, name)
        if signature is None:
            return
        if len(self._names) == _MOST_COMPARED:
            self._tally.add(_NOT_COMPARED, name)
            return
        self._names.append(name)
        self._signatures.append(signature)

    def found(self) -> tuple[LeftOut, ...]:
        """All of it, by kind."""
        tally = self._tally
        for earlier, later in near_pairs(self._signatures):
            tally.add(_ALIKE, f"{self._names[later]} like {self._names[earlier]}")
        return tally.left_out()


def near_pairs(signatures: Sequence[npt.NDArray[np.uint8]]) -> list[tuple[int, int]]:
    """Clips that are nearly equal to an earlier one: (the first such, the clip) in order."""
    pairs: list[tuple[int, int]] = []
    if not signatures:
        return []
    table = np.stack(signatures).astype(np.float32)
    squares = np.einsum("ij,ij->i", table, table)
    # Beyond the rounding of float32, which a difference of large squares has.
    limit = _NEAR**2 * table.shape[1]
    for start in range(0, len(table), _PIECE):
        piece = slice(start, start + _PIECE)
        distances = squares[piece, None] + squares - 2 * table[piece] @ table.T
        for row, column in zip(*np.nonzero(distances < limit), strict=True):
            later, earlier = start + int(row), int(column)
            if earlier < later and not (pairs and pairs[-1][1] == later):
                pairs.append((earlier, later))
    return pairs
