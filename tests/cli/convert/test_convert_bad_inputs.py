"""`python -m convert` given what it cannot convert: the reason, and nothing written.

In the order in which a conversion meets them: the folders, the files, the tensors, memory and disk,
and then checkpoints that were converted and damaged afterwards.
"""

import errno
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from orbax.checkpoint import v1 as orbax

from hotshot_jax.cli.convert import command as convert_command
from hotshot_jax.convert import conversion
from tests.cli.checkpoints import (
    TABLE,
    UNET,
    VAE,
    Tensors,
    change_tensors,
    copy_of,
    everything,
    replace,
)
from tests.cli.conftest import Infer
from tests.cli.refusals import assert_refused, assert_refused_at_once
from tests.other_models import change_json


def test_wrong_usage(convert: Infer, tmp_path: Path, tiny_checkpoint: Path) -> None:
    dest = tmp_path / "dest"
    for arguments, expected in (
        ((), "the following arguments are required: source, dest"),
        ((tiny_checkpoint,), "the following arguments are required: dest"),
        ((tiny_checkpoint, dest, "--dtype", "f8"), "--dtype: invalid choice: 'f8'"),
        ((tiny_checkpoint, dest, "--dtyp", "f16"), "did you mean --dtype?"),
        ((tiny_checkpoint, dest, "--to-torch"), "is in the diffusers layout already"),
        ((tiny_checkpoint, dest, "--variant", "ema"), "has no weights of the variant 'ema'"),
        (("", dest), "is empty; expected a path"),
        ((tmp_path / "missing", dest), "does not exist; expected a path on this machine"),
        ((tiny_checkpoint / "model_index.json", dest), "is a file; expected"),
    ):
        assert_refused(convert(*arguments), 2, expected)
    assert everything(tmp_path) == {}


def test_the_source_as_destination(convert: Infer, tmp_path: Path, tiny_checkpoint: Path) -> None:
    source = copy_of(tiny_checkpoint, tmp_path / "source")
    (tmp_path / "link").symlink_to(source)
    (tmp_path / "folder").mkdir()
    before = everything(tmp_path)
    for dest in (source, tmp_path / "link", tmp_path / "folder" / ".." / "source"):
        assert_refused(convert(source, dest), 2, "source and destination are the same folder")
    assert_refused(convert(tmp_path / "link", source), 2, "are the same folder", str(source))
    assert everything(tmp_path) == before


def test_a_destination_that_is_taken(convert: Infer, tmp_path: Path, tiny_checkpoint: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_bytes(b"before")
    (tmp_path / "file").write_bytes(b"before")
    before = everything(tmp_path)
    for name, expected in (("full", "is not empty"), ("file", "exists and is not a folder")):
        run = convert(tiny_checkpoint, tmp_path / name)
        assert_refused(run, 2, f"the destination {tmp_path / name} {expected}", "name a new folder")
    assert_refused(convert(tiny_checkpoint, tmp_path / "file" / "dest"), 1, "cannot be written")
    assert everything(tmp_path) == before


def test_a_destination_that_is_not_writable(
    convert: Infer, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Path.mkdir

    def refuse(path: Path, *arguments: Any, **options: Any) -> None:
        if path.name.startswith(".hotshot-jax-"):
            raise PermissionError(errno.EACCES, "Permission denied")
        make(path, *arguments, **options)

    # The superuser, as whom tests often run, may write everywhere.
    monkeypatch.setattr(Path, "mkdir", refuse)
    run = convert(tiny_checkpoint, tmp_path / "new" / "dest")
    assert_refused(run, 1, "new/dest cannot be written: Permission denied", "name another")
    assert everything(tmp_path) == {}


class Payload(NamedTuple):
    """Unpickled, it makes a folder."""

    folder: str

    def __reduce__(self) -> Any:
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_is_never_executed(
    convert: Infer, infer: Infer, tmp_path: Path, tiny_checkpoint: Path, protocol: int
) -> None:
    harm = tmp_path / "harm"
    content = pickle.dumps(Payload(str(harm)), protocol)
    source = copy_of(tiny_checkpoint, tmp_path / "source")
    replace(source / UNET, content)
    assert_refused(convert(source, tmp_path / "dest"), 1, UNET)
    (source / UNET).unlink()
    (source / UNET).with_suffix(".bin").write_bytes(content)
    expected = "diffusion_pytorch_model.bin (PyTorch pickle) but no .safetensors weights"
    assert_refused(convert(source, tmp_path / "dest"), 1, expected)
    assert_refused_at_once(infer("--pretrained_path", source), 1, expected)
    (tmp_path / "model.ckpt").write_bytes(content)
    assert convert(tmp_path / "model.ckpt", tmp_path / "dest").status in (1, 2)
    assert not harm.exists()
    pickle.loads(content)
    assert harm.exists()


def _with(file: str, **tensors: Any) -> Callable[[Path], None]:
    """Adds tensors to a file."""
    return lambda folder: change_tensors(folder / file, lambda values: values.update(tensors))


def _table(table: np.ndarray) -> Callable[[Path], None]:
    return _with(UNET, **{TABLE: table})


def _other_temporal_layers(values: Tensors) -> None:
    for name in [name for name in values if "temporal_attentions" in name]:
        new = name.replace("temporal_attentions", "motion_modules")
        values[new] = values.pop(name)


def _integers(values: Tensors) -> None:
    values["conv_in.weight"] = values["conv_in.weight"].astype(np.int8)


def _with_nan(values: Tensors) -> None:
    values["decoder.conv_out.bias"][0] = np.nan


MARKER = np.zeros((0,), np.float32)
CASES: Mapping[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "empty folder": (
        lambda folder: [shutil.rmtree(folder), folder.mkdir()],
        ("is an empty folder; expected a Hotshot-XL checkpoint",),
    ),
    "half the components": (
        lambda folder: [shutil.rmtree(folder / name) for name in ("vae", "text_encoder_2")],
        ("lacks the folders vae/, text_encoder_2/", "Download the model again"),
    ),
    "marker keys of a single file": (
        _with(UNET, v_pred=MARKER, ztsnr=MARKER),
        ("2 not part of the model: v_pred, ztsnr",),
    ),
    "inpainting": (
        lambda folder: change_json(folder / "unet" / "config.json", in_channels=9),
        ("is an inpainting model (its UNet takes 9 channels)",),
    ),
    "refiner": (
        lambda folder: change_json(
            folder / "unet" / "config.json",
            cross_attention_dim=1280,
            block_out_channels=[384, 768, 1536, 1536],
        ),
        ("is the SDXL refiner",),
    ),
    "quantised by its tensors": (
        _with(UNET, **{"conv_in.weight.absmax": np.ones(4, np.float32)}),
        (UNET, "is quantised with bitsandbytes 4-bit", "use the float16"),
    ),
    "quantised by its configuration": (
        lambda folder: change_json(
            folder / "unet" / "config.json", quantization_config={"quant_method": "gptq"}
        ),
        ("unet/config.json describes quantised weights (gptq)",),
    ),
    "quantised by its type": (
        lambda folder: change_tensors(folder / UNET, _integers),
        (UNET, "'conv_in.weight' are not floating-point numbers but int8"),
    ),
    "temporal layers of another model": (
        lambda folder: change_tensors(folder / UNET, _other_temporal_layers),
        ("unet", "no temporal layers"),
    ),
    "positional table of another length": (
        _table(np.zeros((1, 32, 32), np.float32)),
        (UNET, TABLE, "shape [1, 32, 32]; the model's is [1, 24, channels]", "another model"),
    ),
    "positional table with other values": (
        _table(np.zeros((1, 24, 32), np.float32)),
        (UNET, TABLE, "differs from the sinusoids of Hotshot-XL by 1", "another model"),
    ),
    "averaged weights among the weights": (
        _with(UNET, **{"model_ema.conv_in.weight": np.ones(3, np.float32)}),
        ("1 not part of the model: model_ema.conv_in.weight",),
    ),
    "optimiser states among the weights": (
        _with(VAE, **{"state.0.exp_avg": np.ones(3, np.float32)}),
        ("1 not part of the model: state.0.exp_avg",),
    ),
    "several things at once": (
        lambda folder: [
            _with(VAE, extra=np.ones(2, np.float32))(folder),
            change_tensors(
                folder / VAE,
                lambda values: [
                    values.pop("quant_conv.bias"),
                    values.update({"conv_out.bias": values.pop("encoder.conv_out.bias")}),
                    values.update({"decoder.conv_out.bias": values["decoder.conv_out.bias"][:1]}),
                ],
            ),
        ],
        (
            "2 missing: encoder.conv_out.bias, quant_conv.bias",
            "2 not part of the model: conv_out.bias, extra",
            "1 of the wrong shape: decoder.conv_out.bias [1], expected [3]",
        ),
    ),
    "the last of the models": (
        lambda folder: change_json(folder / "text_encoder_2" / "config.json", hidden_act="relu6"),
        ("text_encoder_2/config.json", "hidden_act"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_sources(convert: Infer, tmp_path: Path, tiny_checkpoint: Path, case: str) -> None:
    change, expected = CASES[case]
    source = copy_of(tiny_checkpoint, tmp_path / "source")
    change(source)
    before = everything(tmp_path)
    run = convert(source, tmp_path / "new" / "dest")
    assert_refused(run, 1, *expected)
    # Nothing was read, let alone written, before it was refused.
    assert "B/s" not in run.stderr.replace("?B/s", "")
    assert everything(tmp_path) == before


def test_a_value_that_is_not_finite(convert: Infer, tmp_path: Path, tiny_checkpoint: Path) -> None:
    source = copy_of(tiny_checkpoint, tmp_path / "source")
    change_tensors(source / VAE, _with_nan)
    before = everything(tmp_path)
    run = convert(source, tmp_path / "new" / "dest")
    assert_refused(run, 1, VAE, "decoder.conv_out.bias: 1 of 3 values are NaN or infinite")
    assert everything(tmp_path) == before


def test_not_enough_memory(
    convert: Infer, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "available_memory", lambda: 1000)
    run = convert(tiny_checkpoint, tmp_path / "dest")
    assert_refused(run, 1, "Not enough memory", "are free", "use another machine")
    assert everything(tmp_path) == {}


def test_not_enough_disk(
    convert: Infer, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        free: int

    # Enough for float16, not for the float32 of the source.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(6 * 10**6 + 64 * 2**20))
    run = convert(tiny_checkpoint, tmp_path / "new" / "dest")
    assert_refused(
        run, 1, f"not enough space for {tmp_path / 'new' / 'dest'}", "choose another disk"
    )
    assert everything(tmp_path) == {}
    assert convert(tiny_checkpoint, tmp_path / "dest", "--dtype", "f16").status == 0


def test_a_disk_that_fills_up(
    convert: Infer, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_up(path: Path, _: Any) -> None:
        (path.parent / f"{path.name}.orbax-checkpoint-tmp").mkdir()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(orbax, "save", fill_up)
    run = convert(tiny_checkpoint, tmp_path / "dest")
    assert_refused(run, 1, "the disk is full", "free some space and run again")
    assert everything(tmp_path) == {}


@pytest.fixture(scope="module")
def whole(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small checkpoint, converted; read-only by agreement."""
    dest = tmp_path_factory.mktemp("converted") / "tiny"
    assert convert_command.main([str(tiny_checkpoint), str(dest)]) == 0
    return dest


def test_what_is_converted_already(convert: Infer, tmp_path: Path, whole: Path) -> None:
    dest = tmp_path / "dest"
    assert_refused(convert(whole, dest), 2, "is converted already; --to-torch goes the other way")
    run = convert(whole, dest, "--to-torch", "--dtype", "f16")
    assert_refused(run, 2, "--dtype has no effect with --to-torch")
    assert_refused(convert(whole, whole, "--to-torch"), 2, "are the same folder")
    assert everything(tmp_path) == {}


def _largest(folder: Path) -> Path:
    return max(
        (file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size
    )


DAMAGES: Mapping[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "a newer format": (
        lambda folder: change_json(folder / "hotshot_jax.json", format=99),
        ("hotshot_jax.json: format 99, this version reads 1", "convert the checkpoint again"),
    ),
    "marker not JSON": (
        lambda folder: replace(folder / "hotshot_jax.json", b"{"),
        ("hotshot_jax.json is not valid JSON",),
    ),
    "marker of another form": (
        lambda folder: change_json(folder / "hotshot_jax.json", dtypes=[]),
        ("hotshot_jax.json", "dtypes", "convert the checkpoint again"),
    ),
    "weights missing": (
        lambda folder: shutil.rmtree(folder / "vae" / "weights"),
        ("vae/weights does not exist",),
    ),
    "a file missing": (
        lambda folder: _largest(folder / "unet" / "weights").unlink(),
        ("unet/weights", "is missing", "convert the model again"),
    ),
    "a file cut short": (
        lambda folder: replace(_largest(folder / "unet" / "weights"), b"short"),
        ("unet/weights", "has 5 bytes instead of", "convert the model again"),
    ),
    "weights of another configuration": (
        lambda folder: change_json(folder / "vae" / "config.json", latent_channels=8),
        ("vae/weights does not fit the model that its configuration describes",),
    ),
    "tokenizer missing": (
        lambda folder: shutil.rmtree(folder / "tokenizer"),
        ("tokenizer lacks vocab.json and merges.txt",),
    ),
    "scheduler without its name": (
        lambda folder: [
            change_json(folder / "scheduler" / "scheduler_config.json", _class_name=...),
            change_json(folder / "model_index.json", scheduler=...),
        ],
        ("scheduler_config.json lacks '_class_name'",),
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_converted_checkpoints_that_are_damaged(
    convert: Infer, infer: Infer, tmp_path: Path, whole: Path, case: str
) -> None:
    damage, expected = DAMAGES[case]
    folder = copy_of(whole, tmp_path / "converted")
    damage(folder)
    before = everything(tmp_path)
    run = infer("--pretrained_path", folder, "--output", tmp_path / "a.gif")
    assert_refused_at_once(run, 1, *expected)
    assert_refused(convert(folder, tmp_path / "dest", "--to-torch"), 1, *expected)
    assert everything(tmp_path) == before
