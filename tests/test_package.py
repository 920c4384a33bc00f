"""The wheel, and what the command imports."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Needed for training, for reading data sets, for serving or for tests, but not to make a GIF.
# (optax is not in the list because Flax itself imports it.)
_UNNEEDED = (
    "torch tensorflow diffusers peft grain tensorflow_datasets array_record pytest hypothesis "
    "fastapi starlette uvicorn gradio prometheus_client"
).split()

_HIDING_RUN = """
import sys
from importlib.machinery import PathFinder

found = PathFinder.find_spec

def hiding(name, path=None, target=None):
    return None if name.partition(".")[0] in {unneeded!r} else found(name, path, target)

PathFinder.find_spec = staticmethod(hiding)
from hotshot_jax.cli.infer.command import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(ROOT)], check=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_claims_one_top_level_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name.partition("/")[0] for name in archive.namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"hotshot_jax"}


def test_the_wheel_holds_the_small_model_and_its_controlnet(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if name.endswith(".safetensors")}
    builtin = ROOT / "hotshot_jax" / "builtin"
    weights = {path.relative_to(ROOT).as_posix() for path in builtin.rglob("*.safetensors")}
    assert names == weights
    assert {name.split("/")[2] for name in names} == {"checkpoint", "controlnet_canny"}


def test_the_installed_command_makes_a_gif_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    options = ["--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
    environment = os.environ | {"PYTHONPATH": str(site), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    run = subprocess.run(
        [sys.executable, str(site / "bin" / "hotshot-jax"), "--steps", "1", "--output", "a.gif"],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert (work / "a.gif").read_bytes().startswith(b"GIF89a")
    assert "the built-in model" in run.stderr


def test_making_a_gif_imports_nothing_that_it_does_not_need(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    flags = "--steps 1 --width 16 --height 16 --compilation_cache none --output".split()
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            _HIDING_RUN.format(unneeded=set(_UNNEEDED)),
            "--pretrained_path",
            str(tiny_checkpoint),
            *flags,
            str(tmp_path / "a.gif"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    # Neither is that told as if something were missing.
    assert "PyTorch" not in run.stderr
    assert "taken from the cache" not in run.stderr
