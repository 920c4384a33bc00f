"""Bodies of requests for the OpenAPI schema, with examples: they are read by hand."""

from typing import Any

from pydantic import BaseModel

from hotshot_jax.server.request import UPLOADS, ImageRequest, VideoRequest

_CLIP = {
    "summary": "A clip",
    "value": {
        "prompt": "a yellow star spinning on a teal background",
        "loop": True,
        "seed": 7,
    },
}
_TRAVEL = {
    "summary": "A text that changes, 32 frames at 8 a second",
    "value": {
        "prompt_at": {"0": "a snowy forest, winter", "31": "the same forest in spring"},
        "seconds": 4,
        "fps": 8,
    },
}
_PICTURE = {
    "summary": "A picture",
    "value": {"prompt": "a red circle on a black background", "seed": 7},
}
_FILES = {
    "video": "A clip to start from; `strength` says how much of it is changed.",
    "extend": "A clip to go on from.",
    "mask": "Where `video` is made anew: white is made, black is kept.",
    "first_frame": "A picture that the first frame is to be.",
    "last_frame": "Likewise the last.",
    "control": "A clip that `controlnet` follows.",
}
assert set(_FILES) == set(UPLOADS)


def _inlined(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolved(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return resolved(definitions[value["$ref"].rpartition("/")[2]])
            return {name: resolved(each) for name, each in value.items()}
        return [resolved(each) for each in value] if isinstance(value, list) else value

    inlined: dict[str, Any] = resolved(schema)
    return inlined


def _with_files(schema: dict[str, Any]) -> dict[str, Any]:
    files: dict[str, Any] = {
        name: {"type": "string", "format": "binary", "description": text}
        for name, text in _FILES.items()
    }
    files["input_reference"] = files["first_frame"] | {"description": "OpenAI's name of that."}
    files["frame_at_4"] = files["first_frame"] | {
        "description": "A picture that frame 4 is to be; `frame_at_N` for any frame N."
    }
    return schema | {"properties": schema["properties"] | files}


def _body(**contents: Any) -> dict[str, Any]:
    return {
        "requestBody": {
            "required": True,
            "content": {name.replace("_", "/", 1): each for name, each in contents.items()},
        }
    }


_VIDEO = _inlined(VideoRequest)

VIDEO_BODY = _body(
    application_json={"schema": _VIDEO, "examples": {"clip": _CLIP, "travel": _TRAVEL}},
    **{"multipart_form-data": {"schema": _with_files(_VIDEO)}},
)
"""Of a clip."""

IMAGE_BODY = _body(
    application_json={"schema": _inlined(ImageRequest), "examples": {"picture": _PICTURE}}
)
"""Of pictures."""
