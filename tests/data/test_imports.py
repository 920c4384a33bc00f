import subprocess
import sys
from pathlib import Path


def modules_after(statement: str) -> set[str]:
    program = f"import sys; {statement}; print(*sys.modules)"
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", program]
    return set(
        subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.split()
    )


def test_inference_does_not_import_the_training_data() -> None:
    modules = modules_after("import hotshot_jax.cli.infer.infer")
    assert not {name for name in modules if name.startswith("hotshot_jax.data")}
    assert not modules & {"grain", "tensorflow_datasets", "array_record"}


def test_loading_data_waits_with_the_training_extra_and_needs_no_framework() -> None:
    modules = modules_after("import hotshot_jax.data.loader, hotshot_jax.data.open_data")
    assert not modules & {"grain", "tensorflow_datasets", "tensorflow", "torch", "jax"}


def test_building_and_reading_records_needs_no_tensorflow(tmp_path: Path) -> None:
    statement = (
        "from hotshot_jax.cli.data.command import build; from hotshot_jax.data import open_data;"
        "build(['--kind', 'shapes', '--length', '2', '--size', '8',"
        f"'--output', '{tmp_path}/s']);"
        f"assert open_data.open_data('{tmp_path}/s').source[1].frame(0).shape == (8, 8, 3)"
    )
    modules = modules_after(statement)
    assert "tensorflow_datasets" in modules
    assert not modules & {"tensorflow", "torch"}
