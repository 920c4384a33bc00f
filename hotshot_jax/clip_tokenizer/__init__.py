"""CLIP's tokenizer, which both text encoders of SDXL use, for files that bring none along.

`merges.txt` holds the byte pairs of OpenAI's CLIP (https://github.com/openai/CLIP, MIT licence);
`vocab.json` follows from them.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
SECOND_PADDING = "!"
"""What the second tokenizer fills up with; the first repeats the end of the text."""
