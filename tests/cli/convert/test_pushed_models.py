"""What `--push_to_hub` put on a Hub is loaded from there by its id: here, and by other programs."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence
from safetensors.numpy import load_file

from hotshot_jax.cli.convert import command as convert_command
from hotshot_jax.convert.hub_push import check_push, push
from tests.cli.conftest import Infer
from tests.hub_server import Hub, connected

ROOT = Path(__file__).parents[3]
MODEL, LORA = "org/model", "org/lora"

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

# Another process, whose client has never seen the files.
_OTHERS = """
import sys
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from safetensors.numpy import save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection
name, lora, dest = sys.argv[1:]
saved = {}
for kind, part in (
    (AutoencoderKL, "vae"), (CLIPTextModel, "text_encoder"),
    (CLIPTextModelWithProjection, "text_encoder_2"),
):
    module, said = kind.from_pretrained(name, subfolder=part, output_loading_info=True)
    assert not said["missing_keys"] and not said["unexpected_keys"], (part, said)
    saved[part] = module.num_parameters() if hasattr(module, "num_parameters") else 0
state = StableDiffusionXLPipeline.lora_state_dict(lora)[0]
save_file({key: tensor.float().numpy() for key, tensor in state.items()}, dest)
print(saved)
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with connected(tmp_path / "hf", monkeypatch) as running:
        yield running


@pytest.mark.slow
def test_a_converted_model_and_a_lora(
    hub: Hub, infer: Infer, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    orbax, local = tmp_path / "orbax", tmp_path / "local"
    assert convert_command.main([str(tiny_checkpoint), str(orbax)]) == 0
    command = [str(orbax), str(local), "--to-torch", "--push_to_hub", MODEL]
    assert convert_command.main(command) == 0
    lora = ROOT / "tests" / "golden" / "lora" / "lora_diffusers.safetensors"
    folder = tmp_path / "lora"
    folder.mkdir()
    (folder / "pytorch_lora_weights.safetensors").write_bytes(lora.read_bytes())
    check_push(LORA)
    push(folder, LORA, {"README.md": b"# LoRA"})

    gifs = []
    for number, source in enumerate((str(local), MODEL)):
        output = tmp_path / f"{number}.gif"
        run = infer("--pretrained_path", source, "--output", output)
        assert run.status == 0, run.stderr
        with Image.open(output) as gif:
            gifs.append([each.convert("RGB").tobytes() for each in ImageSequence.Iterator(gif)])
    assert gifs[0] == gifs[1]

    dest = tmp_path / "by-diffusers.safetensors"
    other = subprocess.run(
        [sys.executable, "-c", _OTHERS, MODEL, LORA, str(dest)],
        env=os.environ | hub.environment(tmp_path / "other"),
        capture_output=True,
        text=True,
    )
    assert other.returncode == 0, other.stderr[-2000:]
    read, pushed = load_file(dest), load_file(lora)
    assert read and all(np.isfinite(each).all() for each in read.values())
    assert {key for key in read if key.endswith("weight")} <= set(pushed)
