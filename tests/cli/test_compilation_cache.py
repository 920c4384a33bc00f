import os
from pathlib import Path

import jax
import pytest

from hotshot_jax.cli.compilation_cache import chosen_folder, compilation_cache, default_folder
from hotshot_jax.errors import UsageError


def test_runs_in_one_process_keep_to_their_own_folders(tmp_path: Path) -> None:
    before = jax.config.jax_compilation_cache_dir

    def compile_something() -> None:
        jax.jit(lambda x: x + 1)(1.0)

    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        with compilation_cache(folder):
            compile_something()
    kept = [sorted(file.name for file in folder.iterdir()) for folder in folders]
    assert all(kept), kept
    assert jax.config.jax_compilation_cache_dir == before
    with compilation_cache(None):
        compile_something()
    assert [sorted(file.name for file in folder.iterdir()) for folder in folders] == kept


def test_the_flag_names_a_folder() -> None:
    assert chosen_folder(None) == default_folder()
    assert chosen_folder("none") is None
    assert chosen_folder("~/compiled") == Path(os.path.expanduser("~")) / "compiled"
    with pytest.raises(UsageError, match="--compilation_cache is empty"):
        chosen_folder("")
