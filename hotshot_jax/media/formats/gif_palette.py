"""Choosing the colours that stand for a picture with the least squared error."""

import numpy as np
import numpy.typing as npt

# Finding colours takes time by the number of different ones, and a part of the pixels tells them
# as well: more gain less than 0.1 dB on film clips.
_MOST_PIXELS_SAMPLED = 2**14
# A prime, longer than a row: the sample lies evenly over the picture, whatever its width.
_SAMPLE_STEP = 1_000_003
# Fewer mean a drawing, whose small parts a sample could miss.
_FEWEST_COLOURS_SAMPLED = 1024
_REFINEMENTS = 4
_COLOURS_A_PART = 128


def choose_palette(frame: npt.NDArray[np.uint8], most: int) -> tuple[npt.NDArray[np.uint8], float]:
    """Find the colours whose mean squared distance to the pixels is small.

    Boxes of colours are split at their mean, along the axis of the largest variance, the box with
    the largest variance first (Wan, Wong and Prusinkiewicz, 1988); k-means refines their means.

    Args:
        frame: uint8 [height, width, 3], of more than `most` colours.
        most: number of colours to choose.

    Returns:
        The palette, uint8 [colours, 3], and the mean of the squared distances (summed over the
        three channels) from the pixels to their nearest colour.
    """
    colours, weights = _sample(frame)
    palette = _split_boxes(colours, weights, most)
    for _ in range(_REFINEMENTS):
        nearest, _ = _nearest(palette, colours)
        counts = np.bincount(nearest, weights, len(palette))
        for channel in range(3):
            sums = np.bincount(nearest, weights * colours[:, channel], len(palette))
            # A colour that is nearest to none stays.
            np.divide(sums, counts, out=palette[:, channel], where=counts > 0, casting="same_kind")
    _, squared = _nearest(palette, colours)
    return np.rint(palette).astype(np.uint8), float(np.average(squared, weights=weights))


def _sample(
    frame: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Different colours of a part of the pixels, [colours, 3], and how often each was met."""
    packed = frame.reshape(-1, 3) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    sample = packed
    if len(packed) > _MOST_PIXELS_SAMPLED:
        sample = packed[np.arange(_MOST_PIXELS_SAMPLED) * _SAMPLE_STEP % len(packed)]
    values, counts = np.unique(sample, return_counts=True)
    if len(values) < _FEWEST_COLOURS_SAMPLED:
        values, counts = np.unique(packed, return_counts=True)
    colours = np.stack([values >> 16, values >> 8 & 255, values & 255], axis=1)
    return colours.astype(np.float32), counts.astype(np.float64)


def _split_boxes(
    colours: npt.NDArray[np.float32], weights: npt.NDArray[np.float64], most: int
) -> npt.NDArray[np.float32]:
    def describe(members: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.float64], ...]:
        weight = weights[members]
        mean = weight @ colours[members] / weight.sum()
        return mean, weight @ np.square(colours[members] - mean)

    boxes = [np.arange(len(colours))]
    described = [describe(boxes[0])]
    spreads = np.zeros(most)
    spreads[0] = described[0][1].max()
    while len(boxes) < most and spreads.max() > 0:
        widest = int(spreads.argmax())
        members, (mean, variance) = boxes[widest], described[widest]
        axis = variance.argmax()
        low = colours[members, axis] <= mean[axis]
        boxes[widest] = members[low]
        boxes.append(members[~low])
        described[widest] = describe(boxes[widest])
        described.append(describe(boxes[-1]))
        spreads[widest] = described[widest][1].max()
        spreads[len(boxes) - 1] = described[-1][1].max()
    return np.array([mean for mean, _ in described], np.float32)


def _nearest(
    palette: npt.NDArray[np.float32], colours: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Each colour's nearest of the palette, and the squared distance to it."""
    relative = relative_distances(palette, colours)
    nearest = relative.argmin(1)
    squared = relative[np.arange(len(colours)), nearest] + np.square(colours).sum(1)
    return nearest, np.maximum(squared, 0)


def relative_distances(
    palette: npt.NDArray[np.float32], colours: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Squared distances [colours, palette], less each colour's square."""
    # In parts, which BLAS does not hand to several threads: waiting for those takes longer.
    parts = -(-len(colours) // _COLOURS_A_PART)
    extended = np.ones((parts * _COLOURS_A_PART, 4), np.float32)
    extended[: len(colours), :3] = colours
    factors = np.hstack([-2 * palette, np.square(palette).sum(1, keepdims=True)]).T
    product = extended.reshape(parts, _COLOURS_A_PART, 4) @ np.ascontiguousarray(factors)
    return product.reshape(-1, len(palette))[: len(colours)]
