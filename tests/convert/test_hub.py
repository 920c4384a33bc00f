"""From a path or Hub id to a folder, against a Hub on this machine and against caches alone."""

import collections
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from checkpoint_folders import tensors, write_checkpoint
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars
from local_hub import COMMIT, LocalHub, files_of, serve, write_cache
from safetensors.numpy import save_file

from hotshot_jax.convert import hub
from hotshot_jax.convert.formats.diffusers_folder import open_diffusers_folder
from hotshot_jax.convert.hub import HubId, checkpoint_files, parse_hub_id, resolve
from hotshot_jax.errors import HotshotError, UsageError
from tests.other_models import change_json

DiskUsage = collections.namedtuple("DiskUsage", "total used free")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint with much beside what is needed."""
    folder = write_checkpoint(tmp_path / "published")
    for component in ("unet", "vae"):
        save_file(
            tensors(component, np.float16),
            folder / component / "diffusion_pytorch_model.fp16.safetensors",
        )
    for name in (
        "unet/diffusion_pytorch_model.bin",
        "unet/model.onnx",
        "unet/openvino_model.xml",
        "unet/diffusion_flax_model.msgpack",
        "vae_1_0/diffusion_pytorch_model.safetensors",
        "safety_checker/model.safetensors",
        "hsxl_temporal_layers.safetensors",
        "sd_xl_base_1.0.safetensors",
        "README.md",
        "optimizer.bin",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"unneeded " + name.encode())
    return folder


@pytest.fixture
def online(cache: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with serve(LocalHub(files_of(checkpoint))) as local_hub:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", local_hub.url)
        template = local_hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        disable_progress_bars()
        yield local_hub
        enable_progress_bars()


@pytest.mark.parametrize("kind", ["folder", "file", "relative", "link"])
def test_what_exists_locally_wins(cache: Path, tmp_path: Path, kind: str) -> None:
    write_cache(cache, {"model_index.json": b"{}"})
    (tmp_path / "org" / "model").mkdir(parents=True)
    (tmp_path / "file.safetensors").touch()
    (tmp_path / "link").symlink_to("org/model")
    source = {
        "folder": tmp_path / "org" / "model",
        "file": tmp_path / "file.safetensors",
        "relative": "org/model",
        "link": tmp_path / "link",
    }[kind]
    assert resolve(source) == Path(source)


def test_home_folder(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert resolve("~/model") == tmp_path / "model"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/model", HubId("org/model")),
        ("org/model@fp16", HubId("org/model", "fp16")),
        ("org/model@refs/pr/95", HubId("org/model", "refs/pr/95")),
        (f"org/model@{COMMIT}", HubId("org/model", COMMIT)),
        ("Org-1/model_x.y-2", HubId("Org-1/model_x.y-2")),
        # With a revision it cannot be meant as a path.
        ("models/hotshot@main", HubId("models/hotshot", "main")),
    ],
)
def test_hub_ids(cache: Path, text: str, expected: HubId) -> None:
    assert parse_hub_id(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    [
        "hotshot-xl",
        "/models/hotshot",
        "./hotshot",
        "../hotshot",
        "~/hotshot",
        "a/b/c",
        "models/hotshot",
        "org/model/",
        "org/model@",
        "C:\\models\\hotshot",
        "org/model.safetensors",
        "org/lora.ckpt",
        "",
        "org/my model",
    ],
)
def test_a_local_path_with_a_slip_is_not_asked_of_the_hub(
    cache: Path, tmp_path: Path, text: str
) -> None:
    (tmp_path / "models").mkdir()
    with pytest.raises(UsageError, match="does not exist; expected a path on this machine"):
        resolve(text) if text else parse_hub_id(text)


def test_download_takes_what_is_needed(online: LocalHub, cache: Path) -> None:
    folder = resolve("org/model")
    assert folder == cache / "models--org--model" / "snapshots" / COMMIT
    assert (folder / "unet" / "config.json").is_symlink()
    opened = open_diffusers_folder(folder)
    np.testing.assert_array_equal(
        opened.unet.tensors.read("first.weight"), tensors("unet")["first.weight"]
    )
    assert set(files_of(folder)) == {
        name
        for name, content in online.files.items()
        if not content.startswith(b"unneeded") and ".fp16." not in name
    }
    # Small files first, so that another model is refused before its weights are fetched.
    is_weight = [name.endswith(".safetensors") for name in online.downloaded]
    assert is_weight == sorted(is_weight)


def test_download_of_a_variant(online: LocalHub) -> None:
    folder = resolve("org/model", variant="fp16")
    weights = {name for name in files_of(folder) if name.endswith(".safetensors")}
    assert weights == {
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "text_encoder/model.safetensors",
        "text_encoder_2/model.safetensors",
    }
    assert open_diffusers_folder(folder, variant="fp16").unet.variant == "fp16"


def test_what_is_cached_is_not_downloaded_again(
    online: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = resolve("org/model")
    online.downloaded.clear()
    assert resolve("org/model@main") == folder
    assert online.downloaded == []
    # The Hub being away, or offline mode, makes no difference to what is there.
    online.refusal = (503, "")
    monkeypatch.setattr(hub.HfApi, "model_info", _raise(ConnectionError("refused")))
    assert resolve("org/model") == folder
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve("org/model") == folder


def test_revision(online: LocalHub) -> None:
    assert resolve("org/model@v2").name == COMMIT
    assert resolve(f"org/model@{COMMIT}").name == COMMIT
    with pytest.raises(HotshotError, match="org/model has no branch, tag or commit 'v3'"):
        resolve("org/model@v3")


def test_selected_files(online: LocalHub) -> None:
    folder = resolve(
        "org/model", select=lambda names: [name for name in names if name.startswith("hsxl")]
    )
    assert online.downloaded == ["hsxl_temporal_layers.safetensors"]
    assert (folder / "hsxl_temporal_layers.safetensors").exists()


def test_another_model_is_refused_before_its_weights(online: LocalHub, checkpoint: Path) -> None:
    change_json(checkpoint / "unet" / "config.json", in_channels=9)
    online.files = files_of(checkpoint)
    with pytest.raises(HotshotError, match="is an inpainting model"):
        resolve("org/model")
    assert not any(name.endswith(".safetensors") for name in online.downloaded)


def test_repository_that_is_no_checkpoint(online: LocalHub) -> None:
    online.files = {"lora.safetensors": b"x"}
    with pytest.raises(HotshotError, match=r"repository org/model has no model_index.json"):
        resolve("org/model")


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        ((404, "RepoNotFound"), "the Hub has no repository 'org/model'.*check the spelling"),
        ((401, "RepoNotFound"), "the Hub has no repository 'org/model'.*hf auth login"),
        (
            (403, "GatedRepo"),
            "asks for an agreement: accept it on https://huggingface.co/org/model",
        ),
        ((500, ""), "answered with status 500 for org/model; try again later"),
    ],
)
def test_refusals_of_the_hub(online: LocalHub, refusal: tuple[int, str], expected: str) -> None:
    online.refusal = refusal
    with pytest.raises(HotshotError, match=expected):
        resolve("org/model")


def test_no_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serve(LocalHub({})) as closed:
        monkeypatch.setattr(constants, "ENDPOINT", closed.url)
    with pytest.raises(HotshotError, match=r"cannot be reached for org/model .*check the network"):
        resolve("org/model")


def test_offline_and_not_cached(cache: Path) -> None:
    with pytest.raises(
        HotshotError, match=r"org/model is not in the cache .*HF_HUB_OFFLINE is set"
    ):
        resolve("org/model")


def test_offline_and_cached(cache: Path, checkpoint: Path) -> None:
    snapshot = write_cache(cache, files_of(checkpoint))
    assert resolve("org/model") == snapshot
    assert resolve(f"org/model@{COMMIT}") == snapshot
    assert open_diffusers_folder(snapshot).unet.has_temporal_layers
    with pytest.raises(HotshotError, match="org/model@v2 is not in the cache"):
        resolve("org/model@v2")


def test_offline_and_cached_in_part_names_what_is_missing(cache: Path, checkpoint: Path) -> None:
    files = files_of(checkpoint)
    kept = {name: files[name] for name in files if not name.startswith("vae/")}
    with pytest.raises(HotshotError, match="lacks the folder vae/"):
        open_diffusers_folder(resolve(write_cache(cache, kept)))


def test_offline_by_the_environment(checkpoint: Path, tmp_path: Path) -> None:
    snapshot = write_cache(tmp_path / "home" / "hub", files_of(checkpoint))
    code = "import sys; from hotshot_jax.convert.hub import resolve; print(resolve(sys.argv[1]))"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", code, "org/model"],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()) == snapshot


def test_too_little_room_is_said_before_downloading(
    online: LocalHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: DiskUsage(10, 10, 100))
    with pytest.raises(HotshotError, match=f"not enough space for {cache}"):
        resolve("org/model")
    assert online.downloaded == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk is full.*set HF_HOME"),
        (RuntimeError("IO Error: No space left on device (os error 28)"), "disk is full"),
        (PermissionError(errno.EACCES, "Permission denied"), "cannot be written; set HF_HOME"),
        (RuntimeError("CAS service error"), "cannot be reached .*a download goes on"),
    ],
)
def test_failures_while_downloading(
    online: LocalHub, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: str
) -> None:
    monkeypatch.setattr(hub, "snapshot_download", _raise(error))
    with pytest.raises(HotshotError, match=expected):
        resolve("org/model")


def test_files_of_a_sharded_listing() -> None:
    stem = "unet/diffusion_pytorch_model"
    names = [
        "model_index.json",
        f"{stem}.safetensors.index.fp16.json",
        f"{stem}.fp16-00001-of-00002.safetensors",
        f"{stem}.fp16-00002-of-00002.safetensors",
        f"{stem}.safetensors.index.json",
        f"{stem}-00001-of-00002.safetensors",
        f"{stem}-00002-of-00002.safetensors",
        "text_encoder/model.fp16.safetensors",
        "text_encoder_2/model.safetensors",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "tokenizer_3/vocab.json",
        "scheduler/scheduler_config.json",
    ]
    common = {
        "model_index.json",
        "text_encoder/model.fp16.safetensors",
        "text_encoder_2/model.safetensors",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "scheduler/scheduler_config.json",
    }
    assert set(checkpoint_files(names, "fp16")) == common | set(names[1:4])
    assert set(checkpoint_files(names, None)) == common | set(names[4:7])


def _raise(error: Exception):
    def function(*args: object, **options: object) -> None:
        raise error

    return function
