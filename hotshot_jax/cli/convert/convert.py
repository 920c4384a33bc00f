"""From PyTorch's layout to Orbax, or back, as a command line says."""

import argparse
from collections.abc import Collection
from pathlib import Path

import jax
import jax.numpy as jnp

from hotshot_jax.cli.convert.command import PROGRAM
from hotshot_jax.cli.flags import Acts, refuse_without_effect
from hotshot_jax.cli.model_card import ModelCard
from hotshot_jax.cli.run import say
from hotshot_jax.cli.terminal_progress import TerminalProgress
from hotshot_jax.convert.assembly import open_temporal
from hotshot_jax.convert.conversion import (
    convert_component,
    convert_folder,
    ignored_files,
    write_torch_controlnet,
    write_torch_folder,
)
from hotshot_jax.convert.formats.controlnet_files import is_controlnet, open_controlnet
from hotshot_jax.convert.formats.converted import (
    ConvertedComponent,
    ConvertedFolder,
    is_converted,
    open_converted,
)
from hotshot_jax.convert.formats.diffusers_folder import Component, DiffusersFolder
from hotshot_jax.convert.formats.temporal_layers import write_temporal_layers
from hotshot_jax.convert.formats.temporal_shape import read_shape
from hotshot_jax.convert.hub import repository_of, resolve
from hotshot_jax.convert.hub_push import CARD, check_push, licence_of, push
from hotshot_jax.convert.prepare import component_source, open_checkpoint
from hotshot_jax.errors import HotshotError, UsageError

_EFFECTS = (
    Acts(("to-torch", "dtype"), lambda given: given.temporal is None, "with --temporal"),
    Acts(("dtype",), lambda given: not given.to_torch, "with --to-torch: tensors keep their own"),
    Acts(("push_to_hub",), lambda given: given.to_torch, "without --to-torch"),
    Acts(("hub_private",), lambda given: given.push_to_hub is not None, "without --push_to_hub"),
    Acts(
        ("variant",),
        lambda given: not Path(given.source).is_file() and not is_converted(Path(given.source)),
        "on a single file or a converted checkpoint",
    ),
)
_DTYPES = {"f32": jnp.float32, "f16": jnp.float16, "bf16": jnp.bfloat16}


def convert(given: argparse.Namespace, flags: Collection[str]) -> None:
    """Converts a checkpoint as the arguments say.

    Args:
        given: the arguments.
        flags: names of those that stand on the command line.

    Raises:
        UsageError: the arguments are wrong.
        HotshotError: the checkpoint is damaged, of another model, or does not fit memory or disk.
    """
    refuse_without_effect(flags, given, _EFFECTS)
    # Arrays are only passing through; an accelerator would be in the way, or held by another run.
    jax.config.update("jax_platforms", "cpu")
    if given.temporal is not None:
        _write_temporal(given)
        return
    source = _open(given.source, given.variant)
    for note in getattr(source, "notes", ()):
        say(f"{PROGRAM}: {note}")
    dest = Path(given.dest)
    if given.to_torch:
        if not isinstance(source, ConvertedFolder | ConvertedComponent):
            raise UsageError(f"{source.path} is in the diffusers layout already.")
        if given.push_to_hub is not None:
            check_push(given.push_to_hub, private=given.hub_private)
        if isinstance(source, ConvertedComponent):
            write_torch_controlnet(source, dest)
        else:
            write_torch_folder(source, dest)
    else:
        if isinstance(source, ConvertedFolder | ConvertedComponent):
            raise UsageError(f"{source.path} is converted already; --to-torch goes the other way.")
        ignored = [] if isinstance(source, Component) else ignored_files(source)
        if ignored:
            say(f"{PROGRAM}: not converted: {', '.join(ignored)}")
        with TerminalProgress().stage("converting", source.nbytes, "B") as advance:
            dtype = _DTYPES.get(given.dtype)
            if isinstance(source, Component):
                convert_component(source, dest, dtype=dtype, progress=advance)
            else:
                convert_folder(source, dest, dtype=dtype, progress=advance)
    print(dest)
    if given.push_to_hub is not None:
        _publish(given, dest, "controlnet" if isinstance(source, ConvertedComponent) else "model")


def _publish(given: argparse.Namespace, dest: Path, kind: str) -> None:
    hub_id = repository_of(given.source)
    base = None if hub_id is None else hub_id.repository
    card = ModelCard(
        given.push_to_hub,
        kind,
        f"{base or 'A Hotshot-XL model'}, written in the layout of diffusers by hotshot-jax.",
        base_model=base,
        licence=licence_of(given.source),
    )
    say(f"pushing {dest} to {given.push_to_hub}")
    try:
        address = push(dest, given.push_to_hub, {CARD: card.text().encode()})
    except HotshotError as error:
        raise HotshotError(f"{error}\nWhat was converted is in {dest}.") from None
    say(f"pushed to {address}")


def _open(
    source: str, variant: str | None
) -> DiffusersFolder | ConvertedFolder | Component | ConvertedComponent:
    """A whole checkpoint, or a ControlNet."""
    if is_controlnet(source):
        return open_controlnet(source, variant=variant)
    return open_checkpoint(resolve(source, variant=variant), variant=variant)


def _write_temporal(given: argparse.Namespace) -> None:
    if is_converted(Path(given.source)):
        unet = open_converted(Path(given.source)).unet
        tensors, shape = component_source(unet), read_shape(unet.config, unet.config_path)
    else:
        tensors, shape = open_temporal(given.source, given.variant)
    write_temporal_layers(tensors, shape, given.temporal, Path(given.dest))
    print(given.dest)
