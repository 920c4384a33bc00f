"""How much of pictures one request may bring: each is decoded whole, however small its file is."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.files.plain_file import MOST_PICTURE_PIXELS
from hotshot_jax.media.reading.image_file import opened_image

_MOST_PIXELS = 4 * MOST_PICTURE_PIXELS
"""Four of the largest that are read, or 256 of 1024 x 1024."""


def check_pictures(uploads: Mapping[str, Path]) -> None:
    """Looks at the sizes that pictures state, before any is decoded.

    What is no picture, or none that can be read, is told of by whoever reads it.

    Args:
        uploads: files that were sent along.

    Raises:
        UsageError: together they have too many pixels.
    """
    pixels = 0
    for path in uploads.values():
        with contextlib.suppress(HotshotError), opened_image(path) as image:
            pixels += image.width * image.height
    if pixels > _MOST_PIXELS:
        raise UsageError(
            f"The pictures have {pixels // 10**6} million pixels together; a request may bring up "
            f"to {_MOST_PIXELS // 10**6} million. Make them smaller: they are brought to the size "
            "of the clip anyway."
        )
