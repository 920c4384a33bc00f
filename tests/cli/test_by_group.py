"""Numbers by group of layers, as they are written."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from hotshot_jax.cli.by_group import numbers_by_group
from hotshot_jax.cli.train.settings import parse_train_settings
from hotshot_jax.errors import UsageError


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("temporal=2,down1=0.5", {"temporal": 2.0, "down1": 0.5}),
        ("0.1, temporal = 1", {"all": 0.1, "temporal": 1.0}),
        ("down1+attention=0", {"down1+attention": 0.0}),
        ("*.to_q.weight=1e-2", {"*.to_q.weight": 0.01}),
        ("0.5", {"all": 0.5}),
        # As files have them.
        (0.5, {"all": 0.5}),
        ({"temporal": 2, "all": 0.1}, {"temporal": 2.0, "all": 0.1}),
        ("temporal=nan", {"temporal": pytest.approx(float("nan"), nan_ok=True)}),
    ],
)
def test_what_is_read(written: Any, read: dict[str, float]) -> None:
    assert numbers_by_group(written) == read


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("temporal", "expected GROUP=NUMBER"),
        ("temporal=", "expected GROUP=NUMBER"),
        ("=2", "expected GROUP=NUMBER"),
        ("temporal=2,", "expected GROUP=NUMBER"),
        ("", "expected GROUP=NUMBER"),
        ("temporal=fast", "expected GROUP=NUMBER"),
        ("temporal=2,down1=1,temporal=3", "temporal is given twice"),
        ("1,2", "all is given twice"),
        ("1,all=2", "all is given twice"),
        ({"temporal": True}, "expected GROUP=NUMBER"),
        ({"temporal": {"down1": 2}}, "expected GROUP=NUMBER"),
        ({"temporal": None}, "expected GROUP=NUMBER"),
        (True, "expected GROUP=NUMBER"),
        (["temporal=2"], "expected GROUP=NUMBER"),
    ],
)
def test_what_is_refused(written: Any, message: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        numbers_by_group(written)


def test_files_and_flags_say_the_same(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("learning_rate_factors: {temporal: 2, down1+attention: 0.5}\n")
    of_file = parse_train_settings(["--config", str(file)], "train.py")
    flags = ["--learning_rate_factors", "temporal=2,down1+attention=0.5"]
    assert of_file == parse_train_settings(flags, "train.py")
    assert of_file.learning_rate_factors == {"temporal": 2.0, "down1+attention": 0.5}
    file.write_text("learning_rate_factors: {temporal: fast}\n")
    with pytest.raises(UsageError, match=r"learning_rate_factors is .*: expected GROUP=NUMBER"):
        parse_train_settings(["--config", str(file)], "train.py")


@pytest.mark.parametrize("flag", ["--block_lr", "--down_lr_weight", "--text_encoder_lr"])
def test_flags_of_others_are_answered(flag: str) -> None:
    with pytest.raises(UsageError, match=r"--learning_rate_factors down1=0\.5,mid=2"):
        parse_train_settings([flag, "1e-4"], "train.py")
