"""`hotshot-jax-serve`: what is refused before anything is loaded, and what its flags come to."""

import subprocess
import sys
from pathlib import Path

import pytest

from hotshot_jax.cli.flags import flags_of
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.cli.serve.command import main
from hotshot_jax.cli.serve.offered import named_models, offered_controlnets
from hotshot_jax.cli.serve.planner import InferPlanner
from hotshot_jax.cli.serve.serve import batch_sizes, is_loopback
from hotshot_jax.cli.serve.settings import ServeSettings
from hotshot_jax.errors import UsageError


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--host 0.0.0.0", "--host 0.0.0.0 is reached from other machines: set a key in"),
        ("--host example.com", "is reached from other machines"),
        ("--host ::", "is reached from other machines"),
        ("--host 0.0.0.0 --api_key short", "too easily guessed: give 16"),
        ("--api_key 0123456789abcdeé", "printable characters"),
        ("--allow_origin example.com", "expected scheme and host"),
        ("--allow_origin https://example.com/", "expected scheme and host"),
        ("--warm 512x512", "'512x512'; expected WIDTHxHEIGHTxFRAMES"),
        ("--max_queue 0", "--max_queue is 0; expected more than 0."),
        ("--max_batch 0", "--max_batch is 0"),
        ("--calls_at_once -1", "--calls_at_once is -1"),
        ("--keep_gb nan", "--keep_gb is nan"),
        ("--port 70000", "--port is 70000"),
        ("--lora_dir /nothing/there", "--lora_dir /nothing/there: there is no such folder."),
        ("--jobs_dir gs://bucket/jobs", "neither read nor written here"),
        ("--output a.gif", "unrecognized arguments"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str], flags: str, message: str
) -> None:
    assert main(flags.split()) == 2
    error = capsys.readouterr().err
    assert message in error and "0123456789" not in error


def test_a_port_that_is_taken_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from hotshot_jax.server.running import bound_socket

    with bound_socket("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["--port", str(port), "--jobs_dir", str(tmp_path / "jobs")]) == 1
    assert f"--host 127.0.0.1, --port {port}: Address already in use" in capsys.readouterr().err
    assert not (tmp_path / "jobs").exists()


@pytest.mark.parametrize(
    ("host", "is_one"),
    [("localhost", True), ("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("me", False)],
)
def test_what_is_this_machine_alone(host: str, is_one: bool) -> None:
    assert is_loopback(host) is is_one


def test_flags_that_choose_the_model_are_those_of_infer() -> None:
    infer, serve = flags_of(InferSettings), flags_of(ServeSettings)
    own = {"depth_checkpoint", "steps", "guidance_scale", "negative_prompt"}
    shared = (set(infer) & set(serve)) - own
    assert shared >= {"pretrained_path", "base", "temporal", "vae", "lora", "scheduler", "mesh"}
    assert all(serve[name] == infer[name] for name in shared)


def test_models_are_named_by_their_files(tmp_path: Path) -> None:
    (tmp_path / "style.safetensors").touch()
    (tmp_path / "canny-net").mkdir()
    (tmp_path / "README.md").touch()
    (tmp_path / ".hidden").mkdir()
    assert sorted(named_models("lora_dir", str(tmp_path))) == ["canny-net", "style"]
    assert list(offered_controlnets(None, builtin=True)) == ["canny"]
    assert offered_controlnets(None, builtin=False) == {}
    (tmp_path / "style").mkdir()
    with pytest.raises(UsageError, match="style stands for two models"):
        named_models("lora_dir", str(tmp_path))


@pytest.mark.parametrize(
    ("most", "data", "sizes"),
    [(1, 1, (1,)), (4, 1, (1, 2, 4)), (5, 1, (1, 2, 4)), (8, 4, (1, 4, 8)), (2, 4, (1,))],
)
def test_batches_have_few_sizes(most: int, data: int, sizes: tuple[int, ...]) -> None:
    assert batch_sizes(most, data) == sizes


def test_help_is_there_without_jax_or_fastapi() -> None:
    code = (
        "import sys; from hotshot_jax.cli.serve.command import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'jax', 'fastapi', 'uvicorn'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.rstrip().endswith("[]") and "--warm WxHxFRAMES" in run.stdout


@pytest.mark.parametrize(
    ("asked", "full"),
    [
        ({}, 5),
        ({"steps": 15}, 5),
        ({"cache_interval": 1}, 1),
    ],
)
def test_a_request_wins_over_the_preset_of_the_server(asked: dict[str, int], full: int) -> None:
    planned = InferPlanner({}, {"preset": "fast"})({"prompt": "a red circle", **asked}, {})
    assert planned.clip.cache_interval == full
