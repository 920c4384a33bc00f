"""Jobs as the page shows them: HTML in which nothing that a person wrote is anything but text."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from hotshot_jax.media.sheet import spread_indices
from hotshot_jax.server.job import Job, Status
from hotshot_jax.server.results import CLIP_FORMS

_PREVIEW_MS = 125
_MOST_PREVIEWED = 16
_MOST_TITLE = 120
# Gradio takes these in HTML for places to fill in.
_TEMPLATE = {ord(each): f"&#{ord(each)};" for each in "{}$`\\"}
_STAGES = {
    Status.QUEUED: "waiting",
    Status.IN_PROGRESS: "starting",
}


def escaped(text: str) -> str:
    """A text that is nothing else, wherever it stands in HTML."""
    return html.escape(text).translate(_TEMPLATE)


def message(text: str, kind: str = "note") -> str:
    """A line for the person.

    Args:
        text: what to say.
        kind: `note` or `error`.
    """
    role = "alert" if kind == "error" else "status"
    return f'<p class="hj-{kind}" role="{role}">{escaped(text)}</p>'


def results(cards: Sequence[str], jobs: Sequence[str]) -> str:
    """What was asked for together, side by side.

    Args:
        cards: one for each.
        jobs: their names, for the address of the page.
    """
    inner = "".join(cards)
    return f'<div class="hj-results" data-jobs="{",".join(jobs)}">{inner}</div>'


def card(
    job: Job, standing: dict[str, Any], preview: np.ndarray | None, difference: str = ""
) -> str:
    """A job as it stands.

    Args:
        job: the job.
        standing: how far it is, as `Service.standing` has it.
        preview: what it looks like by now, uint8 `[frames, height, width, 3]`.
        difference: what it has that the one beside it has not.
    """
    title = f"<h2>{escaped(difference)}</h2>" if difference else ""
    if job.status == Status.COMPLETED:
        inner = _finished(job)
    elif job.status == Status.FAILED:
        error = job.error or {"message": "It failed."}
        inner = message(error["message"], "error")
    elif job.status == Status.CANCELLED:
        inner = message("Stopped: there is nothing to be had.")
    else:
        inner = _under_way(job, standing, preview)
    return f'<article class="hj-card" data-status="{job.status}">{title}{inner}</article>'


def gallery(jobs: Iterable[Job]) -> str:
    """Clips that are kept, each with what can be done with it."""
    items = "".join(map(_item, jobs))
    inner = f'<ul class="hj-gallery">{items}</ul>' if items else message("There is none yet.")
    return f'<h2 class="hj-section">Clips</h2>{inner}'


def _under_way(job: Job, standing: dict[str, Any], preview: np.ndarray | None) -> str:
    percent = int(standing.get("progress", 0))
    stage = str(standing.get("stage", _STAGES.get(job.status, "")))
    told = [stage]
    if "queue_position" in standing:
        told = [f"waiting, number {standing['queue_position']} in the queue"]
    elif percent:
        told.append(f"{percent} %")
    if standing.get("seconds_left") is not None:
        told.append(f"{_time(standing['seconds_left'])} left")
    note = f'<p class="hj-note">{escaped(standing["note"])}</p>' if "note" in standing else ""
    picture = '<div class="hj-nothing"></div>'
    if preview is not None:
        picture = (
            f'<img class="hj-clip hj-preview" alt="What the clip looks like so far" '
            f'src="{_data_url(preview)}">'
        )
    return (
        f'{picture}<progress max="100" value="{percent}" aria-label="Progress"></progress>'
        f'<p class="hj-stage">{escaped(", ".join(told))}</p>{note}'
    )


def _finished(job: Job) -> str:
    prompt = str(job.told.get("prompt", ""))
    links = " ".join(
        f'<a class="hj-button" href="clips/{job.id}.{form}" download="{job.id}.{form}">'
        f"{'WebP' if form == 'webp' else form.upper()}</a>"
        for form in CLIP_FORMS
    )
    warnings = (*job.told.get("warnings", ()), *job.warnings)
    notes = "".join(message(text) for text in warnings)
    return (
        f'<img class="hj-clip" src="clips/{job.id}.gif" alt="{escaped(prompt)}">'
        f'<p class="hj-downloads"><span>Download</span> {links}</p>'
        f'<p class="hj-settings">{escaped(settings_line(job))}</p>{notes}'
    )


def settings_line(job: Job) -> str:
    """What a clip was made with, in a line."""
    told, values = job.told, job.values
    parts = [
        str(told["size"]),
        f"{told['num_frames']} frames in {told['seconds']} s",
        f"{told['num_inference_steps']} steps",
        f"guidance {told['guidance_scale']:g}"
        if isinstance(told["guidance_scale"], int | float)
        else "guidance by frame",
        *(["loop"] if values.get("loop") else []),
        *(f"{name} {scale:g}" for name, scale in values.get("lora", ())),
        f"seed {told['seed']}",
    ]
    return ", ".join(parts)


def _item(job: Job) -> str:
    prompt = str(job.told.get("prompt", "")) or "prompts by frame"
    short = prompt if len(prompt) <= _MOST_TITLE else f"{prompt[:_MOST_TITLE]}…"
    named = f'data-job="{job.id}" aria-label="{{}}: {escaped(short)}"'
    return (
        f'<li><a href="?job={job.id}"><img class="hj-clip" loading="lazy" '
        f'src="clips/{job.id}.gif" alt="{escaped(short)}"></a>'
        f'<p title="{escaped(settings_line(job))}">{escaped(short)}</p>'
        f'<p class="hj-actions"><button type="button" class="hj-button" data-act="take" '
        f"{named.format('Use the settings of')}>Use settings</button> "
        f'<button type="button" class="hj-button" data-act="delete" '
        f"{named.format('Delete')}>Delete</button></p></li>"
    )


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"


def _data_url(frames: np.ndarray) -> str:
    shown = spread_indices(len(frames), _MOST_PREVIEWED)
    first, *others = (Image.fromarray(frames[each]) for each in shown)
    written = io.BytesIO()
    first.save(written, "WEBP", save_all=True, append_images=others, duration=_PREVIEW_MS, loop=0,
               quality=75, method=0)  # fmt: skip
    return "data:image/webp;base64," + base64.b64encode(written.getvalue()).decode()
