"""Time and peak memory of loading a UNet with a LoRA merged into it, beside reading both files.

    python -m benchmarks.lora_merge --size full --dtype f16 --load_as bf16

Checkpoints are mostly stored in float16, and `infer.py` loads them as float16 on GPUs, as bfloat16
on TPUs and as float32 on CPUs.

Writes a UNet with formula weights and a LoRA of rank 32 on all of its attention layers, spatial and
temporal. Processes of their own then load the UNet and read the LoRA, without merging ("reading
both files") and with it. The page cache is emptied of the files before each. Processor time is
printed beside the time that passed, since it does not depend on what else the machine does.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks.convert import forget, seconds_to_read, write_unet
from benchmarks.models.formula_weights import formula_tensor
from hotshot_jax.convert.tensors.safetensors_file import write_safetensors
from hotshot_jax.convert.tensors.tensor_source import open_file

_DTYPES = {"bf16": jnp.bfloat16, "f16": jnp.float16, "f32": jnp.float32}
_ATTENTION = re.compile(r"(.*\.to_(?:q|k|v|out\.0))\.weight")

_LOAD = """
import json, resource, sys, time
from pathlib import Path
import jax
jax.config.update("jax_platforms", "cpu")
jax.numpy.zeros(1)
from hotshot_jax.convert.formats.diffusers_folder import open_component
from hotshot_jax.convert.prepare import prepare_component
from hotshot_jax.lora import ModuleNames, merged_source, open_lora
folder, lora, dtype, merge = sys.argv[1:]
start, processor = time.perf_counter(), time.process_time()
prepared = prepare_component(open_component(folder, "unet"), dtype=jax.numpy.dtype(dtype))
opened = open_lora(Path(lora), ModuleNames({"unet": prepared.shapes}))
change = lambda source: merged_source(source, "unet", [(opened, 1.0)])
change = change if merge == "merge" else None
jax.block_until_ready(jax.tree.leaves(prepared.load(change=change)))
print(json.dumps({
    "seconds": time.perf_counter() - start,
    "processor_seconds": time.process_time() - processor,
    "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "modules": sum(opened.report.matched.values()),
}))
"""


def write_lora(file: Path, unet: Path, rank: int) -> int:
    """Writes float16 factors for every attention layer of a UNet; returns their number."""
    shapes = {}
    for name, tensor in open_file(unet).items():
        found = _ATTENTION.fullmatch(name)
        if found:
            outputs, inputs = tensor.shape
            shapes[f"unet.{found[1]}.lora_A.weight"] = (rank, inputs)
            shapes[f"unet.{found[1]}.lora_B.weight"] = (outputs, rank)
    dtype = np.dtype(np.float16)
    layout = {name: (shape, dtype) for name, shape in shapes.items()}
    tensors = ((name, formula_tensor(name, shape).astype(dtype)) for name, shape in shapes.items())
    write_safetensors(file, layout, tensors, {"format": "pt"})
    return len(shapes) // 2


def measure(folder: Path, files: tuple[Path, Path], dtype: str, *, merge: bool) -> dict[str, Any]:
    """Loads in a process of its own and returns what that printed.

    Args:
        folder: of the UNet.
        files: its weights, and the LoRA.
        dtype: NumPy's name of the dtype to load as.
        merge: whether to merge the LoRA or only to read it.
    """
    for file in files:
        forget(file)
    arguments = (str(folder), str(files[1]), dtype, "merge" if merge else "read")
    finished = subprocess.run(
        [sys.executable, "-c", _LOAD, *arguments], check=True, capture_output=True, text=True
    )
    return json.loads(finished.stdout.splitlines()[-1])


def main() -> None:
    """Runs the benchmark and prints its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--dtype", choices=list(_DTYPES), default="f16")
    parser.add_argument("--load_as", choices=list(_DTYPES), help="default: as stored")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=1, help="runs of each, the fastest counts")
    parser.add_argument("--folder", help="where to write (default: a temporary folder)")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    given = parser.parse_args()
    dtype = np.dtype(_DTYPES[given.dtype])
    load_as = given.load_as or given.dtype
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        source, lora = Path(folder) / "unet", Path(folder) / "lora.safetensors"
        files = (write_unet(source, given.size, dtype), lora)
        modules = write_lora(lora, files[0], given.rank)
        sizes = [file.stat().st_size for file in files]
        runs: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
        raw = []
        loaded = np.dtype(_DTYPES[load_as]).name
        for repeat in range(given.repeats):
            raw.append(sum(seconds_to_read(file) for file in files))
            # In turn first, since a process may find memory as the one before has left it.
            for merge in (False, True) if repeat % 2 == 0 else (True, False):
                runs[merge].append(measure(source, files, loaded, merge=merge))
    read, merged = (min(results, key=lambda each: each["seconds"]) for results in runs.values())
    assert merged["modules"] == modules
    figures = {
        "size": given.size,
        "dtype": given.dtype,
        "load_as": load_as,
        "rank": given.rank,
        "modules": modules,
        "weights_bytes": sizes[0],
        "lora_bytes": sizes[1],
        "raw_seconds": min(raw),
        "read_seconds": read["seconds"],
        "merge_seconds": merged["seconds"],
        "merge_over_read": merged["seconds"] / read["seconds"],
        "read_processor_seconds": read["processor_seconds"],
        "merge_processor_seconds": merged["processor_seconds"],
        "read_peak_bytes": read["peak_bytes"],
        "merge_peak_bytes": merged["peak_bytes"],
        "peak_over_weights": merged["peak_bytes"] / sizes[0],
        "load_average": os.getloadavg()[0],
    }
    print(f"weights               {sizes[0] / 2**30:8.2f} GiB, LoRA {sizes[1] / 2**30:.2f} GiB")
    print(f"stored and loaded as  {given.dtype:>8} {load_as}")
    print(f"layers merged         {modules:8d}")
    print(f"bytes off the disk    {min(raw):8.1f} s")
    for key, what in (("seconds", ""), ("processor_seconds", " of a processor")):
        print(f"reading both files    {read[key]:8.1f} s{what}")
        ratio = merged[key] / read[key]
        print(f"reading and merging   {merged[key]:8.1f} s{what}   {ratio:.3f} x reading")
    for name, result in (("reading", read), ("merging", merged)):
        peak = result["peak_bytes"]
        print(f"peak when {name}     {peak / 2**30:8.2f} GiB   {peak / sizes[0]:.3f} x the weights")
    print(f"load average          {figures['load_average']:8.1f}")
    if given.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
