"""Single files in the original SDXL layout, from components under diffusers' names."""

from collections.abc import Mapping

import numpy as np

from hotshot_jax.convert.formats.ldm_names import PREFIXES, TABLES, Stored
from hotshot_jax.convert.tensors.tensor_source import LazyTensor, TensorSource
from hotshot_jax.errors import HotshotError

_FUSED = 3


def to_single_file(components: Mapping[str, TensorSource]) -> TensorSource:
    """The tensors of a single file, from components under diffusers' names; read when asked for.

    Temporal layers have no place in the layout and are left out.

    Args:
        components: sources by component ("unet", "text_encoder", "text_encoder_2", "vae").

    Raises:
        HotshotError: one of the three parts of a fused tensor is missing.
    """
    tensors: list[LazyTensor] = []
    for component, source in components.items():
        parts: dict[str, list[tuple[Stored, LazyTensor]]] = {}
        for name, place in TABLES[component](source.names).items():
            parts.setdefault(place.key, []).append((place, source[name]))
        tensors += [_join(PREFIXES[component] + key, group) for key, group in parts.items()]
    first = next(iter(components.values()))
    return TensorSource(tensors, first.path, first.metadata)


def _join(key: str, group: list[tuple[Stored, LazyTensor]]) -> LazyTensor:
    place, tensor = group[0]
    if place.third is None:
        shape = tensor.shape[::-1] if place.transposed else tensor.shape
        shape = (*shape, 1, 1) if place.pointwise else shape
        return tensor.mapped(
            key, shape, lambda array: (array.T if place.transposed else array).reshape(shape)
        )
    ordered = [part for _, part in sorted(group, key=lambda pair: pair[0].third or 0)]
    if len(ordered) != _FUSED:
        raise HotshotError(f"{tensor.file}: {key} needs query, key and value; one is missing.")
    shape = (sum(part.shape[0] for part in ordered), *tensor.shape[1:])

    def release() -> None:
        for part in ordered:
            part.release()

    return tensor.recomputed(
        lambda: np.concatenate([part.read() for part in ordered]),
        name=key,
        shape=shape,
        releaser=release,
    )
