"""The form of a result that a request asks for: by `?format=`, or by `Accept`."""

from typing import Any

from fastapi import Request

from hotshot_jax.server.failures import Refusal
from hotshot_jax.server.results import CLIP_FORMS

# What OpenAI's client asks for, whose users expect what OpenAI sends.
_ANY_BYTES = ("application/binary", "application/octet-stream")

CONTENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The clip.",
        "content": {
            media_type: {"schema": {"type": "string", "format": "binary"}}
            for media_type in CLIP_FORMS.values()
        },
    }
}
"""A clip, for the schema of an endpoint."""


class NotAcceptable(Refusal):
    """There is none of the forms that are accepted."""

    status = 406
    code = "not_acceptable"


def form_asked_for(request: Request, given: str | None) -> str:
    """One of `CLIP_FORMS`; the first of those that are asked for with equal weight.

    Args:
        request: the request.
        given: what `?format=` says, which wins.

    Raises:
        NotAcceptable: all that is accepted is something else.
    """
    accepted = request.headers.get("accept", "").strip()
    if given is not None or not accepted:
        return given or next(iter(CLIP_FORMS))
    if accepted in _ANY_BYTES:
        return "mp4"
    weights = {form: _weight(accepted, kind) for form, kind in CLIP_FORMS.items()}
    best = max(weights, key=lambda form: weights[form])
    if weights[best] <= 0:
        raise NotAcceptable(f"A clip is had as {', '.join(CLIP_FORMS.values())}.")
    return best


def _weight(accepted: str, media_type: str) -> float:
    """What `Accept` gives a media type (RFC 9110, 12.5.1): the most specific range counts."""
    found: list[tuple[int, float]] = []
    for part in accepted.split(","):
        wanted, *parameters = (each.strip().lower() for each in part.split(";"))
        ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
        if wanted in ranges:
            found.append((-ranges.index(wanted), _quality(parameters)))
    return max(found)[1] if found else 0.0


def _quality(parameters: list[str]) -> float:
    for each in parameters:
        name, _, value = each.partition("=")
        if name.strip() == "q":
            try:
                # In this order NaN is 0.
                return min(max(0.0, float(value)), 1.0)
            except ValueError:
                return 0.0
    return 1.0
