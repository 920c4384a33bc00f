"""Writing a LoRA that was trained here, in the spellings that other programs read.

- peft: `unet.<module>.lora_A.weight`, for diffusers and peft.
- kohya: `lora_unet_<module_>.lora_down.weight` with alpha, for ComfyUI and others.

Modules have their names in diffusers' tree, temporal ones among them (see `names`). In the first
spelling the factors are scaled so that alpha equals the rank: the programs that read it disagree
on where alpha is looked for, but not on what its absence means.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from hotshot_jax.errors import UsageError

PEFT, KOHYA = "peft", "kohya"
SPELLINGS = (PEFT, KOHYA)

_KOHYA = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}


@dataclasses.dataclass(frozen=True)
class Factors:
    """What was trained for one module.

    Attributes:
        down: `[rank, in]`.
        up: `[out, rank]`.
    """

    down: np.ndarray
    up: np.ndarray


def lora_tensors(
    factors: Mapping[str, Mapping[str, Factors]],
    *,
    alpha: float,
    spelling: str = PEFT,
    dtype: Any = np.float32,
) -> dict[str, np.ndarray]:
    """The tensors of a LoRA file.

    Args:
        factors: by component ("unet", "text_encoder", "text_encoder_2") and module.
        alpha: what the product of the factors is multiplied by, times the rank.
        spelling: "peft" or "kohya".
        dtype: dtype of the tensors.

    Raises:
        UsageError: the spelling is unknown.
    """
    if spelling not in SPELLINGS:
        raise UsageError(f"unknown LoRA spelling {spelling!r}; expected {' or '.join(SPELLINGS)}.")
    tensors = {}
    for component, modules in factors.items():
        for module, each in modules.items():
            if spelling == PEFT:
                name = f"{component}.{module}"
                up = each.up.astype(np.float32) * np.float32(alpha / len(each.down))
                tensors[f"{name}.lora_A.weight"] = each.down.astype(dtype)
                tensors[f"{name}.lora_B.weight"] = up.astype(dtype)
            else:
                name = _KOHYA[component] + module.replace(".", "_")
                tensors[f"{name}.alpha"] = np.asarray(alpha, dtype)
                tensors[f"{name}.lora_down.weight"] = each.down.astype(dtype)
                tensors[f"{name}.lora_up.weight"] = each.up.astype(dtype)
    return tensors


def lora_metadata(
    factors: Mapping[str, Mapping[str, Factors]], *, title: str, alpha: float
) -> dict[str, str]:
    """What the header of a LoRA file says about it.

    The fields are those of the ModelSpec standard and the ones that kohya's tools show.

    Args:
        factors: as for `lora_tensors`.
        title: name of the LoRA.
        alpha: as for `lora_tensors`.
    """
    ranks = sorted({len(each.down) for modules in factors.values() for each in modules.values()})
    return {
        "format": "pt",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.implementation": "https://github.com/huggingface/diffusers",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": title,
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_network_alpha": f"{alpha:g}",
        "ss_network_dim": ",".join(map(str, ranks)),
        "ss_network_module": "networks.lora",
    }
