"""The fields in which a clip is described."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from hotshot_jax.media.aspect_ratios import SIZES_BY_RESOLUTION, TRAINED_RESOLUTION
from hotshot_jax.server.limits import Limits
from hotshot_jax.server.page.asked import LORA
from hotshot_jax.server.planning import PlannedClip

COMPARED = {
    "nothing": "",
    "another seed": "seed",
    "another guidance": "guidance_scale",
    "another number of steps": "num_inference_steps",
    "another prompt": "prompt",
    "another negative prompt": "negative_prompt",
    "another strength of motion": "motion_scale",
}
"""What a second clip may have otherwise: what it is called, and the field that it is."""


def unread(field: Any) -> Any:
    """A field whose file Gradio does not look into: its value is the path.

    Args:
        field: for a file.
    """
    # A class of our own would have Gradio write a file of types beside this one.
    field.preprocess = lambda sent: None if sent is None else sent.path
    return field


@dataclasses.dataclass(frozen=True)
class Fields:
    """The fields.

    Attributes:
        by_name: fields of `asked.asked_for`, by name.
        compare: what a second clip has otherwise.
        compare_with: what it has there.
    """

    by_name: Mapping[str, Any]
    compare: Any
    compare_with: Any

    @property
    def all(self) -> set[Any]:
        """Every field."""
        return {*self.by_name.values(), self.compare, self.compare_with}

    def read(self, data: Mapping[Any, Any]) -> dict[str, Any]:
        """Values by name, of what Gradio hands over."""
        return {name: data[field] for name, field in self.by_name.items()}

    def second(self, data: Mapping[Any, Any]) -> dict[str, Any]:
        """What the second clip has otherwise; empty if there is none."""
        name = COMPARED.get(data[self.compare] or "nothing", "")
        return {name: data[self.compare_with] or ""} if name else {}


def main_fields(usual: PlannedClip, limits: Limits) -> dict[str, Any]:
    """What matters most, made where it stands.

    Args:
        usual: the clip that is made if only a prompt is given.
        limits: of what can be asked for.
    """
    clip = usual.clip
    prompt = gr.Textbox(
        label="Prompt",
        placeholder="a yellow star spinning on a teal background",
        lines=2,
        max_lines=6,
        autofocus=True,
        elem_id="prompt",
    )
    with gr.Row():
        native = f"{clip.width}x{clip.height}"
        size = gr.Dropdown(
            sizes_offered(clip.width or 0, clip.height or 0, limits.most_side),
            value=native,
            label="Size",
            allow_custom_value=True,
            min_width=130,
        )
        seed = gr.Textbox(label="Seed", placeholder="drawn anew", max_lines=1, min_width=130)
    with gr.Row():
        frames = gr.Slider(1, limits.most_frames, clip.video_length, step=1, label="Frames",
                           min_width=130)  # fmt: skip
        steps = gr.Slider(1, limits.most_steps, clip.steps, step=1, label="Steps", min_width=130)
    loop = gr.Checkbox(label="Loop: the last frame leads to the first", value=clip.loop)
    return {
        "prompt": prompt,
        "size": size,
        "seed": seed,
        "num_frames": frames,
        "num_inference_steps": steps,
        "loop": loop,
    }


def other_fields(usual: PlannedClip, loras: Sequence[str]) -> dict[str, Any]:
    """The rest, folded.

    Args:
        usual: the clip that is made if only a prompt is given.
        loras: names of LoRAs that can be asked for.
    """
    clip = usual.clip
    milliseconds, count = usual.frame_ms
    guidance = clip.guidance_scale if isinstance(clip.guidance_scale, int | float) else 5.0
    found: dict[str, Any] = {}
    with gr.Accordion("More settings", open=False):
        found["negative_prompt"] = gr.Textbox(
            label="Negative prompt", value=clip.negative_prompt or "", info="What to avoid."
        )
        with gr.Row():
            found["guidance_scale"] = gr.Slider(
                1, 20, guidance, step=0.1, label="Guidance", min_width=130,
                info="How closely to follow the prompt.",
            )  # fmt: skip
            found["guidance_rescale"] = gr.Slider(
                0, 1, 0, step=0.05, label="Guidance rescale", min_width=130,
                info="Takes back the contrast of strong guidance.",
            )  # fmt: skip
        with gr.Row():
            found["motion_scale"] = gr.Slider(
                0, 2, 1, step=0.05, label="Motion", min_width=130,
                info="How much the temporal layers add.",
            )  # fmt: skip
            found["fps"] = gr.Slider(
                1, 25, 1000 * count / milliseconds, step=0.5, label="Frames a second",
                min_width=130, info="How fast it is played.",
            )  # fmt: skip
        found["ping_pong"] = gr.Checkbox(label="Back and forth: played forwards, then backwards")
    with gr.Accordion("Pictures and prompts by frame", open=False):
        with gr.Row():
            for name, label in (("first_frame", "First frame"), ("last_frame", "Last frame")):
                picture = gr.Image(
                    label=label, sources=["upload"], height=180, type="filepath", min_width=130,
                    buttons=[],
                )  # fmt: skip
                found[name] = unread(picture)
        found["prompt_at"] = gr.Textbox(
            label="Prompts by frame",
            placeholder="4: a blue star spinning on a teal background",
            lines=2,
            info="In each line a frame, counted from 0, and the prompt that holds there.",
        )
    if loras:
        with gr.Accordion("LoRAs", open=False):
            for name in loras:
                found[LORA + name] = gr.Slider(-2, 2, 0, step=0.05, label=f"Strength of {name}")
    return found


def compared_fields() -> tuple[Any, Any]:
    """What is compared, and with what."""
    with gr.Accordion("Compare two clips", open=False), gr.Row():
        compare = gr.Dropdown(
            list(COMPARED), value="nothing", label="Make a second clip with", min_width=130
        )
        compare_with = gr.Textbox(
            label="Which is", placeholder="a value", max_lines=1,
            min_width=130,
        )  # fmt: skip
    return compare, compare_with


def sizes_offered(width: int, height: int, most_side: int) -> list[str]:
    """Sizes to choose from; others can be written.

    Args:
        width: of the model's own size.
        height: likewise.
        most_side: what either may be.
    """
    sizes = [(width, height)]
    if (width, height) == (TRAINED_RESOLUTION, TRAINED_RESOLUTION):
        sizes = list(SIZES_BY_RESOLUTION[TRAINED_RESOLUTION].values())
    return [f"{width}x{height}" for width, height in sizes if max(width, height) <= most_side]
