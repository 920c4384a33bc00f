import json
import pickle

import pytest
from lora_cases import names, normal, write

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.lora import open_lora, parse_lora, select_lora_files

QUERY = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
TENSORS = {
    f"base_model.model.{QUERY}.lora_A.weight": normal(3, 64),
    f"base_model.model.{QUERY}.lora_B.weight": normal(64, 3),
}


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("style.safetensors", ("style.safetensors", 1.0)),
        ("style.safetensors:0.6", ("style.safetensors", 0.6)),
        ("style.safetensors:-1", ("style.safetensors", -1.0)),
        ("org/name:0", ("org/name", 0.0)),
        ("org/name@main", ("org/name@main", 1.0)),
    ],
)
def test_path_and_scale(argument, expected):
    assert parse_lora(argument) == expected


def test_a_file_with_a_colon_in_its_name(tmp_path):
    path = tmp_path / "a:b.safetensors"
    path.write_bytes(b"")
    assert parse_lora(str(path)) == (str(path), 1.0)
    assert parse_lora(f"{path}:0.5") == (str(path), 0.5)


@pytest.mark.parametrize("scale", ["x", "", "nan", "inf", "0,5", "1e999"])
def test_scale_that_is_no_number(scale):
    with pytest.raises(UsageError, match=f"'{scale}' is not a scale"):
        parse_lora(f"style.safetensors:{scale}")


def test_folder_of_peft_takes_its_configuration(tmp_path):
    write(tmp_path / "adapter_model.safetensors", TENSORS)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 3, "lora_alpha": 6}))
    (change,) = open_lora(tmp_path, names()).changes["unet"][f"{QUERY}.weight"]
    assert change.difference.scaling == 2.0
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(HotshotError, match=r"adapter_config\.json"):
        open_lora(tmp_path, names())


@pytest.mark.parametrize("name", ["pytorch_lora_weights.safetensors", "anything.safetensors"])
def test_folder_with_one_file(tmp_path, name):
    write(tmp_path / name, TENSORS)
    assert open_lora(tmp_path, names()).path.name == name


def test_folder_with_a_choice_of_files(tmp_path):
    for name in ("a.safetensors", "b.safetensors"):
        write(tmp_path / name, TENSORS)
    with pytest.raises(HotshotError, match=r"2 files \(a\.safetensors, b\.safetensors\)"):
        open_lora(tmp_path, names())


@pytest.mark.parametrize("name", ["lora.bin", "lora.pt", "lora.ckpt"])
@pytest.mark.parametrize("folder", [True, False])
def test_a_pickle_is_not_opened(tmp_path, name, folder):
    class Payload:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    path = tmp_path / name
    path.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(HotshotError, match="pickle"):
        open_lora(tmp_path if folder else path, names())
    assert not (tmp_path / "ran").exists()


def test_a_pickle_by_another_name(tmp_path):
    path = tmp_path / "lora.safetensors"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(HotshotError, match=r"lora\.safetensors"):
        open_lora(path, names())


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html>", b"\x10\0\0\0\0\0\0\0{}"])
def test_damaged_files(tmp_path, content):
    path = tmp_path / "lora.safetensors"
    path.write_bytes(content)
    with pytest.raises(HotshotError, match=r"lora\.safetensors"):
        open_lora(path, names())


def test_nothing_there(tmp_path):
    with pytest.raises(HotshotError, match="no such LoRA"):
        open_lora(tmp_path / "missing", names())
    with pytest.raises(HotshotError, match=r"no \.safetensors file"):
        open_lora(tmp_path, names())


@pytest.mark.parametrize(
    ("names_there", "expected"),
    [
        (["README.md", "pytorch_lora_weights.safetensors"], ["pytorch_lora_weights.safetensors"]),
        (
            ["adapter_model.safetensors", "adapter_config.json", "other.safetensors"],
            ["adapter_model.safetensors", "adapter_config.json"],
        ),
        (["style.safetensors", "unet/model.safetensors"], ["style.safetensors"]),
    ],
)
def test_files_of_a_repository(names_there, expected):
    assert select_lora_files(names_there) == expected


@pytest.mark.parametrize(
    ("names_there", "message"),
    [(["a.safetensors", "b.safetensors"], "2 files"), (["a.bin"], r"no \.safetensors")],
)
def test_repository_without_one_lora(names_there, message):
    with pytest.raises(HotshotError, match=message):
        select_lora_files(names_there)
