"""What a single file leaves unsaid: the configurations that its tensors imply.

Widths and depths follow from the shapes. What does not is SDXL's: attention heads of 64 channels,
norms in 32 groups, a VAE scale of 0.13025, the scaled linear noise schedule.

Configurations of diffusers say what a model predicts. Single files do not, and a v-prediction model
that is sampled as epsilon gives noise. So tools leave marks: empty tensors called `v_pred` and
`ztsnr` (ComfyUI's convention), ModelSpec's `modelspec.prediction_type` ("v" or "epsilon"), and
kohya's `ss_v_parameterization` and `ss_zero_terminal_snr`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from hotshot_jax.convert.tensors.tensor_source import TensorSource
from hotshot_jax.errors import HotshotError

MARKERS = ("v_pred", "ztsnr", "edm_vpred.sigma_max", "edm_vpred.sigma_min")
"""Names of marker tensors."""

_HALF_PRECISION_FIX = re.compile(r"fp16[-_. ]?(vae[-_. ]?)?fix")
_HEADER = "modelspec.prediction_type"
_SPELLINGS: Mapping[str, str] = {
    "epsilon": "epsilon",
    "eps": "epsilon",
    "noise": "epsilon",
    "v": "v_prediction",
    "v_pred": "v_prediction",
    "vpred": "v_prediction",
    "v_prediction": "v_prediction",
    "velocity": "v_prediction",
    "sample": "sample",
    "x0": "sample",
}


@dataclasses.dataclass(frozen=True)
class StatedPrediction:
    """What a file says.

    Attributes:
        prediction_type: in diffusers' words; None where the file says nothing that is known.
        zero_terminal_snr: whether the schedule ends in pure noise.
        notes: what in it cannot be used, one sentence each.
    """

    prediction_type: str | None
    zero_terminal_snr: bool
    notes: tuple[str, ...] = ()


def stated_prediction(source: TensorSource) -> StatedPrediction:
    """Reads the marks of a file; tensors count for more than the header, which is copied along.

    Args:
        source: the whole file.
    """
    notes = []
    header = source.metadata.get(_HEADER, "")
    found = _SPELLINGS.get(header.strip().lower().replace("-", "_").replace(" ", "_"))
    if source.metadata.get("modelspec.noise_process", "ddpm").lower() == "flow":
        found = None
    if header.strip() and found is None:
        notes.append(
            f"{source.path.name} says that it predicts {header[:40]!r}, which is not known here; "
            "`prediction_type` tells what it is."
        )
    if found is None and _is_true(source, "ss_v_parameterization"):
        found = "v_prediction"
    if "v_pred" in source:
        found = "v_prediction"
    zero = "ztsnr" in source or _is_true(source, "ss_zero_terminal_snr")
    return StatedPrediction(found, zero, tuple(notes))


def _is_true(source: TensorSource, key: str) -> bool:
    return source.metadata.get(key, "").strip().lower() in ("true", "1")


HEAD_WIDTH = 64
SDXL_SCALING_FACTOR = 0.13025
_SIZES = 6

_EULER: Mapping[str, Any] = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}


def unet_config(stored: TensorSource, pooled_width: int | None) -> dict[str, Any]:
    """The `config.json` of a UNet; a value that cannot be derived is None.

    Args:
        stored: the UNet's tensors in the original names, prefix removed.
        pooled_width: width of the second text encoder's pooled output, where the file has one.

    Raises:
        HotshotError: the blocks are not those of an SDXL UNet.
    """
    channels, depths, layers = _levels(stored)
    added = stored.shape("label_emb.0.0.weight")[1]
    # Without a text encoder in the file, SDXL's own width of 1280 is the only one it can be.
    sizes = added - (1280 if pooled_width is None else pooled_width)
    down = ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths]
    return {
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": sizes // _SIZES if sizes > 0 and not sizes % _SIZES else None,
        "attention_head_dim": [max(1, width // HEAD_WIDTH) for width in channels],
        "block_out_channels": channels,
        "cross_attention_dim": _text_width(stored),
        "down_block_types": down,
        "in_channels": stored.shape("input_blocks.0.0.weight")[1],
        "layers_per_block": layers,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "norm_eps": 1e-5,
        "norm_num_groups": 32,
        "out_channels": stored.shape("out.2.weight")[0],
        "projection_class_embeddings_input_dim": added,
        "sample_size": 128,
        "transformer_layers_per_block": [max(1, depth) for depth in depths],
        "up_block_types": [name.replace("Down", "Up") for name in reversed(down)],
        "use_linear_projection": True,
    }


def _levels(stored: TensorSource) -> tuple[list[int], list[int], int]:
    """Width and transformer depth of each level, and the number of resnets in one."""
    channels, depths, counts = [], [], [0]
    index = 1
    while any(name.startswith(f"input_blocks.{index}.") for name in stored):
        block = f"input_blocks.{index}"
        if f"{block}.0.op.weight" in stored:
            counts.append(0)
        elif f"{block}.0.in_layers.2.weight" in stored:
            if counts[-1] == 0:
                channels.append(stored.shape(f"{block}.0.in_layers.2.weight")[0])
                depths.append(count_layers(stored, f"{block}.1.transformer_blocks."))
            counts[-1] += 1
        else:
            raise HotshotError(f"{stored.path}: {block} is not a block of an SDXL UNet.")
        index += 1
    middle = count_layers(stored, "middle_block.1.transformer_blocks.")
    if not channels or len(set(counts)) != 1 or middle != depths[-1]:
        raise HotshotError(
            f"{stored.path}: the UNet's levels are not built as SDXL's (a pruned model such as "
            "SSD-1B or Segmind Vega?); its temporal layers would not fit."
        )
    return channels, depths, counts[0]


def _text_width(stored: TensorSource) -> int:
    for name in stored:
        if name.endswith(".attn2.to_k.weight"):
            return stored.shape(name)[1]
    raise HotshotError(f"{stored.path}: the UNet has no cross-attention; it takes no prompt.")


def count_layers(names: Collection[str], prefix: str) -> int:
    """One more than the highest number that follows `prefix` in any name."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    found = (pattern.match(name) for name in names)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def text_encoder_config(stored: TensorSource) -> dict[str, Any]:
    """The `config.json` of the first text encoder, from tensors in transformers' names."""
    vocabulary, width = stored.shape("text_model.embeddings.token_embedding.weight")
    return _clip(
        "CLIPTextModel",
        stored,
        width=width,
        vocabulary=vocabulary,
        positions=stored.shape("text_model.embeddings.position_embedding.weight")[0],
        depth=count_layers(stored, "text_model.encoder.layers."),
        feed_forward=stored.shape("text_model.encoder.layers.0.mlp.fc1.weight")[0],
        projection=width,
        activation="quick_gelu",
    )


def text_encoder_2_config(stored: TensorSource) -> dict[str, Any]:
    """The `config.json` of the second text encoder, from tensors in OpenCLIP's names."""
    vocabulary, width = stored.shape("token_embedding.weight")
    return _clip(
        "CLIPTextModelWithProjection",
        stored,
        width=width,
        vocabulary=vocabulary,
        positions=stored.shape("positional_embedding")[0],
        depth=count_layers(stored, "transformer.resblocks."),
        feed_forward=stored.shape("transformer.resblocks.0.mlp.c_fc.weight")[0],
        projection=stored.shape("text_projection")[1],
        activation="gelu",
    )


def _clip(
    architecture: str,
    stored: TensorSource,
    *,
    width: int,
    vocabulary: int,
    positions: int,
    depth: int,
    feed_forward: int,
    projection: int,
    activation: str,
) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "eos_token_id": vocabulary - 1,
        "hidden_act": activation,
        "hidden_size": width,
        "intermediate_size": feed_forward,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": positions,
        "model_type": "clip_text_model",
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "num_hidden_layers": depth,
        "projection_dim": projection,
        "vocab_size": vocabulary,
    }


def vae_config(stored: TensorSource) -> dict[str, Any]:
    """The `config.json` of the VAE, from tensors in the original names, prefix removed."""
    levels = count_layers(stored, "encoder.down.")
    if not levels:
        raise HotshotError(f"{stored.path}: the VAE has no encoder; use a complete VAE.")
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": [
            stored.shape(f"encoder.down.{level}.block.0.conv1.weight")[0] for level in range(levels)
        ],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "force_upcast": not _is_half_precision_fix(stored.path),
        "in_channels": stored.shape("encoder.conv_in.weight")[1],
        "latent_channels": stored.shape("decoder.conv_in.weight")[1],
        "layers_per_block": count_layers(stored, "encoder.down.0.block."),
        "norm_num_groups": 32,
        "out_channels": stored.shape("decoder.conv_out.weight")[0],
        "sample_size": 1024,
        "scaling_factor": SDXL_SCALING_FACTOR,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }


def _is_half_precision_fix(path: Path) -> bool:
    """Whether a file is `sdxl-vae-fp16-fix` by its own name or its repository's on the Hub.

    It has the tensors and shapes of the VAE that it was trained from, and no configuration.
    """
    names = [path.name, *(part for part in path.parts if part.startswith("models--"))]
    return any(_HALF_PRECISION_FIX.search(name.lower()) for name in names)


def scheduler_config(source: TensorSource) -> tuple[dict[str, Any], list[str]]:
    """The scheduler's configuration, and what to tell the user about it.

    What the model predicts is what the file says of itself (see `stated_prediction`); ComfyUI's
    markers of EDM models, `edm_vpred.sigma_max` and `sigma_min`, are read too.

    Args:
        source: the whole file.

    Returns:
        The configuration in diffusers' words, and notes.
    """
    if "edm_vpred.sigma_max" in source:
        highest = source.read("edm_vpred.sigma_max").item()
        lowest = (
            source.read("edm_vpred.sigma_min").item() if "edm_vpred.sigma_min" in source else 0.002
        )
        return {
            "_class_name": "EDMEulerScheduler",
            "num_train_timesteps": 1000,
            "prediction_type": "v_prediction",
            "rho": 7.0,
            "sigma_data": 1.0,
            "sigma_max": highest,
            "sigma_min": lowest,
            "sigma_schedule": "karras",
        }, [
            f"{source.path.name} is marked as an EDM v-prediction model (sigma {lowest:g} to "
            f"{highest:g}): the scheduler is switched to EDM with v-prediction."
        ]
    stated = stated_prediction(source)
    config = {**_EULER, "prediction_type": stated.prediction_type or "epsilon"}
    notes = list(stated.notes)
    if stated.prediction_type not in (None, "epsilon"):
        text = f"{source.path.name} says that it predicts {stated.prediction_type}"
        if stated.zero_terminal_snr:
            config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
            text += ", with zero terminal SNR, which needs rescaled betas and trailing timesteps"
        notes.append(f"{text}: the scheduler is switched to that.")
    elif stated.zero_terminal_snr:
        notes.append(
            f"{source.path.name} says that it has zero terminal SNR, but not that it predicts "
            "v_prediction; that is ignored, as elsewhere."
        )
    return config, notes
