"""Writing temporal layers by themselves, for the programs that take them."""

import json
from pathlib import Path

from hotshot_jax.convert.formats.temporal_layers import (
    DIFFUSERS,
    motion_adapter_config,
    named_as_hotshot,
    temporal_source,
    write_names,
)
from hotshot_jax.convert.formats.temporal_shape import temporal_metadata
from hotshot_jax.convert.tensors.safetensors_writer import write_safetensors
from hotshot_jax.convert.tensors.tensor_source import TensorSource
from hotshot_jax.errors import UsageError
from hotshot_jax.models.unet.encoder_config import TemporalShape
from hotshot_jax.writing.staging import check_destination, staged_file, staged_folder

_FILE = "diffusion_pytorch_model.safetensors"
_ENDING = ".safetensors"


def write_temporal_layers(
    source: TensorSource, shape: TemporalShape, spelling: str, dest: Path
) -> None:
    """Writes the temporal layers of a UNet or of a file of them.

    Args:
        source: tensors in any of the spellings.
        shape: of the temporal transformers.
        spelling: "hotshot" or "comfyui" for one file, "diffusers" for a folder that
            `MotionAdapter.from_pretrained` takes.
        dest: the `.safetensors` file, or the folder.

    Raises:
        UsageError: `dest` exists, or has the wrong ending.
        HotshotError: `source` holds no temporal layers, or those of another model; the disk is
            full.
    """
    as_folder = spelling == DIFFUSERS
    if as_folder == (dest.suffix == _ENDING):
        expected = "a folder" if as_folder else f"a file that ends in {_ENDING}"
        raise UsageError(f"{dest}: expected {expected} for `temporal` {spelling}.")
    shapes = {name: tensor.shape for name, tensor in named_as_hotshot(source).items()}
    written = write_names(temporal_source(source, shapes, shape), spelling, shape)
    layout = {name: (tensor.shape, tensor.dtype) for name, tensor in written.items()}
    tensors = ((name, tensor.read()) for name, tensor in written.items())
    if as_folder:
        check_destination(dest, source=source.path)
        with staged_folder(dest, required_bytes=written.nbytes) as folder:
            config = json.dumps(motion_adapter_config(shapes, shape), indent=2) + "\n"
            (folder / "config.json").write_text(config)
            write_safetensors(folder / _FILE, layout, tensors, temporal_metadata(shape))
        return
    with staged_file(dest) as staged:
        write_safetensors(staged, layout, tensors, temporal_metadata(shape))
