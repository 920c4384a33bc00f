"""ControlNets in a sampling run."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from hotshot_jax.conditioning.control.preprocess import prepare_control_frames
from hotshot_jax.conditioning.control.residuals import Control, make_control
from hotshot_jax.conditioning.control.windows import ControlWindow
from hotshot_jax.conditioning.key_frames import check_keys, numbers_by_frame
from hotshot_jax.errors import UsageError
from hotshot_jax.models import ProjectedText
from hotshot_jax.models.controlnet.controlnet import ControlNetModel, EmbeddedCondition
from hotshot_jax.parallel.placement import projected_text_shardings, video_sharding, whole
from hotshot_jax.runtime.runtime import Runtime
from hotshot_jax.sampling.request import Request


@dataclasses.dataclass(frozen=True)
class ControlInput:
    """What one ControlNet follows, and how strongly.

    Attributes:
        frames: uint8 `[frames, height, width, 3]`, one for each frame of the video, of any size.
        window: its strength and the part of the schedule in which it acts.
        control_type: the kind of the frames, for a union ControlNet; None for any other.
    """

    frames: np.ndarray
    window: ControlWindow
    control_type: int | None = None


def prepare_controls(
    runtime: Runtime,
    inputs: Sequence[ControlInput],
    hidden: jax.Array,
    request: Request,
    *,
    only_last: int | None = None,
) -> list[Control]:
    """Projects the text and embeds the control frames for every ControlNet, once for a run.

    Args:
        runtime: holds the ControlNets.
        inputs: one for each.
        hidden: text embeddings `[batch, frames, tokens, channels]`, with guidance negative prompts
            first.
        request: numbers of the run.
        only_last: see `make_control`.

    Raises:
        UsageError: there are not as many inputs as ControlNets, or a kind is unknown.
        HotshotError: there is not one control frame for each frame of the video.
    """
    controlnets = runtime.components.controlnets
    if len(inputs) != len(controlnets):
        raise UsageError(
            f"{len(inputs)} control inputs for {len(controlnets)} ControlNets; expected as many."
        )
    runtime.components.check_control_types([given.control_type for given in inputs])
    return [
        _prepare_one(runtime, index, given, hidden, request, only_last)
        for index, given in enumerate(inputs)
    ]


def _prepare_one(
    runtime: Runtime,
    index: int,
    given: ControlInput,
    hidden: jax.Array,
    request: Request,
    only_last: int | None,
) -> Control:
    kinds = () if given.control_type is None else (given.control_type,)
    frames = prepare_control_frames(
        given.frames,
        video_length=request.video_length,
        height=request.height,
        width=request.width,
    )
    arrays, build = runtime.model(f"controlnets.{index}")

    def control(arrays: list[jax.Array], hidden: jax.Array, frames: jax.Array) -> Control:
        model: ControlNetModel = build(arrays)
        return make_control(
            model, hidden, [frames], control_types=kinds or (0,), only_last=only_last
        )

    arguments = (
        arrays,
        runtime.place(hidden, video_sharding),
        runtime.place(frames[None], video_sharding),
    )
    out_shardings = None
    if runtime.mesh is not None:
        out_shardings = _shardings(runtime.mesh, jax.eval_shape(control, *arguments))
    program = runtime.program(
        "control", (index, kinds, only_last), control, arguments, out_shardings=out_shardings
    )
    prepared = program(*arguments)
    scale = given.window.scale
    if not isinstance(scale, Mapping):
        return prepared
    check_keys("controlnet_conditioning_scale", scale, request.video_length)
    strength = numbers_by_frame(scale, request.video_length, closed=request.closed)
    return dataclasses.replace(prepared, strength=runtime.place(strength[None], video_sharding))


def with_text(
    runtime: Runtime, index: int, control: Control, hidden: jax.Array, only_last: int | None
) -> Control:
    """What a ControlNet is conditioned on with another text; its frames stay as they are.

    Args:
        runtime: holds the ControlNets.
        index: which of them.
        control: of `prepare_controls`.
        hidden: text embeddings, as there.
        only_last: as there.
    """
    arrays, build = runtime.model(f"controlnets.{index}")

    def project(arrays: list[jax.Array], hidden: jax.Array) -> ProjectedText:
        model: ControlNetModel = build(arrays)
        return model.project_text(hidden if only_last is None else hidden[-only_last:])

    arguments = (arrays, runtime.place(hidden, video_sharding))
    out_shardings = None
    if runtime.mesh is not None:
        shapes = jax.eval_shape(project, *arguments)
        out_shardings = projected_text_shardings(runtime.mesh, shapes)
    program = runtime.program(
        "control text", (index, only_last), project, arguments, out_shardings=out_shardings
    )
    return dataclasses.replace(control, text=program(*arguments))


def _shardings(mesh: Mesh, shapes: Control) -> Any:
    """Of what a ControlNet is conditioned on: text like the UNet's, features like the latents."""
    features: Any = [video_sharding(mesh, each.shape) for each in shapes.condition.features]
    kinds: Any = whole(mesh)
    return Control(projected_text_shardings(mesh, shapes.text), EmbeddedCondition(features), kinds)
