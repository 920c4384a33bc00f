"""Messages of the library in the API's words."""

import re

# What the API calls otherwise, after vLLM-Omni's and OpenAI's names.
_NAMES = {
    "steps": "num_inference_steps",
    "video_length": "num_frames",
    "video_duration": "seconds",
    "gif": "control",
    "controlnets": "controlnet",
}
_SETTING = re.compile(r"`([a-z][a-z0-9_]*)`")


def in_api_words(text: str) -> str:
    """A message as it makes sense to somebody who sent a request.

    Args:
        text: with settings in backticks.
    """
    return _SETTING.sub(lambda found: f"`{_NAMES.get(found[1], found[1])}`", text)
