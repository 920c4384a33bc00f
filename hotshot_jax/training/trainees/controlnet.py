"""A ControlNet that trains beside a frozen UNet (Zhang et al. 2023, arXiv:2302.05543)."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from hotshot_jax.convert.builders import CONTROLNET
from hotshot_jax.convert.formats.to_torch import write_component
from hotshot_jax.convert.load import abstract
from hotshot_jax.convert.prepare import PreparedComponent
from hotshot_jax.convert.tensors.rules import Path, flat_parameters
from hotshot_jax.errors import UsageError
from hotshot_jax.models import UNet3DConditionModel
from hotshot_jax.models.controlnet.config import ControlNetConfig, ControlNetUnionConfig
from hotshot_jax.models.controlnet.controlnet import ControlNetModel
from hotshot_jax.models.unet.encoder_config import ENCODER_SUPPORTED
from hotshot_jax.parallel.placement import in_host_memory
from hotshot_jax.training.trainees.trainee import Division, Origin, Parameters

_EMBEDDING_WIDTHS = (16, 32, 96, 256)


class ControlledUNet(nnx.Module):
    """A UNet with what a ControlNet adds to it."""

    def __init__(self, unet: UNet3DConditionModel, controlnet: ControlNetModel):
        self.unet = unet
        self.controlnet = controlnet

    def __call__(
        self,
        sample: jax.Array,
        timestep: jax.Array,
        encoder_hidden_states: jax.Array,
        text_embeds: jax.Array,
        time_ids: jax.Array,
        control: jax.Array,
        *,
        enable_temporal_attentions: bool = True,
    ) -> jax.Array:
        """As the UNet; `control` is uint8 `[batch, frames, height, width, 3]`, in pixels."""
        conditions = (timestep, encoder_hidden_states, text_embeds, time_ids)
        residuals = self.controlnet(sample, *conditions, control.astype(jnp.float32) / 255)
        return self.unet(
            sample,
            *conditions,
            enable_temporal_attentions=enable_temporal_attentions,
            residuals=residuals,
        )


@dataclasses.dataclass(frozen=True)
class ControlNetTrainee:
    """A ControlNet, all of which trains, and a UNet, all of which is frozen.

    The two share names, so that a ControlNet's parameter has the name of the one it started from.

    Attributes:
        unet: the UNet.
        controlnet: the ControlNet.
        beginning: an existing one to start from, float32; None for a copy of the UNet's way down.
    """

    unet: Division
    controlnet: Division
    beginning: PreparedComponent | None = None

    @classmethod
    def of(
        cls, module: UNet3DConditionModel, beginning: PreparedComponent | None = None
    ) -> "ControlNetTrainee":
        """A ControlNet for a (concrete or abstract) UNet, with its shape and compute dtype.

        The embedding of control frames is SDXL's, but in a small model no wider than the UNet's
        first level, half of that one halving of the size before it, and so on: at the size of
        pixels it would else be most of the work.

        Args:
            module: the UNet.
            beginning: see the attribute; its configuration is taken with it.

        Raises:
            HotshotError: the ControlNet to start from does not fit the UNet.
            UsageError: it is one of several kinds of control frames.
        """
        unet = dataclasses.replace(Division.of(module, "unet"), trained=frozenset())
        first = module.config.block_out_channels[0]
        limits = [max(1, first >> each) for each in reversed(range(len(_EMBEDDING_WIDTHS)))]
        widths = tuple(map(min, _EMBEDDING_WIDTHS, limits))
        config = ControlNetConfig.from_unet(module.config, widths)
        if beginning is not None:
            config = beginning.module.config
            config.check_fits(module.config, "`controlnet_model_name_or_path`")
            if isinstance(config, ControlNetUnionConfig):
                raise UsageError(
                    "`controlnet_model_name_or_path` is a union ControlNet, which cannot be "
                    "trained here; give one for a single kind of control frames."
                )
        controlnet = abstract(lambda rngs: ControlNetModel(config, rngs=rngs, dtype=module.dtype))
        return cls(unet, Division.of(controlnet, "unet"), beginning)

    @property
    def trained(self) -> frozenset[str]:
        """See `Trainee`."""
        return self.controlnet.trained

    def start(self, values: Mapping[Path, Any], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `Trainee`: the UNet's way down, outputs of zero, a random embedding of frames."""
        _, frozen = self.unet.start(values, seed)
        if self.beginning is not None:
            stored = flat_parameters(self.beginning.load(shardings=in_host_memory()))
            paths = self.controlnet.paths.items()
            return {name: np.asarray(stored[path]) for name, path in paths}, frozen
        config: ControlNetConfig = self.controlnet.module.config  # type: ignore[attr-defined]

        def others() -> dict[str, jax.Array]:
            drawn = flat_parameters(ControlNetModel(config, rngs=nnx.Rngs(seed)))
            paths = self.controlnet.paths.items()
            return {name: drawn[path] for name, path in paths if name not in frozen}

        # Compiled, so that what the UNet's own values replace is never drawn.
        new = jax.jit(others)()
        trained = {
            name: frozen[name] if name in frozen else np.asarray(new[name])
            for name in self.controlnet.paths
        }
        return trained, frozen

    def shardings(self, mesh: Mesh) -> Mapping[str, jax.sharding.Sharding]:
        """See `Trainee`; what both have lies alike."""
        return {**self.controlnet.shardings(mesh), **self.unet.shardings(mesh)}

    def merge(self, trained: Parameters, frozen: Parameters) -> ControlledUNet:
        """The UNet with the ControlNet."""
        return ControlledUNet(self.unet.merge({}, frozen), self.controlnet.merge(trained, {}))

    def components(self, trained: Parameters, frozen: Parameters) -> dict[str, Any]:
        """See `Trainee`."""
        both = self.merge(trained, frozen)
        return {"unet": both.unet, "controlnets": (both.controlnet,)}

    def export(self, folder: FilePath, trained: Parameters, origin: Origin) -> None:
        """See `Trainee`: the ControlNet's own diffusers folder."""
        controlnet = self.controlnet.merge(trained, {})
        write_component(folder, CONTROLNET, config_json(controlnet), controlnet)


def config_json(controlnet: ControlNetModel) -> dict[str, Any]:
    """The content of a ControlNet's `config.json`, as diffusers reads it."""
    return {
        "_class_name": "ControlNetModel",
        # What the models here implement in one form only, which diffusers has to be told.
        **{key: values[0] for key, values in ENCODER_SUPPORTED.items()},
        **dataclasses.asdict(controlnet.config),
    }
