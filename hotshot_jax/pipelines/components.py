"""The parts of a pipeline, as they are loaded."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from flax import nnx

from hotshot_jax.conditioning.text.prompt_weighting import Vocabulary
from hotshot_jax.conditioning.text.textual_inversion import TextualInversion, extended_vocabulary
from hotshot_jax.errors import HotshotError
from hotshot_jax.models import AutoencoderKL, CLIPTextModel, UNet3DConditionModel
from hotshot_jax.models.controlnet.controlnet import ControlNetModel
from hotshot_jax.pipelines.loras import Loras

MODELS = ("text_encoder", "text_encoder_2", "unet", "vae")


@dataclasses.dataclass(frozen=True)
class Components:
    """Models, tokenizers and the scheduler's configuration of one checkpoint.

    Attributes:
        text_encoder: the first text encoder.
        text_encoder_2: the second, with a projection.
        tokenizer: of the first.
        tokenizer_2: of the second.
        unet: the UNet with its temporal layers.
        vae: the autoencoder, float32 or bfloat16.
        scheduler_config: the checkpoint's `scheduler_config.json`.
        force_zeros_for_empty_prompt: whether no negative prompt means embeddings of zeros.
        name: what to call the checkpoint in stored settings.
        controlnets: ControlNets that add to the UNet, if there are any.
        loras: what is merged into text encoders and UNet; None where they were not loaded from a
            checkpoint.
        inversions: words that files give a meaning to, whose vectors end the token tables of both
            text encoders, in this order.
    """

    text_encoder: CLIPTextModel
    text_encoder_2: CLIPTextModel
    tokenizer: Any
    tokenizer_2: Any
    unet: UNet3DConditionModel
    vae: AutoencoderKL
    scheduler_config: Mapping[str, Any]
    force_zeros_for_empty_prompt: bool = True
    name: str = ""
    controlnets: tuple[ControlNetModel, ...] = ()
    loras: Loras | None = None
    inversions: tuple[TextualInversion, ...] = ()

    @property
    def text_encoders(self) -> tuple[CLIPTextModel, CLIPTextModel]:
        """The first and the second."""
        return self.text_encoder, self.text_encoder_2

    def model(self, name: str) -> nnx.Module:
        """A model by its attribute's name; `controlnets.0` is the first ControlNet."""
        attribute, _, index = name.partition(".")
        value = getattr(self, attribute)
        return value[int(index)] if index else value

    def vocabulary(self, encoder: str) -> Vocabulary:
        """What "text_encoder" or "text_encoder_2" reads: its tokenizer's words and new ones."""
        tokenizer = self.tokenizer if encoder == "text_encoder" else self.tokenizer_2
        first_id = getattr(self, encoder).config.vocab_size - sum(map(len, self.inversions))
        return extended_vocabulary(Vocabulary.of(tokenizer), self.inversions, first_id)

    def check_control_types(self, types: Sequence[int | None]) -> None:
        """Checks the kind of control frames that each ControlNet is to be given.

        Args:
            types: one for each, None for those that are no union.

        Raises:
            UsageError: a union ControlNet lacks its kind or does not know it, or one that is none
                has one.
        """
        for index, (controlnet, kind) in enumerate(zip(self.controlnets, types, strict=True)):
            kinds = () if kind is None else (kind,)
            controlnet.config.check_control_types(kinds, f"ControlNet {index + 1}")

    @property
    def structure(self) -> str:
        """How the models compute: their classes, configurations and dtypes, without parameters."""
        models = [self.model(name) for name in (*MODELS, *self.controlnet_names)]
        return repr(
            [
                (
                    type(model).__name__,
                    getattr(model, "config", None),
                    getattr(model, "dtype", None),
                )
                for model in models
            ]
        )

    @property
    def controlnet_names(self) -> tuple[str, ...]:
        """The names of the ControlNets for `model`."""
        return tuple(f"controlnets.{index}" for index in range(len(self.controlnets)))

    def check(self) -> None:
        """Checks that the parts fit each other.

        Raises:
            HotshotError: a width of one part is not what another part expects.
        """
        unet, first, second = self.unet.config, self.text_encoder.config, self.text_encoder_2.config
        if not second.with_projection:
            raise HotshotError(
                "text_encoder_2/config.json: the second encoder has no projection; expected "
                "CLIPTextModelWithProjection, as in SDXL."
            )
        for tokenizer, encoder, name in (
            (self.tokenizer, first, "text_encoder"),
            (self.tokenizer_2, second, "text_encoder_2"),
        ):
            if tokenizer is not None and len(tokenizer) > encoder.vocab_size:
                raise HotshotError(
                    f"The tokenizer of {name} has {len(tokenizer)} words, the encoder "
                    f"{encoder.vocab_size}: they belong to other models."
                )
        width = first.hidden_size + second.hidden_size
        if width != unet.cross_attention_dim:
            raise HotshotError(
                f"The text encoders give {width} channels together, but the UNet's "
                f"cross_attention_dim is {unet.cross_attention_dim}: they belong to other models."
            )
        width = second.projection_dim + 6 * unet.addition_time_embed_dim
        if width != unet.projection_class_embeddings_input_dim:
            raise HotshotError(
                f"Pooled text and embedded sizes have {width} channels together, but the UNet's "
                f"projection_class_embeddings_input_dim is "
                f"{unet.projection_class_embeddings_input_dim}: they belong to other models."
            )
        for index, controlnet in enumerate(self.controlnets):
            controlnet.config.check_fits(unet, f"ControlNet {index + 1}")
        if self.vae.config.latent_channels != unet.in_channels:
            raise HotshotError(
                f"The VAE has {self.vae.config.latent_channels} latent channels, the UNet takes "
                f"{unet.in_channels}: they belong to other models."
            )
