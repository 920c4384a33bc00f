"""Small files that take much, hold much, or never end: a sentence at once, whatever reads them."""

import io
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from hotshot_jax.cli.data.inspect import inspect_data
from hotshot_jax.cli.infer.arguments import completed
from hotshot_jax.cli.infer.control import plan_control
from hotshot_jax.cli.infer.outputs import read_prompts
from hotshot_jax.cli.infer.prompts import check_prompts
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.cli.run import run
from hotshot_jax.conditioning.text.embedding_files import open_embeddings
from hotshot_jax.convert.assembly import open_assembled
from hotshot_jax.data.origins import VideoOrigin
from hotshot_jax.lora.read import open_lora
from hotshot_jax.media.reading.clip import Clip
from hotshot_jax.media.reading.read import open_clip, read_key_frames
from tests.lora.lora_cases import names

DIGITS = "9" * 5000
WIDTHS = {"text_encoder": 16, "text_encoder_2": 24}


def _riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(
        n + len(c).to_bytes(4, "little") + c + b"\0" * (len(c) % 2) for n, c in chunks
    )
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def _webp_of_many_large_frames(count: int = 300) -> bytes:
    """One frame of 8192 x 8192, announced again and again."""
    still = io.BytesIO()
    Image.new("RGB", (8192, 8192)).save(still, "WEBP", lossless=True, quality=0, method=0)
    data = still.getvalue()[12:]
    side = (8191).to_bytes(3, "little")
    frame = (b"ANMF", bytes(6) + side + side + (100).to_bytes(3, "little") + b"\2" + data)
    header = (b"VP8X", bytes([2, 0, 0, 0]) + side + side)
    return _riff(header, (b"ANIM", bytes(6)), *[frame] * count)


def _gif_of_frames_beyond_the_canvas() -> bytes:
    """A canvas of 8 x 8, with 200 frames of 8000 x 8000, each of no pixels at all."""
    frame = b"\x2c" + bytes(4) + (8000).to_bytes(2, "little") * 2 + b"\0\x02\x01\x2c\0"
    return b"GIF89a\x08\0\x08\0\x80\0\0" + bytes(6) + frame * 200 + b";"


def _png_of_deep_settings() -> bytes:
    info = PngImagePlugin.PngInfo()
    deep = '{"a":' * 50_000
    info.add_text("hotshot_jax", json.dumps({"hotshot_jax": {"settings": deep}}))
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG", pnginfo=info)
    return out.getvalue()


def _safetensors(header: str) -> bytes:
    return len(header).to_bytes(8, "little") + header.encode()


def _lora_header(value: str) -> bytes:
    return _safetensors(json.dumps({"__metadata__": {"lora_adapter_metadata": value}}))


FILES: dict[str, Callable[[], bytes]] = {
    "frames.webp": _webp_of_many_large_frames,
    "frames.gif": _gif_of_frames_beyond_the_canvas,
    "deep.png": _png_of_deep_settings,
    "digits.json": lambda: f'{{"steps": {DIGITS}}}'.encode(),
    "float.json": lambda: f'{{"guidance_scale": 1{"0" * 400}}}'.encode(),
    "digits.yaml": lambda: f"steps: 0x{'f' * 5000}".encode(),
    "deep.yaml": lambda: b"a: " + b"[" * 5000,
    "deep.json": lambda: b'{"a":' * 100_000,
    "latin.yaml": lambda: b"prompt: caf\xe9",
    "digits.safetensors": lambda: _safetensors(f'{{"__metadata__": {DIGITS}}}'),
    "tensor.safetensors": lambda: _safetensors(f'{{"clip_g": {DIGITS}}}'),
    "dimensions.safetensors": lambda: (
        _safetensors(json.dumps({"a": {"dtype": "F32", "shape": [1] * 70, "data_offsets": [0, 4]}}))
        + bytes(4)
    ),
    "no_values.safetensors": lambda: _safetensors(
        json.dumps({"a": {"dtype": "F32", "shape": [2**62, 0, 2**62], "data_offsets": [0, 0]}})
    ),
    "tensors.safetensors": lambda: _safetensors(
        json.dumps({f"{n}": {"dtype": "F32", "data_offsets": [0, 0]} for n in range(200_000)})
    ),
    "metadata.safetensors": lambda: _lora_header(f'{{"unet.r": {DIGITS}}}'),
    "deep.safetensors": lambda: _lora_header("[" * 100_000),
}  # fmt: skip

READERS: dict[str, Callable[[Path], object]] = {
    "clip": open_clip,
    "config": lambda path: completed({"config": str(path)}),
    "lora": lambda path: open_lora(path, names()),
    "embedding": lambda path: open_embeddings([(str(path), "w")], WIDTHS),
    "model": lambda path: open_assembled(str(path)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    for name, content in FILES.items():
        (folder / name).write_bytes(content())
    os.mkfifo(folder / "pipe.gif")
    return folder


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", [*FILES, "pipe.gif"])
def test_every_reader_refuses_every_file_at_once(
    folder: Path, name: str, reader: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if (name, reader) == ("deep.png", "clip"):
        pytest.skip("a good picture")
    start = time.monotonic()
    status = run("hostile", lambda: READERS[reader](folder / name) and None)
    said = capsys.readouterr().err
    assert status in (1, 2), said
    assert name in said
    assert len(said.strip().splitlines()) <= 2
    assert len(said) < 1000
    assert time.monotonic() - start < 10


def _pipe(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    return path


PIPES: dict[str, Callable[[Path], object]] = {
    "prompts": lambda at: read_prompts(InferSettings(prompts_file=str(_pipe(at / "p.txt")))),
    "settings": lambda at: completed({"config": str(_pipe(at / "a.yaml"))}),
    "result": lambda at: completed({"config": str(_pipe(at / "a.mp4"))}),
    "frames": lambda at: (_pipe(at / "f/0.png"), open_clip(at / "f")),
    "clip": lambda at: plan_control(
        InferSettings(control_type=("canny",), gif=(str(_pipe(at / "a.gif")),))
    ),
    "lora": lambda at: open_lora(_pipe(at / "a.safetensors"), names()),
    "adapter": lambda at: (_pipe(at / "l/adapter_model.safetensors"), open_lora(at / "l", names())),
    "model": lambda at: (_pipe(at / "m/model_index.json"), open_assembled(str(at / "m"))),
    "data": lambda at: (_pipe(at / "d/s/0.jpg"), inspect_data(str(at / "d"), 1, 32, 1)),
    "videos": lambda at: (_pipe(at / "v/a.gif"), VideoOrigin(at / "v").clips("a.gif")),
}


@pytest.mark.parametrize("kind", PIPES)
def test_named_pipes_are_waited_for_by_nobody(kind: str, tmp_path: Path) -> None:
    start = time.monotonic()
    assert run("hostile", lambda: PIPES[kind](tmp_path) and None) in (0, 1, 2)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (
            b"a caf\xe9".decode(errors="surrogateescape"),
            r"--prompt is not UTF-8 text \(character 6",
        ),
        ("\ud800", "not UTF-8"),
        ("word " * 80_000, "400000 bytes, at most 65536"),
        ("(" * 8000 + "a" + ")" * 8000, "bracket"),
    ],
)
def test_prompts_that_nobody_means(prompt: str, expected: str, capsys) -> None:
    status = run("hostile", lambda: check_prompts(InferSettings(prompt=prompt), [prompt]))
    said = capsys.readouterr().err
    assert status == 2
    assert re.search(expected, said), said[:500]
    assert len(said) < 5000


def test_a_still_picture_is_decoded_once_however_long_the_clip() -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    clip = Clip(Path("a.png"), 4, 4, (0.0,), True, lambda indices: [picture])
    frames = read_key_frames(clip, 24, 1000)
    assert frames.shape == (24, 4, 4, 3)
    assert frames.strides[0] == 0
