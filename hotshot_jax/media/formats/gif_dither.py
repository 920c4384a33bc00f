"""Mixing a palette's colours over a clip: as little grain as hides the steps, and few bytes.

Error diffusion (Floyd and Steinberg, 1976) goes pixel by pixel: each hands its error on to the
right and down. Here one pixel of every row of every frame is coloured at a time, along a front that
slants so far that all which a pixel waits for is done, the frame before included.

What differs from the plain form, and why:

* The error is handed on weakened where a picture has detail, which hides steps by itself; nearly
  whole where it is smooth.
* A pixel chooses among the colours near its own, so that errors cannot carry it far away.
* Changing the colour from the left or upper neighbour's has a price in squared error, as it costs
  bytes: relative to the palette's error, so that both grow together.
* A pixel stays as the frame before left it where that is no worse: what stands still neither
  flickers nor costs bytes.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from hotshot_jax.media.formats.gif_palette import relative_distances

_STRENGTH_IN_DETAIL = 0.45
_STRENGTH_WHERE_SMOOTH = 0.9
# In units of the palette's mean squared error; its floor is in squared levels of 0 to 255, summed
# over the channels: what lies below can't be seen, and is mostly noise that costs bytes.
_PRICE_OF_LEAVING_LEFT = 1.4
_PRICE_OF_LEAVING_UPPER = 0.7
_LEAST_PRICED_ERROR = 5.0
_CANDIDATES = 8
_NONE = -1

_Bytes = npt.NDArray[np.uint8]
_Floats = npt.NDArray[np.float32]


def dither(
    frames: _Bytes, palettes: Sequence[_Bytes], errors: Sequence[float], held: int
) -> _Bytes:
    """Give every pixel a colour of its frame's palette, or leave it as the frame before did.

    Args:
        frames: uint8 [frames, height, width, 3].
        palettes: each frame's, uint8 [colours, 3].
        errors: each palette's mean squared distance to the frame's pixels.
        held: the index that stands for a pixel left as it was; no palette has it. The first frame
            does without.

    Returns:
        Indices, uint8 [frames, height, width].
    """
    count, height, width, _ = frames.shape
    cells, colours, indices = _candidates(frames, palettes, errors)
    smooth = np.stack([_smoothness(frame) for frame in frames])

    # The front: frame f, row y is at x = step - 2 (y + f). In the arrays of a step, y + f is a
    # column, and the pixel above lies one column to the left, as does the same pixel a frame ago.
    columns = height + count - 1
    frame, column = np.mgrid[0:count, 0:columns]
    row = column - frame
    inside = (row >= 0) & (row < height)
    # Rows past a frame's end fall into this margin.
    padded = height + count
    margin = [(0, 0), (0, count), (0, 0)]
    pixels = np.pad(frames, [*margin, (0, 0)]).reshape(-1, 3)
    cells, smooth = np.pad(cells, margin).ravel(), np.pad(smooth, margin).ravel()
    origin = (frame * padded + row) * width - 2 * column
    error_of_palette = np.array(errors, np.float32)[:, None]
    result = np.zeros(count * padded * width, np.uint8)

    # One column of margin on the left. [0] is the step before, [1] the one before that, ...
    diffused = [np.zeros((count, columns + 1, 3), np.float32) for _ in range(3)]
    chosen = [np.full((count, columns + 1), _NONE, np.int16) for _ in range(2)]
    shown = [np.zeros((count, columns + 1, 3), np.float32) for _ in range(2)]
    for step in range(width + 2 * (columns - 1)):
        first, last = max(0, (step - width) // 2 + 1), min(columns, step // 2 + 1)
        here, above = slice(first + 1, last + 1), slice(first, last)
        place = origin[:, above] + step
        source = pixels[place].astype(np.float32)
        smoothness = smooth[place].astype(np.float32) / 255
        strength = _STRENGTH_IN_DETAIL + smoothness * (_STRENGTH_WHERE_SMOOTH - _STRENGTH_IN_DETAIL)
        received = (
            7 * diffused[0][:, here]
            + 3 * diffused[0][:, above]
            + 5 * diffused[1][:, above]
            + diffused[2][:, above]
        )
        target = source + (strength / 16)[..., None] * received
        cell = cells[place]
        offered, offered_index = colours[cell], indices[cell]
        difference = offered - target[..., None, :]
        cost = np.einsum("...c,...c->...", difference, difference)
        priced = np.maximum(error_of_palette * (1 - smoothness), _LEAST_PRICED_ERROR)[..., None]
        cost += _PRICE_OF_LEAVING_LEFT * priced * (offered_index != chosen[0][:, here, None])
        cost += _PRICE_OF_LEAVING_UPPER * priced * (offered_index != chosen[1][:, above, None])
        best = cost.argmin(-1)[..., None]
        index = np.take_along_axis(offered_index, best, -1)[..., 0]
        colour = np.take_along_axis(offered, best[..., None], -2)[..., 0, :]

        standing = np.zeros_like(target)
        standing[1:] = shown[1][:-1, above]
        keeps = np.square(standing - target).sum(-1) <= np.take_along_axis(cost, best, -1)[..., 0]
        keeps[0] = False
        index = np.where(keeps, np.int16(held), index)
        colour = np.where(keeps[..., None], standing, colour)
        result[place] = index

        error = np.zeros_like(diffused[0])
        error[:, here] = (target - colour) * inside[:, above, None]
        diffused = [error, diffused[0], diffused[1]]
        index_here = np.full_like(chosen[0], _NONE)
        index_here[:, here] = np.where(inside[:, above], index, _NONE)
        chosen = [index_here, chosen[0]]
        colour_here = np.zeros_like(shown[0])
        colour_here[:, here] = colour
        shown = [colour_here, shown[0]]
    return result.reshape(count, padded, width)[:, :height]


def _candidates(
    frames: _Bytes, palettes: Sequence[_Bytes], errors: Sequence[float]
) -> tuple[npt.NDArray[np.int32], _Floats, npt.NDArray[np.int16]]:
    """The colours that each pixel may have: those of its frame's palette nearest to its own.

    Colours are told apart by cells of the cube, of which few are met in a picture.

    Returns:
        Cells, int32 [frames, height, width]; for each cell colours, float32 [cells, candidates, 3],
        and their indices, int16 [cells, candidates].
    """
    cells = np.empty(frames.shape[:3], np.int32)
    colours, indices, count = [], [], 0
    for frame, palette, error, cell in zip(frames, palettes, errors, cells, strict=True):
        # Cells are about as wide as the steps of the palette: 2, 4 or 8 levels.
        shift = int(np.clip(np.log2(2 * np.sqrt(error) + 1), 1, 3))
        bits = 8 - shift
        red, green, blue = np.moveaxis((frame >> shift).astype(np.int32), -1, 0)
        packed = (red << bits | green) << bits | blue
        met = np.flatnonzero(np.bincount(packed.ravel(), minlength=1 << 3 * bits))
        number = np.zeros(1 << 3 * bits, np.int32)
        number[met] = np.arange(count, count + len(met))
        cell[:] = number[packed]
        count += len(met)
        corners = np.stack(np.unravel_index(met, [1 << bits] * 3), -1) << shift
        middles = (corners + ((1 << shift) - 1) / 2).astype(np.float32)
        chosen = palette.astype(np.float32)
        distances = relative_distances(chosen, middles)
        nearest = np.argpartition(distances, _CANDIDATES, 1)[:, :_CANDIDATES]
        indices.append(nearest.astype(np.int16))
        colours.append(chosen[nearest])
    return cells, np.concatenate(colours), np.concatenate(indices)


def _smoothness(frame: _Bytes) -> _Bytes:
    """How far each pixel's surroundings are free of detail and noise, from 0 to 255.

    255 is where the left and the upper neighbour differ by at most one level in one channel.
    """
    levels = frame.astype(np.int32)
    change = np.zeros(frame.shape[:2], np.int32)
    change[:, 1:] = np.square(levels[:, 1:] - levels[:, :-1]).sum(-1)
    change[1:] = np.maximum(change[1:], np.square(levels[1:] - levels[:-1]).sum(-1))
    scaled = Image.fromarray(np.minimum(change * 32, 255).astype(np.uint8))
    around = np.asarray(scaled.filter(ImageFilter.BoxBlur(1))).astype(np.int32)
    # 32 is a squared difference of 1.
    return (np.clip(2 * 32 - around, 0, 32) * 255 // 32).astype(np.uint8)
