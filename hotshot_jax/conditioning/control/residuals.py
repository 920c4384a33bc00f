"""What several ControlNets add to the UNet in one step of a sampling run."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from hotshot_jax.models.controlnet.controlnet import (
    ControlNetModel,
    EmbeddedCondition,
    add_residuals,
    prepend_zeros,
)
from hotshot_jax.models.controlnet.union import ControlNetUnionModel
from hotshot_jax.models.unet.encoder import ProjectedText, take_frames
from hotshot_jax.models.unet.unet import Residuals


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Control:
    """What one ControlNet is conditioned on; the same for every step of a run.

    Attributes:
        text: text embeddings, projected by this ControlNet. In guess mode with guidance those of
            the prompts alone.
        condition: control frames, embedded by this ControlNet.
        control_types: kinds of the control frames, int32 `[kinds]`; unused but by unions.
        strength: factor of its scale by frame, float32 `[rows, frames]`, with rows as those of the
            control frames; None for 1.
    """

    text: ProjectedText
    condition: EmbeddedCondition
    control_types: jax.Array
    strength: jax.Array | None = None

    def at_frames(self, indices: ArrayLike, text: ArrayLike | None = None) -> "Control":
        """The part of some frames; what all frames share stays as it is.

        Args:
            indices: int `[frames]` or `[windows, frames]`, see `take_frames`.
            text: the part of the text, where its axis is one of keys; None for `indices`.
        """

        def take(array: jax.Array) -> jax.Array:
            return take_frames(array, indices, axis=1)

        return Control(
            self.text.at_frames(indices if text is None else text),
            EmbeddedCondition([take(each) for each in self.condition.features]),
            self.control_types,
            None if self.strength is None else take(self.strength),
        )


def make_control(
    controlnet: ControlNetModel,
    hidden: jax.Array,
    frames: Sequence[jax.Array],
    *,
    control_types: Sequence[int] = (0,),
    only_last: int | None = None,
) -> Control:
    """Projects the text and embeds the control frames, once for a whole sampling run.

    Args:
        controlnet: the model.
        hidden: text embeddings, negative prompts first, `[batch, tokens, channels]` or
            `[batch, frames, tokens, channels]`.
        frames: for each kind, `[rows, frames, height, width, 3]` from 0 to 1; `rows` is 1 where
            all videos follow the same frames, else the number of videos.
        control_types: the kinds, for a union ControlNet.
        only_last: how many rows of the batch the ControlNet sees: None for all, the number of
            videos in guess mode with guidance.
    """
    if only_last is not None:
        hidden = hidden[-only_last:]
    return Control(
        controlnet.project_text(hidden),
        controlnet.embed_condition(*frames),
        jnp.asarray(control_types, jnp.int32),
    )


def control_residuals(
    controlnets: Sequence[ControlNetModel],
    controls: Sequence[Control],
    scales: jax.Array,
    model_input: jax.Array,
    timestep: jax.Array,
    pooled_text: jax.Array,
    time_ids: jax.Array,
    *,
    videos: int,
    guess_mode: bool = False,
    first_only: bool = False,
) -> Residuals:
    """Runs the ControlNets and sums what they add.

    A ControlNet whose scale is 0 is not run. Scales are values, not shapes: one compiled program
    serves every window.

    Args:
        controlnets: the models.
        controls: what each is conditioned on.
        scales: one for each, float32 `[controlnets]`.
        model_input: scaled latents `[batch, frames, height, width, channels]`; with guidance the
            batch is twice the videos, negative prompts first.
        timestep: scalar.
        pooled_text: `[batch, text_channels]` or `[batch, frames, text_channels]`.
        time_ids: `[batch, 6]`.
        videos: number of videos.
        guess_mode: runs the ControlNets on the conditional half alone and adds zeros to the other;
            residuals grow from 0.1 at the top to 1 at the bottom.
        first_only: gives those of the first skip alone, for a UNet that runs its last layer alone.

    Returns:
        Residuals for the whole batch, in the ControlNets' compute dtype.
    """
    halve = guess_mode and model_input.shape[0] > videos
    if halve:
        model_input, pooled_text, time_ids = (
            x[-videos:] for x in (model_input, pooled_text, time_ids)
        )
    parts = []
    for index, (controlnet, control) in enumerate(zip(controlnets, controls, strict=True)):

        def run(
            scale: jax.Array,
            controlnet: ControlNetModel = controlnet,
            control: Control = control,
        ) -> Residuals:
            union = (
                {"control_types": control.control_types, "prompts": videos}
                if isinstance(controlnet, ControlNetUnionModel)
                else {}
            )
            if control.strength is not None:
                repeats = model_input.shape[0] // control.strength.shape[0]
                by_frame = jnp.tile(control.strength, (repeats, 1))
                scale = scale * by_frame[..., None, None, None]
            return controlnet(
                model_input.astype(controlnet.dtype),
                timestep,
                control.text,
                pooled_text,
                time_ids,
                control.condition,
                conditioning_scale=scale,
                guess_mode=guess_mode,
                first_only=first_only,
                **union,
            )

        def skip(scale: jax.Array, run: Callable[[jax.Array], Residuals] = run) -> Residuals:
            return jax.tree.map(jnp.zeros_like, jax.eval_shape(run, scale))

        parts.append(jax.lax.cond(scales[index] != 0, run, skip, scales[index]))
    residuals = add_residuals(parts)
    return prepend_zeros(residuals) if halve else residuals
