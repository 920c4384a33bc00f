"""Peak memory and time of converting a UNet, beside the time to read its file once.

    python -m benchmarks.convert --size full --dtype bf16

Writes a UNet with formula weights in PyTorch's layout, converts it in a process of its own, and
prints what that process took. The page cache is emptied of the file before each reading.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from benchmarks.models.formula_weights import formula_tensor
from hotshot_jax.convert.tensors.safetensors_file import write_safetensors
from hotshot_jax.models.layers.embeddings import positional_encoding

_MODELS = Path(__file__).parent.parent / "tests" / "golden" / "models"
_SIZES = {"full": "hotshot_xl_full.unet", "tiny": "unet_tiny"}
_DTYPES = {"bf16": jnp.bfloat16, "f16": jnp.float16, "f32": jnp.float32}
_CHUNK = 16 * 2**20

_CONVERT = """
import sys
from pathlib import Path
import jax
jax.config.update("jax_platforms", "cpu")
from hotshot_jax.convert.conversion import convert_component
from hotshot_jax.convert.formats.diffusers_folder import open_component
convert_component(open_component(sys.argv[1], "unet"), Path(sys.argv[2]))
"""


def write_unet(folder: Path, size: str, dtype: np.dtype) -> Path:
    """Writes `config.json` and formula weights to `folder`; returns the weights' file."""
    model = _SIZES[size]
    folder.mkdir()
    (folder / "config.json").write_text((_MODELS / f"{model}.config.json").read_text())
    shapes = json.loads((_MODELS / f"{model}.shapes.json").read_text())

    def tensors() -> Iterator[tuple[str, np.ndarray]]:
        for name, entry in shapes.items():
            shape = tuple(entry["shape"])
            values = (
                positional_encoding(*shape[1:])[None]
                if entry["buffer"]
                else formula_tensor(name, shape)
            )
            yield name, values.astype(dtype)

    file = folder / "diffusion_pytorch_model.safetensors"
    layout = {name: (tuple(entry["shape"]), dtype) for name, entry in shapes.items()}
    write_safetensors(file, layout, tensors(), {"format": "pt"})
    return file


def forget(file: Path) -> None:
    """Drops a file from the page cache."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def seconds_to_read(file: Path) -> float:
    """Seconds to read a file from disk once, front to back."""
    forget(file)
    buffer = bytearray(_CHUNK)
    start = time.perf_counter()
    with file.open("rb", buffering=0) as opened:
        while opened.readinto(buffer):
            pass
    return time.perf_counter() - start


def baseline_memory() -> int:
    """Peak bytes of a process that only imports what converting imports."""
    return _run("import hotshot_jax.convert.conversion, jax; jax.numpy.zeros(1)")


def _run(code: str, *arguments: str) -> int:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert after >= before, "ru_maxrss is the largest child's"
    return after * 1024


def main() -> None:
    """Runs the benchmark and prints its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=list(_SIZES), default="full")
    parser.add_argument("--dtype", choices=list(_DTYPES), default="bf16")
    parser.add_argument("--folder", help="where to write (default: a temporary folder)")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        source = Path(folder) / "unet"
        file = write_unet(source, given.size, np.dtype(_DTYPES[given.dtype]))
        size = file.stat().st_size
        baseline = baseline_memory()
        read = seconds_to_read(file)
        forget(file)
        start = time.perf_counter()
        peak = _run(_CONVERT, str(source), str(Path(folder) / "converted"))
        converted = time.perf_counter() - start
    figures = {
        "size": given.size,
        "dtype": given.dtype,
        "weights_bytes": size,
        "peak_bytes": peak,
        "peak_over_weights": peak / size,
        "import_bytes": baseline,
        "read_seconds": read,
        "convert_seconds": converted,
        "convert_over_read": converted / read,
    }
    print(f"weights                  {size / 2**30:8.2f} GiB")
    print(f"peak memory              {peak / 2**30:8.2f} GiB   {peak / size:.3f} x the weights")
    print(f"  of which imports alone {baseline / 2**30:8.2f} GiB")
    print(f"reading the file once    {read:8.1f} s")
    print(f"converting               {converted:8.1f} s   {converted / read:.2f} x reading")
    if given.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
