"""What a file says of its model's predictions, in marker tensors or in its header.

Configurations of diffusers have fields for it. Single files do not, and a v-prediction model that
is sampled as epsilon gives noise. So tools leave marks: empty tensors called `v_pred` and `ztsnr`
(ComfyUI's convention), ModelSpec's `modelspec.prediction_type` ("v" or "epsilon"), and kohya's
`ss_v_parameterization` and `ss_zero_terminal_snr`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from hotshot_jax.convert.tensors.tensor_source import TensorSource

MARKERS = ("v_pred", "ztsnr", "edm_vpred.sigma_max", "edm_vpred.sigma_min")
"""Names of marker tensors."""

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
