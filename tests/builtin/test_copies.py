"""A copy of the built-in model is used as the built-in model is: converted, exported, or copied."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hotshot_jax.builtin import builtin_checkpoint
from hotshot_jax.cli.convert import command as convert
from hotshot_jax.cli.infer.arguments import parse_settings
from hotshot_jax.convert.formats.small_files import NATIVE_SETTINGS, copy_small_files
from tests.builtin_settings import builtin_settings


def native(path: Path, *arguments: str) -> dict[str, Any]:
    settings = parse_settings(["--pretrained_path", str(path), *arguments])
    return {name: getattr(settings, name) for name in builtin_settings()}


def test_converted_and_back(tmp_path: Path) -> None:
    for arguments in (
        [str(builtin_checkpoint()), str(tmp_path / "ours")],
        ["--to-torch", str(tmp_path / "ours"), str(tmp_path / "torch")],
    ):
        assert convert.main(arguments) == 0
    for name in ("ours", "torch"):
        assert native(tmp_path / name) == builtin_settings()
    assert native(tmp_path / "ours", "--width", "96")["width"] == 96
    assert native(tmp_path / "ours", "--aspect_ratio", "1.75")["width"] is None


def test_other_checkpoints_have_hotshots_settings(tiny_checkpoint: Path, tmp_path: Path) -> None:
    # An export copies these files by the same function as a conversion.
    copy_small_files(tiny_checkpoint, tmp_path)
    assert not (tmp_path / NATIVE_SETTINGS).exists()
    assert native(tmp_path)["og_width"] == 1920 and native(tmp_path)["width"] is None


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"width": "128"}',
        '{"width": true}',
        '{"width": 128, "editor.fontSize": 12}',
        # What to read, fetch or run is not for a checkpoint to say.
        '{"width": 128, "prompts_file": "/etc/passwd"}',
        '{"width": 128, "gif": "http://example.org/a.gif"}',
        '{"output": "a.gif"}',
    ],
)
def test_files_of_that_name_that_are_not_ours_say_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / NATIVE_SETTINGS).write_text(content)
    settings = parse_settings(["--pretrained_path", str(tmp_path)])
    assert settings.width is None and settings.prompts_file is None and not settings.gif


def test_an_export_takes_the_settings_along(tmp_path: Path) -> None:
    copy_small_files(builtin_checkpoint(), tmp_path)
    assert json.loads((tmp_path / NATIVE_SETTINGS).read_text()) == builtin_settings()
    shutil.copytree(builtin_checkpoint(), tmp_path / "copied")
    assert native(tmp_path / "copied") == builtin_settings()
