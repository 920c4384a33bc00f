"""`--push_to_hub`, against a Hub on this machine: what is there in the end, and not before."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants

from hotshot_jax.convert.hub_push import check_push, push
from hotshot_jax.errors import HotshotError, UsageError
from tests.hub_server import TOKEN, Hub, Repository, connected

ROOT = Path(__file__).parents[3]
MODEL = "org/model"

# The Hub's client calls its HTTP library in a way that this deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The Hub that this process talks to, logged in."""
    with connected(tmp_path / "hf", monkeypatch) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Something to push: two large files and a small one."""
    made = tmp_path / "export"
    (made / "unet").mkdir(parents=True)
    (made / "unet" / "a.safetensors").write_bytes(b"a" * 4000)
    (made / "unet" / "b.safetensors").write_bytes(b"b" * 4000)
    (made / "unet" / "config.json").write_text("{}")
    return made


def front_matter(repository: Repository) -> dict[str, Any]:
    return yaml.safe_load(repository.files["README.md"].decode().split("---")[1])


def test_all_appears_in_one_commit_the_card_last(hub: Hub, folder: Path) -> None:
    check_push(MODEL)
    assert hub.repositories[MODEL].files == {} and not hub.repositories[MODEL].private
    push(folder, MODEL, {"README.md": b"---\nlicense: mit\n---\n", "clips/0.gif": b"GIF"})
    (commit,) = hub.repositories[MODEL].commits
    assert commit[-1] == "README.md" or set(commit) > {"README.md", "unet/a.safetensors"}
    assert hub.repositories[MODEL].files["unet/b.safetensors"] == b"b" * 4000


def test_a_push_that_broke_off_shows_nothing_and_the_next_goes_on(hub: Hub, folder: Path) -> None:
    check_push(MODEL)
    hub.broken_after = 1
    with pytest.raises(HotshotError, match=r"push_to_hub` org/model: .*\."):
        push(folder, MODEL, {"README.md": b"x"})
    assert hub.repositories[MODEL].files == {} and len(hub.uploads) == 1
    hub.broken_after = None
    check_push(MODEL)
    push(folder, MODEL, {"README.md": b"x"})
    # What was in the storage already is not sent again.
    assert len(hub.uploads) == 2 and "README.md" in hub.repositories[MODEL].files


def test_a_second_push_leaves_no_old_shards(hub: Hub, folder: Path) -> None:
    check_push(MODEL)
    push(folder, MODEL, {"README.md": b"x"})
    (folder / "unet" / "b.safetensors").unlink()
    (folder / "unet" / "c.safetensors").write_bytes(b"c")
    check_push(MODEL)
    push(folder, MODEL, {"README.md": b"y"})
    weights = {name for name in hub.repositories[MODEL].files if name.endswith("tensors")}
    assert weights == {"unet/a.safetensors", "unet/c.safetensors"}


@pytest.mark.parametrize(
    ("repository", "message"),
    [
        ("others/model", "may not write there"),
        ("strangers/model", "may not write there"),
        ("org/model@v2", "expected the id of a repository"),
        ("model", "expected the id of a repository"),
        ("org/mo del", "expected the id of a repository"),
        ("org/--", "no valid id|expected the id"),
    ],
)
def test_where_nobody_may_write(hub: Hub, repository: str, message: str) -> None:
    hub.repositories["others/model"] = Repository()
    with pytest.raises(HotshotError, match=message) as raised:
        check_push(repository)
    assert TOKEN not in str(raised.value)


def test_without_a_login(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HotshotError, match="there is no login"):
        check_push(MODEL)
    monkeypatch.setenv("HF_TOKEN", TOKEN + "x")
    with pytest.raises(HotshotError, match="does not accept the login") as raised:
        check_push(MODEL)
    assert TOKEN not in str(raised.value)
    assert hub.repositories == {}


def test_what_is_there_is_not_replaced(hub: Hub) -> None:
    hub.repositories[MODEL] = Repository(files={"model.bin": b"1"})
    with pytest.raises(HotshotError, match="did not put there"):
        check_push(MODEL)
    hub.repositories[MODEL] = Repository()
    with pytest.raises(UsageError, match="is public"):
        check_push(MODEL, private=True)
    check_push("org/hidden", private=True)
    assert hub.repositories["org/hidden"].private


def test_offline_and_unreachable(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.status = 500
    with pytest.raises(HotshotError, match="status 500"):
        check_push(MODEL)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE"):
        check_push(MODEL)


def test_killed_during_the_upload(hub: Hub, folder: Path) -> None:
    check_push(MODEL)
    hub.stall = True
    program = (
        "import sys; from pathlib import Path; from hotshot_jax.convert.hub_push import push; "
        "push(Path(sys.argv[1]), sys.argv[2], {'README.md': b'x'})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder), MODEL],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "0"},
    )
    try:
        # It only imports before; machines differ.
        assert hub.stalled.wait(300)
    finally:
        process.kill()
        assert process.wait(30) == -signal.SIGKILL
    assert hub.repositories[MODEL].files == {}
    hub.stall = False
    push(folder, MODEL, {"README.md": b"x"})
    assert "README.md" in hub.repositories[MODEL].files


def test_a_lora_with_its_card(hub: Hub, train: Callable[..., Any], tmp_path: Path) -> None:
    run = train(
        *("--train", "lora", "--lora_rank", 2, "--max_train_steps", 2, "--push_to_hub", MODEL),
        *("--trigger_words", "zzz man", "--test_prompts", "a *ball* | a cat"),
        *("--validate_every_steps", 2, "--validation_steps", 1),
    )
    assert run.status == 0, run.stderr
    repository = hub.repositories[MODEL]
    assert (
        repository.files["pytorch_lora_weights.safetensors"]
        == (run.output / "export" / "pytorch_lora_weights.safetensors").read_bytes()
    )
    front = front_matter(repository)
    assert front["pipeline_tag"] == "text-to-video" and "lora" in front["tags"]
    assert front["instance_prompt"] == "zzz man"
    assert [each["text"] for each in front["widget"]] == ["a *ball*", "a cat"]
    assert all(each["output"]["url"] in repository.files for each in front["widget"])
    card = repository.files["README.md"].decode()
    assert "loss.png" in repository.files and "sheet.png" in repository.files
    assert "| lora\\_rank | 2 |" in card and "| steps | 2 |" in card
    # Neither a secret nor anything about this machine.
    for said in (card, run.stderr, (run.output / "config.yaml").read_text()):
        assert TOKEN not in said
    assert str(tmp_path) not in card


def test_a_failing_upload_keeps_the_export(
    hub: Hub, train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.broken_after = 0
    run = train("--train", "lora", "--max_train_steps", 1, "--push_to_hub", MODEL)
    assert run.status == 1
    assert f"hf upload {MODEL} {run.output}/export ." in run.stderr
    assert (run.output / "export" / "pytorch_lora_weights.safetensors").exists()
    assert (run.output / "card" / "README.md").exists()
    assert hub.repositories[MODEL].files == {} and "Traceback" not in run.stderr
    # The same command again: it has nothing to train, and pushes.
    hub.broken_after = None
    again = train("--train", "lora", "--max_train_steps", 1, "--push_to_hub", MODEL)
    assert again.status == 0, again.stderr
    assert "README.md" in hub.repositories[MODEL].files


def test_refused_before_a_model_is_loaded(hub: Hub, train: Callable[..., Any]) -> None:
    started = time.monotonic()
    run = train("--push_to_hub", "strangers/model", "--max_train_steps", 1)
    assert run.status == 1 and "--push_to_hub strangers/model" in run.stderr
    assert not (run.output / "config.yaml").exists() and time.monotonic() - started < 30
