"""The shape of temporal layers, as files state it.

A UNet's `config.json` and the metadata of a file of temporal layers have the words of
`UNet3DConfig`, a diffusers MotionAdapter its own. Published files state nothing.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hotshot_jax.convert.tensors.file_content import read_json_object
from hotshot_jax.errors import HotshotError
from hotshot_jax.models.unet.encoder_config import PUBLISHED, TemporalShape

_CONFIG = "config.json"
# By the attribute of `TemporalShape`: a UNet's word, a MotionAdapter's.
_WORDS = {
    "positions": ("temporal_positions", "motion_max_seq_length"),
    "heads": ("temporal_heads", "motion_num_attention_heads"),
    "groups": ("temporal_groups", "motion_norm_num_groups"),
}


def read_shape(stated: Mapping[str, Any], where: Path) -> TemporalShape:
    """The shape that a configuration or a file's metadata states, or else the published one.

    Args:
        stated: numbers, or texts of them.
        where: the file, for messages.

    Raises:
        HotshotError: a value is not a whole number of at least 1.
    """
    found = {}
    for attribute, words in _WORDS.items():
        for word in words:
            if word in stated:
                text = str(stated[word])
                if not (text.isascii() and text.isdigit() and int(text)):
                    raise HotshotError(
                        f"{where}: {word} = {stated[word]!r}; expected a whole number of at least "
                        "1."
                    )
                found[attribute] = int(text)
    return TemporalShape(**found)


def unet_words(shape: TemporalShape) -> dict[str, int]:
    """A shape as a UNet's `config.json` states it."""
    return {words[0]: getattr(shape, attribute) for attribute, words in _WORDS.items()}


def adapter_words(shape: TemporalShape) -> dict[str, int]:
    """A shape as the `config.json` of a MotionAdapter states it."""
    return {words[1]: getattr(shape, attribute) for attribute, words in _WORDS.items()}


def temporal_metadata(shape: TemporalShape) -> dict[str, str]:
    """Metadata of a file of temporal layers; it states a shape that is not the published one."""
    stated = {} if shape == PUBLISHED else unet_words(shape)
    return {"format": "pt", **{word: str(value) for word, value in stated.items()}}


def with_shape(component: str, config: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """The content of a `config.json` to write: a UNet's states the shape of its temporal layers.

    Args:
        component: the model's name.
        config: the content as it was read.
        where: the file, for messages.

    Raises:
        HotshotError: a stated value is not a whole number of at least 1.
    """
    stated = unet_words(read_shape(config, where)) if component == "unet" else {}
    return {**config, **stated}


def stated_shape(path: Path, metadata: Mapping[str, str] = MappingProxyType({})) -> TemporalShape:
    """The shape that is stated with temporal layers.

    Args:
        path: the folder of a checkpoint or MotionAdapter, or a file.
        metadata: of the file.

    Raises:
        HotshotError: the configuration is damaged or a value impossible; a MotionAdapter of
            another shape than Hotshot-XL's that was not written here, such as AnimateDiff's.
    """
    config = path / "unet" / _CONFIG
    if config.is_file():
        return read_shape(read_json_object(config), config)
    shape, config = read_shape(metadata, path), path / _CONFIG
    if config.is_file() and (stated := read_shape(read_json_object(config), config)) != shape:
        raise HotshotError(
            f"{config}: {stated.positions} positions, {stated.heads} heads and {stated.groups} "
            "groups. These are temporal layers of another model."
        )
    return shape
