"""The sizes that Hotshot-XL was trained on, and their names.

Seven aspect ratios, each named by width over height to two decimals. SDXL was trained on them at a
resolution of 1024, Hotshot-XL's temporal layers at 512, where both sides are half as long.
"""

import math
from typing import Final

from hotshot_jax.errors import UsageError

Size = tuple[int, int]

TRAINED_RESOLUTION: Final = 512

_SIZES_1024: Final[dict[str, Size]] = {
    "0.42": (640, 1536),
    "0.57": (768, 1344),
    "0.68": (832, 1216),
    "1.00": (1024, 1024),
    "1.46": (1216, 832),
    "1.75": (1344, 768),
    "2.40": (1536, 640),
}

SIZES_BY_RESOLUTION: Final[dict[int, dict[str, Size]]] = {
    1024: _SIZES_1024,
    512: {name: (width // 2, height // 2) for name, (width, height) in _SIZES_1024.items()},
}
"""resolution -> name of the aspect ratio -> (width, height) in pixels."""

# A name has two decimals, so a ratio within half of the last one means it.
_NAME_TOLERANCE: Final = 0.005


def best_aspect_ratio(
    aspect_ratio: float, resolution: int = TRAINED_RESOLUTION
) -> tuple[str, Size]:
    """Find the published size whose width over height is nearest to a ratio.

    Args:
        aspect_ratio: width over height; of two equally near the narrower one is taken.
        resolution: 512 or 1024.

    Returns:
        The name of the aspect ratio and (width, height) in pixels.

    Raises:
        ValueError: for another resolution or a ratio that is not a positive number.
    """
    if resolution not in SIZES_BY_RESOLUTION:
        raise ValueError(f"resolution is {resolution}; it must be one of {[*SIZES_BY_RESOLUTION]}")
    if not (math.isfinite(aspect_ratio) and aspect_ratio > 0):
        raise ValueError(f"aspect_ratio is {aspect_ratio}; it must be a positive number")
    sizes = SIZES_BY_RESOLUTION[resolution]
    name = min(sizes, key=lambda name: abs(aspect_ratio - _ratio(sizes[name])))
    return name, sizes[name]


def size_of_aspect_ratio(
    text: str, resolution: int = TRAINED_RESOLUTION, otherwise: str = "take that"
) -> Size:
    """Look up the size of a published aspect ratio by its name.

    Args:
        text: a name such as "1.75", or another way of writing that ratio: "1", "7:4", "672x384".
        resolution: 512 or 1024.
        otherwise: what else can be done about a ratio that is none of them, for the message.

    Returns:
        (width, height) in pixels.

    Raises:
        UsageError: the text is not a ratio or not one of the seven; the message names the nearest.
        ValueError: for another resolution.
    """
    ratio = _parse_ratio(text)
    names = ", ".join(_SIZES_1024)
    if ratio is None:
        raise UsageError(f"`aspect_ratio` {text!r} is not a ratio; it must be one of {names}.")
    name, size = best_aspect_ratio(ratio, resolution)
    if min(abs(ratio - float(name)), abs(ratio - _ratio(size))) > _NAME_TOLERANCE:
        raise UsageError(
            f"`aspect_ratio` {text} is not one of {names}. The nearest is {name}; {otherwise}."
        )
    return size


def is_trained_size(width: int, height: int) -> bool:
    """Tell whether Hotshot-XL's temporal layers were trained on frames of this size in pixels."""
    return (width, height) in SIZES_BY_RESOLUTION[TRAINED_RESOLUTION].values()


def _ratio(size: Size) -> float:
    width, height = size
    return width / height


def _parse_ratio(text: str) -> float | None:
    numerator, _, denominator = text.strip().lower().replace("x", ":").partition(":")
    try:
        ratio = float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        return None
    return ratio if math.isfinite(ratio) and ratio > 0 else None
