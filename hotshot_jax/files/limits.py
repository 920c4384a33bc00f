"""How much of a file is taken before it is refused: far above what is in use, far below harm."""

from typing import Final

MOST_TEXT_BYTES: Final = 64_000_000
"""Of JSON and other text that programs write; the largest in use, a tokenizer's, has 20 MB."""

MOST_SETTINGS_BYTES: Final = 100_000
"""Of settings, which PyYAML takes up to 3 seconds to read."""

MOST_HEADER_BYTES: Final = 100_000_000
"""Of the header of a .safetensors file; the limit of the safetensors library."""

MOST_TENSORS: Final = 100_000
"""In one .safetensors file; SDXL in one file has 2,515."""

MOST_NAME_CHARACTERS: Final = 1000
"""Of a tensor's name; those in use have under 200."""

MOST_DIMENSIONS: Final = 64
"""Of an array; the limit of NumPy 2."""

MOST_VALUES: Final = 4_000_000
"""In one JSON or YAML text, keys left out: some 400 MB of Python objects."""

MOST_DEPTH: Final = 64
"""Of objects and lists inside each other. Python gives up at some hundreds."""

MOST_DIGITS: Final = 64
"""Of a number. Enough for 2**64 and the "very large integer" of tokenizers (10**30), and any float
can hold it. Python itself refuses more than 4300."""

MOST_FILE_BYTES: Final = 4_000_000_000
"""Of a clip, or of a file of our own, that is read whole."""

MOST_PIXELS_A_SIDE: Final = 8192
"""Of a frame."""

MOST_PICTURE_PIXELS: Final = MOST_PIXELS_A_SIDE**2
"""Of one picture or frame."""

MOST_DECODED_PIXELS: Final = 1_000_000_000
"""Of all frames of an animation, since all have to be decoded to reach the last: 15 seconds."""

MOST_VIDEO_PIXELS: Final = 4_000_000_000
"""Of all frames of a video, which is decoded several times as fast."""

MOST_READING_SECONDS: Final = 60.0
"""Of ffmpeg for one file."""

MOST_KEPT_PIXELS: Final = 200_000_000
"""Of the frames that are kept: 600 MB, 24 frames of 4K."""

MOST_PROMPT_BYTES: Final = 1 << 16
"""Of a prompt, in UTF-8; text encoders read 77 tokens at a time."""
