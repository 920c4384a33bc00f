"""A LoRA of a file as the factors that training goes on with."""

from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath

import numpy as np

from hotshot_jax.convert.tensors.rules import Slot
from hotshot_jax.convert.tensors.tensor_source import first_names, open_file
from hotshot_jax.errors import HotshotError
from hotshot_jax.lora import Factors, ModuleNames, open_lora
from hotshot_jax.lora.changes import Added, Change, LowRank
from hotshot_jax.lora.names import DOWN, split_key
from hotshot_jax.lora.read import find_lora

_WEIGHT = ".weight"
# How keys of text encoders begin in the spellings of kohya, PEFT and diffusers.
_OF_TEXT = ("lora_te", "text_encoder", "base_model.model.text_encoder")


def stated_rank(path: FilePath) -> int:
    """The largest rank among the factors of a LoRA, from the header of its file.

    Args:
        path: the file, or a folder with it.

    Raises:
        HotshotError: there is no such file, it is damaged, or it has no factors.
    """
    source = open_file(find_lora(path))
    parts = ((split_key(key), tensor.shape) for key, tensor in source.items())
    ranks = [shape[0] for key, shape in parts if key is not None and key[1] == DOWN and shape]
    if not ranks:
        raise HotshotError(
            f"`network_weights` {path}: there are no low-rank factors in it "
            f"({first_names(tuple(source))}); expected a LoRA."
        )
    return max(ranks)


def starting_factors(
    path: FilePath, slots: Mapping[str, Mapping[str, Slot]]
) -> dict[str, dict[str, Factors]]:
    """The factors of a LoRA of any of the kinds that have two of them.

    Args:
        path: the file, or a folder with it.
        slots: those of "unet" and, if they train, "text_encoder" and "text_encoder_2", by PyTorch's
            names.

    Returns:
        By model and module, in PyTorch's layout, float32: what alpha multiplies by is in `up`.

    Raises:
        HotshotError: it cannot be read, has layers that the models have not, or something else
            than two factors for a weight.
    """
    shapes = {
        model: {name: slot.shape for name, slot in each.items()} for model, each in slots.items()
    }
    lora = open_lora(path, ModuleNames(shapes), allow_partial=True)
    if lora.report.unmatched:
        raise _unmatched(path, lora.report.unmatched, tuple(slots))
    return {
        model: _two_factors(path, changes, slots[model]) for model, changes in lora.changes.items()
    }


def _unmatched(path: FilePath, keys: Sequence[str], models: Sequence[str]) -> HotshotError:
    of_text = len(models) == 1 and any(key.startswith(_OF_TEXT) for key in keys)
    way_out = (
        "Those of text encoders are trained further with `train_text_encoder`."
        if of_text
        else "Factors of other models are not trained further; take them out of the file."
    )
    named = "this UNet" if len(models) == 1 else "this UNet and its text encoders"
    return HotshotError(
        f"`network_weights` {path}: {len(keys)} of its keys are of no layer of {named} "
        f"({first_names(tuple(keys))}). {way_out}"
    )


def _two_factors(
    path: FilePath, changed: Mapping[str, Sequence[Change]], slots: Mapping[str, Slot]
) -> dict[str, Factors]:
    factors = {}
    for name, changes in changed.items():
        found = changes[0].difference if isinstance(changes[0], Added) else None
        if (
            len(changes) > 1
            or not name.endswith(_WEIGHT)
            or not isinstance(found, LowRank)
            or found.mid is not None
        ):
            raise HotshotError(
                f"`network_weights` {path}: {name} is changed by something else than a factor down "
                "and a factor up, which alone can be trained further; give a plain LoRA."
            )
        rank, inputs = len(found.down), slots[name].shape[1:]
        outputs = slots[name].shape[0]
        if found.up.size != outputs * rank:
            raise HotshotError(
                f"`network_weights` {path}: the factor up of {name} has the shape "
                f"{found.up.shape}; only those of {outputs} x {rank} can be trained further."
            )
        up = found.up.astype(np.float32).reshape(outputs, rank) * np.float32(found.scaling)
        down = found.down.astype(np.float32).reshape(rank, *inputs)
        factors[name.removesuffix(_WEIGHT)] = Factors(down, up)
    return factors
