"""The frames of a result as they were made, from which every form of it is written when asked for.

A file of one line of JSON, `{"frames": N, "height": H, "width": W, "duration_ms": D, "metadata":
{...}}`, and after it each frame, compressed by itself: its length in 4 bytes, then zlib at level 1,
which takes a hundredth of the time of a lossless WebP.
"""

import dataclasses
import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hotshot_jax.errors import HotshotError
from hotshot_jax.files.parsed import ParseError, parse_json
from hotshot_jax.files.plain_file import MOST_SETTINGS_BYTES, open_plain
from hotshot_jax.media.stored_frames import Frames, StoredFrames
from hotshot_jax.writing.staging import replace_anything, staged_file

_LEVEL = 1
_LENGTH_BYTES = 4
# Settings with prompts at every frame have more than those that people write.
_MOST_HEADER_BYTES = 100 * MOST_SETTINGS_BYTES


@dataclasses.dataclass(frozen=True)
class KeptFrames:
    """A result.

    Attributes:
        frames: uint8 `[frames, height, width, 3]`.
        duration_ms: of the whole clip.
        metadata: what is stored in every file of it.
    """

    frames: Frames
    duration_ms: float
    metadata: Mapping[str, str]

    def write(self, path: Path) -> None:
        """Writes it; the file appears when it is whole.

        Raises:
            HotshotError: the system refuses.
        """
        count, height, width, _ = self.frames.shape
        header = {
            "frames": count,
            "height": height,
            "width": width,
            "duration_ms": self.duration_ms,
            "metadata": dict(self.metadata),
        }
        with staged_file(path, may_replace=replace_anything) as staged, staged.open("wb") as file:
            file.write(json.dumps(header).encode() + b"\n")
            for frame in self.frames:
                packed = zlib.compress(np.ascontiguousarray(frame).data, _LEVEL)
                file.write(len(packed).to_bytes(_LENGTH_BYTES, "little") + packed)

    @classmethod
    def read(cls, path: Path) -> "KeptFrames":
        """Reads it back; the frames of a long clip lie on disk.

        Raises:
            HotshotError: it is gone or damaged.
        """
        try:
            with open_plain(path) as file:
                header = parse_json(file.readline(_MOST_HEADER_BYTES))
                height, width = header["height"], header["width"]
                frames = StoredFrames(height, width)
                for _ in range(header["frames"]):
                    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
                    pixels = zlib.decompress(file.read(length))
                    frames.append(np.frombuffer(pixels, np.uint8).reshape(1, height, width, 3))
        except OSError as error:
            raise HotshotError(f"{path.name} cannot be read: {error.strerror or error}.") from error
        except (ParseError, KeyError, TypeError, ValueError, zlib.error) as error:
            raise HotshotError(f"{path.name} is damaged: {error}.") from error
        return cls(frames, header["duration_ms"], header["metadata"])
