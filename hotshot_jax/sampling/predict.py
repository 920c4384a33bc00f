"""Predictors: from latents and what they are conditioned on to what the model finds in them."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from hotshot_jax.conditioning.control.residuals import Control, control_residuals
from hotshot_jax.models import ProjectedText, UNet3DConditionModel
from hotshot_jax.models.controlnet.controlnet import ControlNetModel
from hotshot_jax.models.unet.encoder import take_frames


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Conditioning:
    """What the models are conditioned on; the same for every step of a run.

    Attributes:
        text: what the UNet's spatial transformers read.
        pooled_text: `[batch, frames, text_channels]`; one frame where all share it.
        time_ids: original size, crop offset and target size, `[batch, 6]`.
        controls: what each ControlNet is conditioned on.
        branches: how often each video is in the batch, static: 2 with guidance, first all videos
            with the negative prompts, then all with the prompts.
    """

    text: ProjectedText
    pooled_text: jax.Array
    time_ids: jax.Array
    controls: Sequence[Control] = ()
    branches: int = dataclasses.field(default=1, metadata={"static": True})

    def at_frames(self, indices: ArrayLike) -> "Conditioning":
        """The part of some frames; what all frames share stays as it is.

        Args:
            indices: int `[frames]`.
        """
        return dataclasses.replace(
            self,
            text=self.text.at_frames(indices),
            pooled_text=take_frames(self.pooled_text, indices, axis=1),
            controls=[control.at_frames(indices) for control in self.controls],
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepInput:
    """What changes from call to call of the model.

    Attributes:
        timestep: scalar, as the model is given it.
        progress: the part of the whole schedule that lies before this call, from 0 to below 1.
        row: the scheduler's row for this call.
        noise: standard normal, with the shape of the latents, or None where none is used.
        control_scales: strength of each ControlNet, float32 `[controlnets]`.
    """

    timestep: ArrayLike
    progress: ArrayLike
    row: Any
    noise: ArrayLike | None
    control_scales: ArrayLike


class Predictor(Protocol):
    """Finds the noise (or velocity, or sample) in latents, within a compiled step."""

    def __call__(
        self, latents: jax.Array, step: StepInput, conditioning: Conditioning, cache: Any
    ) -> tuple[jax.Array, Any]:
        """Predicts.

        Args:
            latents: scaled as the model wants them, float32
                `[batch, frames, height, width, channels]`; what `conditioning` says of the batch
                holds of it.
            step: what changes from call to call.
            conditioning: what the models are conditioned on.
            cache: what the call before gave back; a pytree whose shapes stay the same.

        Returns:
            The prediction, float32 with the shape of `latents`, and the cache for the next call.
        """
        ...


@dataclasses.dataclass(frozen=True)
class UNetPredictor:
    """Calls the UNet, with what ControlNets add to it.

    Attributes:
        unet: the model.
        controlnets: models that add to it, as many as the conditioning has controls.
        guess_mode: the ControlNets see the conditional half alone.
        enable_temporal_attentions: false for single images.
    """

    unet: UNet3DConditionModel
    controlnets: Sequence[ControlNetModel] = ()
    guess_mode: bool = False
    enable_temporal_attentions: bool = True

    def __call__(
        self, latents: jax.Array, step: StepInput, conditioning: Conditioning, cache: Any
    ) -> tuple[jax.Array, Any]:
        """See `Predictor`."""
        timestep = jnp.asarray(step.timestep)
        residuals = None
        if self.controlnets:
            residuals = control_residuals(
                self.controlnets,
                conditioning.controls,
                jnp.asarray(step.control_scales),
                latents,
                timestep,
                conditioning.pooled_text,
                conditioning.time_ids,
                videos=latents.shape[0] // conditioning.branches,
                guess_mode=self.guess_mode,
            )
        prediction = self.unet(
            latents.astype(self.unet.dtype),
            timestep,
            conditioning.text,
            conditioning.pooled_text,
            conditioning.time_ids,
            enable_temporal_attentions=self.enable_temporal_attentions,
            residuals=residuals,
        )
        return prediction.astype(jnp.float32), cache
