"""What the program reads: each kind with an undamaged example and the reader that meets it."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from hotshot_jax.cli.data.inspect import describe, inspect_data
from hotshot_jax.cli.infer.arguments import completed
from hotshot_jax.cli.infer.outputs import plan_jobs
from hotshot_jax.cli.infer.prompts import check_prompts
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.conditioning.text.embedding_files import open_embeddings
from hotshot_jax.conditioning.text.prompt_weighting import Vocabulary, chunk_prompt, parse_weights
from hotshot_jax.convert.assembly import open_assembled
from hotshot_jax.convert.builders import KINDS
from hotshot_jax.convert.conversion import convert_folder
from hotshot_jax.convert.formats.controlnet_files import open_controlnet
from hotshot_jax.convert.formats.diffusers_folder import open_diffusers_folder
from hotshot_jax.convert.formats.tokenizer_files import check_tokenizer_folder
from hotshot_jax.convert.prepare import prepare_component
from hotshot_jax.data.origins import VideoOrigin
from hotshot_jax.lora.read import open_lora
from hotshot_jax.media.ffmpeg import run_ffmpeg
from hotshot_jax.media.reading.read import open_clip, read_key_frames
from hotshot_jax.media.write import write_video
from hotshot_jax.pipelines.loading import load_tokenizer
from hotshot_jax.schedulers import make_scheduler
from hotshot_jax.training.running.metrics import MetricsFile
from tests.lora.lora_cases import QUERY, factors, names
from tests.tiny_controlnet import write_tiny_controlnet

GOLDEN = Path(__file__).parents[1] / "golden"
_SETTINGS = {"prompt": "a (red:1.2) circle", "steps": 20, "guidance_scale": 7.5, "gif": ["a.gif"]}


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes:
        make: writes an undamaged example to a path.
        read: reads it, as the program does before anything expensive.
        damaged: pattern of the files that are damaged, where it is a folder.
    """

    make: Callable[[Path], Any]
    read: Callable[[Path], Any]
    damaged: str = "*"


def _frames(count: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, 16, 24, 3), np.uint8)


def _write(path: Path) -> None:
    write_video(path, _frames(1 if path.suffix in (".png", ".jpg") else 8), 1000, _metadata())


def _metadata() -> dict[str, str]:
    return {"settings": json.dumps(_SETTINGS)}


def _by_pillow(path: Path) -> None:
    first, *others = map(Image.fromarray, _frames())
    first.save(path, save_all=True, append_images=others, duration=100)


def _folder_of_frames(path: Path) -> None:
    path.mkdir()
    for number, frame in enumerate(_frames()):
        Image.fromarray(frame).save(path / f"{number}.{('jpg', 'png', 'webp')[number % 3]}")
    (path / "prompt.txt").write_text("a film", encoding="utf-8")


def _data(path: Path) -> None:
    path.mkdir()
    _folder_of_frames(path / "one")
    _folder_of_frames(path / "two")


def _videos(path: Path) -> None:
    path.mkdir()
    for name in ("a.gif", "b.gif"):
        _write(path / name)
    lines = [json.dumps({"file_name": name, "text": "a film"}) for name in ("a.gif", "b.gif")]
    (path / "metadata.jsonl").write_text("\n".join(lines))


def _captions(path: Path) -> None:
    """A film of each container, with a caption of each kind."""
    path.mkdir()
    _write(path / "a.mp4")
    for name, codec in (("b.mkv", "libx264"), ("c.avi", "mpeg4"), ("d.mov", "libx264")):
        arguments = ["-i", str(path / "a.mp4"), "-c:v", codec, str(path / name)]
        run_ffmpeg(arguments, subject=name)
    (path / "metadata.csv").write_text('file_name,text\na.mp4,"a film, in colour"\n')
    (path / "b.json").write_text(json.dumps({"caption": "a film", "tags": "short, dark"}))
    (path / "c.caption").write_text("a film")
    (path / "meta_cap.json").write_text(json.dumps({"d": {"caption": "a film"}}))


def _text(text: str) -> Callable[[Path], Any]:
    return lambda path: path.write_text(text, encoding="utf-8")


def _lora(path: Path) -> None:
    path.mkdir()
    tensors = factors(f"unet.{QUERY}", style="peft")
    save_file(tensors, path / "adapter_model.safetensors", {"format": "pt"})
    config = {"peft_type": "LORA", "r": 3, "lora_alpha": 2, "alpha_pattern": {"to_q": 3}}
    (path / "adapter_config.json").write_text(json.dumps(config | {"rank_pattern": {"to_k": 4}}))


def _kohya(path: Path) -> None:
    kohya = "lora_unet_" + QUERY.replace(".", "_")
    header = {"ss_network_dim": "3", "lora_adapter_metadata": json.dumps({"unet.lora_alpha": 2})}
    save_file(factors(kohya) | {f"{kohya}.alpha": np.array(2.0, np.float32)}, path, header)


def _embedding(path: Path) -> None:
    vectors = {"clip_l": np.ones((2, 16), np.float32), "clip_g": np.ones((2, 24), np.float32)}
    save_file(vectors, path)


@cache
def _vocabulary() -> Vocabulary:
    return Vocabulary.of(load_tokenizer(GOLDEN / "e2e" / "tokenizer"))


def _read_clip(path: Path) -> None:
    clip = open_clip(path)
    read_key_frames(clip, min(8, len(clip.durations_ms)), 1000)


def _read_prompt(path: Path) -> None:
    # As the system hands over an argument, whatever its bytes.
    prompt = path.read_bytes().replace(b"\0", b"").decode(errors="surrogateescape")
    check_prompts(InferSettings(prompt=prompt, negative_prompt=prompt), [prompt])
    chunk_prompt(parse_weights(prompt), _vocabulary())


def _read_stored(path: Path) -> object:
    return completed({"config": str(path), "trust_config": True})


def _read_prompts(path: Path) -> None:
    settings = InferSettings(prompts_file=str(path), output=str(path.parent / "out.gif"))
    check_prompts(settings, [job.prompt for job in plan_jobs(settings)])


def _read_tokenizer(path: Path) -> None:
    check_tokenizer_folder(path)
    vocabulary = Vocabulary.of(load_tokenizer(path))
    chunk_prompt("a red circle", vocabulary)


def _read_checkpoint(path: Path) -> None:
    checkpoint = open_assembled(str(path))
    for name in KINDS:
        prepare_component(checkpoint.components[name], dtype=np.float32)
    for folder, padding in zip(checkpoint.tokenizers, checkpoint.paddings, strict=True):
        Vocabulary.of(load_tokenizer(folder, padding))
    make_scheduler(None, checkpoint.scheduler_config)


def _read_weights(path: Path) -> None:
    component = open_assembled(str(path)).components["vae"]
    prepare_component(component, dtype=np.float32).load()


def _read_controlnet(path: Path) -> None:
    prepare_component(open_controlnet(str(path)), dtype=np.float32)


def _read_data(path: Path) -> None:
    describe(inspect_data(str(path), 4, 32, 1)[0])


def _read_videos(path: Path) -> None:
    origin = VideoOrigin(path, frames=4)
    for item in origin.items():
        origin.clips(item)


def kinds(checkpoint: Path) -> dict[str, Kind]:
    """All kinds by name: the example's name, whose ending may matter.

    Args:
        checkpoint: a small one in the diffusers layout.
    """
    converted = checkpoint.with_name("converted")
    if not converted.exists():
        convert_folder(open_diffusers_folder(checkpoint), converted)

    def copy(source: Path) -> Callable[[Path], Any]:
        return lambda path: shutil.copytree(source, path)

    def without_sizes(path: Path) -> None:
        # The list of sizes would tell of the damage before Orbax meets it.
        shutil.copytree(converted, path)
        for file in path.rglob("hotshot_files.json"):
            file.unlink()

    settings = json.dumps(_SETTINGS)
    clips = ("clip.gif", "clip.webp", "clip.mp4", "clip.png", "clip.jpg")
    return {
        **{name: Kind(_write, _read_clip) for name in clips},
        **{f"pillow.{end}": Kind(_by_pillow, _read_clip) for end in ("png", "avif", "tiff", "gif")},
        **{f"stored.{name}": Kind(_write, _read_stored) for name in clips},
        "clip_folder": Kind(_folder_of_frames, _read_clip, "*.*"),
        "settings.json": Kind(_text(settings), lambda p: completed({"config": str(p)})),
        "settings.yaml": Kind(
            _text("prompt: a circle\nsteps: 20\ngif: [a.gif, b.gif]\nguidance_scale: 7.5\n"),
            lambda p: completed({"config": str(p)}),
        ),
        "prompt.txt": Kind(_text("a (red:1.3) [circle \\( that] spins"), _read_prompt),
        "prompts.txt": Kind(_text("a red circle\n(a blue one:1.2)\n"), _read_prompts),
        "lora_folder": Kind(_lora, lambda p: open_lora(p, names())),
        "lora.safetensors": Kind(_kohya, lambda p: open_lora(p, names())),
        "embedding.safetensors": Kind(
            _embedding,
            lambda p: open_embeddings(
                [(str(p), "word")], {"text_encoder": 16, "text_encoder_2": 24}
            ),
        ),
        "tokenizer": Kind(copy(checkpoint / "tokenizer"), _read_tokenizer),
        "checkpoint": Kind(copy(checkpoint), _read_checkpoint, "*.json"),
        "weights": Kind(copy(checkpoint), _read_checkpoint, "*.safetensors"),
        "converted": Kind(copy(converted), _read_checkpoint, "*.json"),
        "converted_weights": Kind(copy(converted), _read_weights, "vae/weights/*"),
        "converted_without_sizes": Kind(without_sizes, _read_weights, "vae/weights/*"),
        "controlnet": Kind(lambda p: write_tiny_controlnet(p, 0), _read_controlnet),
        "data": Kind(_data, _read_data),
        "videos": Kind(_videos, _read_videos),
        "captions": Kind(_captions, _read_videos),
        "metrics.jsonl": Kind(
            _text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n'),
            lambda p: MetricsFile(p, 1).close(),
        ),
    }
