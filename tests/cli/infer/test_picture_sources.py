"""A picture given to `--config` says what to draw, not what to read, fetch or run."""

import json
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest

from hotshot_jax.cli.infer.arguments import parse_settings
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.cli.infer.stored_settings import (
    SOURCES,
    STORED,
    argument_text,
    check_not_replaced,
    digest,
    digests,
    public_name,
    public_settings,
    source_flags,
)
from hotshot_jax.errors import UsageError
from hotshot_jax.media.write import write_video

FRAMES = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
ATTACKS = {
    "prompts_file": "/etc/passwd",
    "pretrained_path": "someone/model",
    "spatial_unet_base": "someone/model",
    "base": "someone/model",
    "temporal": "someone/model",
    "vae": "someone/model",
    "lora": ["someone/lora:0.8"],
    "embedding": ["someone/word"],
    "gif": ["http://192.168.0.1/secret?token=1"],
    "controlnet": ["someone/net"],
    "depth_checkpoint": "someone/code",
    "video": "http://192.168.0.1/secret?token=1",
    "extend": "http://192.168.0.1/secret?token=1",
    "mask": "/etc/mask.png",
    "frame_at": ["3: /home/someone/cat.png"],
    "first_frame": "/home/someone/cat.png",
    "last_frame": "/home/someone/cat.png",
}


def write_picture(folder: Path, read: dict | None = None, **settings: object) -> Path:
    metadata = {STORED: json.dumps({"prompt": "a fox", **settings})}
    if read is not None:
        metadata[SOURCES] = json.dumps(read)
    return write_video(folder / "a.gif", FRAMES, 1000, metadata, overwrite=True)


def parsed(*arguments: str | Path) -> InferSettings:
    return parse_settings([str(each) for each in arguments])


def test_every_source_is_attacked() -> None:
    assert set(ATTACKS) == set(source_flags(InferSettings))


@pytest.mark.parametrize("name", ATTACKS)
def test_a_picture_names_nothing_to_read(tmp_path: Path, name: str) -> None:
    picture = write_picture(tmp_path, **{name: ATTACKS[name]})
    (value,) = ATTACKS[name] if isinstance(ATTACKS[name], list) else [ATTACKS[name]]
    with pytest.raises(UsageError) as refused:
        parsed("--config", picture)
    message, flags = str(refused.value).split("\n")
    assert "--trust_config" in message
    assert shlex.split(flags) == [f"--{name}", value]
    # Repeated as the message has it, and trusted, it is the same run.
    again = parsed("--config", picture, *shlex.split(flags))
    trusted = parsed("--config", picture, "--trust_config")
    assert again.stored() == trusted.stored()
    assert value in str(getattr(again, name))
    # What a person wrote stays as it is.
    (tmp_path / "a.json").write_text(json.dumps({name: ATTACKS[name]}))
    assert getattr(parsed("--config", tmp_path / "a.json"), name) == getattr(again, name)


def test_only_what_is_missing_is_asked_for(tmp_path: Path) -> None:
    picture = write_picture(tmp_path, pretrained_path="a/b", lora=["c/d:0.5", "e/f"], steps=7)
    with pytest.raises(UsageError) as refused:
        parsed("--config", picture, "--model", "a/b")
    assert str(refused.value).split("\n")[1] == "--lora c/d:0.5 --lora e/f"


def test_a_result_of_the_built_in_model_names_nothing(tmp_path: Path) -> None:
    settings = parsed("--steps", "7")
    assert public_settings(InferSettings, settings.stored()) == settings.stored()
    assert digests(InferSettings, settings.stored(), InferSettings()) == {}
    assert parsed("--config", write_picture(tmp_path, **settings.stored())) == parsed(
        "--steps", "7", "--prompt", settings.prompt
    )


@pytest.mark.parametrize(
    "value",
    ["a b", "it's", "$(reboot)", "a\x1b[2Jb", "\u202e", "-rf", "\ud800", "a\nb", "é\x07'\\"],
)
def test_flags_to_copy_are_safe_and_say_the_same(value: str) -> None:
    text = argument_text("lora", value)
    assert text.isprintable()
    if value.isprintable() or value.isascii():
        script = f"printf '%s\\0' {text}"
        told = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
        words = told.stdout.decode().rstrip("\0").split("\0")
        assert words in ([f"--lora={value}"], ["--lora", value])


@pytest.mark.parametrize("flags", [["--trust_config"], ["--config", "a.yaml", "--trust_config"]])
def test_trust_without_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("steps: 3")
    with pytest.raises(UsageError, match="--trust_config is for a picture"):
        parsed(*flags)


@pytest.mark.parametrize(
    ("name", "argument", "public"),
    [
        ("lora", "{}/style.safetensors", "style.safetensors"),
        ("lora", "{}/style.safetensors:0.8", "style.safetensors:0.8"),
        ("embedding", "{}/style.safetensors:word", "style.safetensors:word"),
        ("pretrained_path", "{}/", "{name}"),
        ("pretrained_path", "org/model@main", "org/model@main"),
        ("gif", "https://user:pass@host:81/a/b.gif?X-Sig=1#f", "https://host:81/a/b.gif"),
        ("gif", "http://[::1", "http://"),
        ("gif", "http://[2001:db8::1]/a.gif", "http://[2001:db8::1]/a.gif"),
    ],
)
def test_names_tell_no_folder_and_no_secret(
    tmp_path: Path, name: str, argument: str, public: str
) -> None:
    (tmp_path / "style.safetensors").write_bytes(b"x")
    expected = public.replace("{name}", tmp_path.name)
    assert public_name(name, argument.replace("{}", str(tmp_path))) == expected


def test_a_digest_tells_files_of_one_name_and_size_apart(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    large = bytearray(20 << 20)
    seen = set()
    for position in (None, 0, len(large) // 3 * 2 + 4096, len(large) - 1):
        changed = bytes(large)
        if position is not None:
            # Other weights differ everywhere, so in any piece that is looked at.
            changed = changed[:position] + b"\1" * min(2 << 20, len(large) - position)
            changed += bytes(len(large) - len(changed))
        file.write_bytes(changed)
        seen.add(digest(str(file)))
    small = tmp_path / "small"
    for content in (b"", b"a", b"b"):
        small.write_bytes(content)
        seen.add(digest(str(small)))
    seen.add(digest(str(tmp_path)))
    (tmp_path / "another").touch()
    seen.add(digest(str(tmp_path)))
    assert len(seen) == 9
    assert digest("no/such") == digest("https://host/a.gif") == ""


def test_another_file_of_the_name_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    style = tmp_path / "style.safetensors"
    style.write_bytes(b"one")
    read = {"lora": [digest(str(style))]}
    picture = write_picture(tmp_path, read, lora=["style.safetensors:0.8"])
    parsed("--config", picture, "--lora", f"{style}:0.8")
    assert caplog.text == ""
    style.write_bytes(b"two")
    parsed("--config", picture, "--lora", f"{style}:0.8")
    assert "is not what --config" in caplog.text
    caplog.clear()
    parsed("--config", picture, "--lora", f"{style}:0.5")
    assert "was made with --lora style.safetensors:0.8, which is not given" in caplog.text


@pytest.mark.parametrize("digests", ["[]", '{"lora": 5}', '{"lora": [[1]]}', "{"])
def test_damaged_digests(tmp_path: Path, digests: str) -> None:
    metadata = {STORED: json.dumps({"lora": ["a/b"]}), SOURCES: digests}
    picture = write_video(tmp_path / "a.gif", FRAMES, 1000, metadata)
    if digests == "{":
        with pytest.raises(UsageError, match="damaged"):
            parsed("--config", picture, "--lora", "a/b")
    else:
        assert parsed("--config", picture, "--lora", "a/b").lora == ("a/b",)


@pytest.mark.parametrize("way", ["plain", "link", "hard link"])
@pytest.mark.parametrize("name", ["gif", "lora", "pretrained_path", "prompts_file"])
def test_an_output_replaces_nothing_that_is_read(tmp_path: Path, way: str, name: str) -> None:
    picture = write_picture(tmp_path)
    output = picture if way == "plain" else tmp_path / "b.gif"
    if way == "link":
        output.symlink_to(picture)
    elif way == "hard link":
        output.hardlink_to(picture)
    value = (str(picture),) if name in ("gif", "lora") else str(picture)
    settings = InferSettings(**{name: value})
    with pytest.raises(UsageError, match=rf"--output .* is what --{name} reads"):
        check_not_replaced(settings, {"--output": [str(output)]})
    with pytest.raises(UsageError, match=r"--save_control .* is what --config reads"):
        check_not_replaced(InferSettings(), {"--save_control": [str(output)]}, str(picture))
    check_not_replaced(settings, {"--output": [str(tmp_path / "new.gif")]}, str(picture))


def test_a_frame_of_the_clip_is_not_replaced(tmp_path: Path) -> None:
    write_video(tmp_path / "clip", FRAMES, 1000, {})
    settings = InferSettings(gif=(str(tmp_path / "clip"),))
    for output in ("clip", "clip/frame_0000.png", "."):
        with pytest.raises(UsageError, match="what --gif reads"):
            check_not_replaced(settings, {"--output": [str(tmp_path / output)]})
