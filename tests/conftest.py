"""What tests of several rooms share."""

import atexit
import gc
import os
import shutil
import tempfile

# Before JAX starts: the suite means the same on a machine with an accelerator, and loading code may
# not reach for the network.
os.environ["JAX_PLATFORMS"] = "cpu"
# Most of the suite's time is spent compiling programs that run once; optimisations cost more than
# they gain there, and so do threads, of which each worker would have as many as there are cores.
os.environ["XLA_FLAGS"] = " ".join(
    (
        os.environ.get("XLA_FLAGS", ""),
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    )
)
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
# One cache of compiled programs for a whole run: its workers and the commands that tests start
# inherit it. It goes with the process that made it, but for hosted CI's, which keeps one: there
# XLA's programs are found by what was compiled, and stored ones by the package's sources.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    kept = os.environ.get("HOTSHOT_JAX_TEST_CACHE")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = kept or tempfile.mkdtemp(prefix="hotshot-jax-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    if not kept:
        atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
# The secret that stored programs are signed with; not the one of whoever runs the tests.
os.environ["XDG_CONFIG_HOME"] = os.path.join(os.environ["JAX_COMPILATION_CACHE_DIR"], "config")

from pathlib import Path

import pytest

from tests.tiny_checkpoint import write_tiny_checkpoint


def pytest_collection_finish() -> None:
    # What was imported stays; the garbage collector need not look through it again and again.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def compilation_cache() -> Path:
    """Programs that commands compile, shared by all tests of a run whatever worker they are in."""
    return Path(os.environ["JAX_COMPILATION_CACHE_DIR"]) / "commands"


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint in the published layout; read-only by agreement, copy it to change it."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny")
