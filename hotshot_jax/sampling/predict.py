"""Predictors: from latents and what they are conditioned on to what the model finds in them."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from hotshot_jax.conditioning.control.residuals import Control, control_residuals
from hotshot_jax.conditioning.key_frames import blend_keys
from hotshot_jax.models import ProjectedText, UNet3DConditionModel
from hotshot_jax.models.controlnet.controlnet import ControlNetModel
from hotshot_jax.models.unet.encoder import take_frames
from hotshot_jax.models.unet.spatial_transformer import attend_to_first_frame


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Conditioning:
    """What the models are conditioned on; the same for every step of a run.

    Attributes:
        text: what the UNet's spatial transformers read.
        pooled_text: `[batch, frames, text_channels]`; one frame where all share it.
        time_ids: original size, crop offset and target size, `[batch, 6]`.
        controls: what each ControlNet is conditioned on.
        keys: how much of what is said at each key frame each frame has, float32
            `[batch, frames, keys]`; text and pooled text then have an axis of keys in place of the
            frames'. None where nothing is blended.
        motion_scale: factor of what each block's temporal transformers add, float32
            `[batch, frames, blocks]`, down blocks before up blocks; one frame where all share it.
            None for 1.
        branches: how often each video is in the batch, static: 2 with guidance, first all videos
            with the negative prompts, then all with the prompts.
    """

    text: ProjectedText
    pooled_text: jax.Array
    time_ids: jax.Array
    controls: Sequence[Control] = ()
    keys: jax.Array | None = None
    motion_scale: jax.Array | None = None
    branches: int = dataclasses.field(default=1, metadata={"static": True})

    def blended(self) -> "Conditioning":
        """With text and pooled text by frame, where they are given at key frames."""
        if self.keys is None:
            return self
        blend = functools.partial(blend_keys, weights=self.keys)
        controls = [
            dataclasses.replace(control, text=control.text.blended(blend))
            for control in self.controls
        ]
        return dataclasses.replace(
            self,
            text=self.text.blended(blend),
            pooled_text=blend(self.pooled_text, axis=1),
            controls=controls,
            keys=None,
        )

    def conditional(self) -> "Conditioning":
        """The part of the prompts, for a batch without the unconditional half."""
        if self.branches == 1:
            return self
        rows = len(self.pooled_text)

        def half(array: jax.Array) -> jax.Array:
            return array[rows // 2 :]

        def half_of_text(text: ProjectedText) -> ProjectedText:
            # In guess mode a ControlNet has this half alone.
            return jax.tree.map(lambda leaf: leaf[:, -(rows // 2) :], text)

        return dataclasses.replace(
            self,
            text=half_of_text(self.text),
            pooled_text=half(self.pooled_text),
            time_ids=half(self.time_ids),
            controls=[
                dataclasses.replace(control, text=half_of_text(control.text))
                for control in self.controls
            ],
            keys=None if self.keys is None else half(self.keys),
            motion_scale=None if self.motion_scale is None else half(self.motion_scale),
            branches=1,
        )

    def at_frames(self, indices: ArrayLike) -> "Conditioning":
        """The part of some frames, blended; what all frames share stays as it is.

        Args:
            indices: int `[frames]`; or `[windows, frames]`, which makes a batch of windows: all
                those of the first row, then all of the next.
        """
        indices = jnp.atleast_2d(jnp.asarray(indices))
        windows, of_text = len(indices), indices
        if self.keys is not None:
            places = jnp.arange(self.pooled_text.shape[1])
            of_text = jnp.broadcast_to(places, (windows, len(places)))

        def take(array: jax.Array | None) -> jax.Array | None:
            return None if array is None else take_frames(array, indices, axis=1)

        taken = dataclasses.replace(
            self,
            text=self.text.at_frames(of_text),
            pooled_text=take_frames(self.pooled_text, of_text, axis=1),
            time_ids=jnp.repeat(self.time_ids, windows, axis=0) if windows > 1 else self.time_ids,
            controls=[control.at_frames(indices, of_text) for control in self.controls],
            keys=take(self.keys),
            motion_scale=take(self.motion_scale),
        )
        return taken.blended()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WindowBatch:
    """Windows of one length, for one call of the model.

    Attributes:
        indices: the frames of each, int32 `[turns, windows, length]`; those of a turn are
            predicted at once.
        weights: what the predictions are multiplied by, float32 `[turns, windows, length]`; over
            all windows of a call, those of a frame add up to 1.
    """

    indices: ArrayLike
    weights: ArrayLike


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
        windows: which frames the model sees together; empty where it sees all at once.
        known_levels: signal and noise of what is put back after this call, float32 `[2]`; None
            where nothing is.
    """

    timestep: ArrayLike
    progress: ArrayLike
    row: Any
    noise: ArrayLike | None
    control_scales: ArrayLike
    windows: Sequence[WindowBatch] = ()
    known_levels: ArrayLike | None = None


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
        keeps_features: the cache is what `UNet3DConditionModel.with_features` gives,
            `[batch, frames, height, width, channels]`; while there is one, only the UNet's last
            layer is run, and of the ControlNets what that layer takes from them.
        first_frame_attention: the UNet's spatial self-attentions see the first frame of a window
            from every one of its frames.
    """

    unet: UNet3DConditionModel
    controlnets: Sequence[ControlNetModel] = ()
    guess_mode: bool = False
    enable_temporal_attentions: bool = True
    keeps_features: bool = False
    first_frame_attention: bool = False

    def __post_init__(self) -> None:
        if self.first_frame_attention:
            attend_to_first_frame(self.unet)

    def __call__(
        self, latents: jax.Array, step: StepInput, conditioning: Conditioning, cache: Any
    ) -> tuple[jax.Array, Any]:
        """See `Predictor`."""
        timestep = jnp.asarray(step.timestep)
        features = cache if self.keeps_features and jax.tree.leaves(cache) else None
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
                first_only=features is not None,
            )
        prediction, features = self.unet.with_features(
            latents.astype(self.unet.dtype),
            timestep,
            conditioning.text,
            conditioning.pooled_text,
            conditioning.time_ids,
            features=features,
            enable_temporal_attentions=self.enable_temporal_attentions,
            residuals=residuals,
            motion_scale=conditioning.motion_scale,
        )
        return prediction.astype(jnp.float32), features if self.keeps_features else cache
