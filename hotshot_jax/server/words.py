"""Messages of the library and of the command line in the API's words."""

import re
from collections.abc import Mapping
from pathlib import Path

# What the API calls otherwise, after vLLM-Omni's and OpenAI's names.
_NAMES = {
    "steps": "num_inference_steps",
    "video_length": "num_frames",
    "video_duration": "seconds",
    "gif": "control",
    "controlnets": "controlnet",
}
_SETTING = re.compile(r"`([a-z][a-z0-9_]*)`|--(?:no-)?([a-z][a-z0-9_]*)")


def in_api_words(text: str, uploads: Mapping[str, Path] | None = None) -> str:
    """A message as it makes sense to somebody who sent a request.

    Args:
        text: with settings in backticks, or spelled as flags.
        uploads: files by their names in the API, whose paths are nobody's business.
    """
    for name, path in (uploads or {}).items():
        for before in (f"--{name} {path}", f"--gif {path}", f"`{name}` {path}", str(path)):
            text = text.replace(before, f"`{name}`")
    return _SETTING.sub(lambda found: f"`{_api_name(found[1] or found[2])}`", text)


def _api_name(name: str) -> str:
    return _NAMES.get(name, name)
