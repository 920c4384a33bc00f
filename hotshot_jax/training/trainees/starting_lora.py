"""A LoRA of a file as the factors that training goes on with."""

from collections.abc import Mapping
from pathlib import Path as FilePath

import numpy as np

from hotshot_jax.convert.tensors.rules import Slot
from hotshot_jax.convert.tensors.tensor_source import first_names, open_file
from hotshot_jax.errors import HotshotError
from hotshot_jax.lora import Factors, ModuleNames, open_lora
from hotshot_jax.lora.changes import Added, LowRank
from hotshot_jax.lora.names import DOWN, split_key
from hotshot_jax.lora.read import find_lora

_UNET = "unet"
_WEIGHT = ".weight"


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


def starting_factors(path: FilePath, slots: Mapping[str, Slot]) -> dict[str, Factors]:
    """The factors of a LoRA of any of the kinds that have two of them.

    Args:
        path: the file, or a folder with it.
        slots: those of the UNet, by PyTorch's names.

    Returns:
        By module, in PyTorch's layout, float32: what alpha multiplies by is in `up`.

    Raises:
        HotshotError: it cannot be read, has layers that the UNet has not, or something else than
            two factors for a weight.
    """
    names = ModuleNames({_UNET: {name: slot.shape for name, slot in slots.items()}})
    lora = open_lora(path, names, allow_partial=True)
    if lora.report.unmatched:
        count = len(lora.report.unmatched)
        raise HotshotError(
            f"`network_weights` {path}: {count} of its keys are of no layer of this UNet "
            f"({first_names(lora.report.unmatched)}). Factors of other models are not trained "
            "further; take them out of the file."
        )
    factors = {}
    for name, changes in lora.changes.get(_UNET, {}).items():
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
