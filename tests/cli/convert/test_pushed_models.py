"""What `--push_to_hub` put on a Hub is loaded from there by its id: here, and by other programs."""

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from hotshot_jax.cli.convert import command as convert_command
from hotshot_jax.convert.hub_push import check_push, push
from hotshot_jax.convert.prepare import open_checkpoint, prepare_component
from hotshot_jax.convert.tensors.rules import flat_parameters
from hotshot_jax.training.trainees.lora import LoraTrainee
from hotshot_jax.training.trainees.trainee import export
from tests.cli.conftest import Infer
from tests.hub_server import Hub, connected
from tests.tiny_checkpoint import tiny_configs, write_tiny_checkpoint
from tests.tiny_controlnet import write_tiny_controlnet

PAGE = Path(__file__).parents[3] / "docs" / "hub.md"
MODEL, LORA, CONTROLNET = "ORG/MODEL", "ORG/LORA", "ORG/CONTROLNET"
SIDE, STEPS, SEED = 32, 2, 5
# What is rounded to 8 bits by both may fall to either side.
TOLERANCE = 1
# SDXL's blocks, as the page names them for diffusers.
LEVELS: dict[str, Any] = {
    "block_out_channels": [32, 32, 64],
    "attention_head_dim": [1, 2, 2],
    "transformer_layers_per_block": [1, 1, 1],
    "layers_per_block": 1,
}

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

# Another process, whose client has never seen the files, does what the page says: these stand
# before its blocks, and behind each of them.
_BEFORE = f"""
import sys
import torch
from PIL import Image


def draw(name, pipeline, **options):
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline(
        "a red circle",
        negative_prompt="blurred",
        guidance_scale=5.0,
        num_inference_steps={STEPS},
        height={SIDE},
        width={SIDE},
        generator=torch.Generator().manual_seed({SEED}),
        **options,
    ).images[0]
    picture.save(f"{{sys.argv[1]}}/{{name}}.png")


edges = Image.open(sys.argv[2]).convert("RGB")
"""
_BEHIND = (
    'draw("plain", pipeline)',
    'draw("lora", pipeline)\npipeline.unload_lora_weights()\ndraw("unloaded", pipeline)',
    'draw("controlnet", controlled, image=edges, controlnet_conditioning_scale=0.5)',
    'draw("peft", pipeline)',
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    home = tmp_path_factory.mktemp("hf")
    with pytest.MonkeyPatch.context() as patch, connected(home, patch) as running:
        running.writers = ("ORG",)
        yield running


@pytest.fixture(scope="module")
def pushed(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders that were pushed, by their ids."""
    folder = tmp_path_factory.mktemp("pushed")
    published = tiny_configs()["unet"] | LEVELS
    for key, kinds in (
        ("down_block_types", ["DownBlock3D", "CrossAttnDownBlock3D", "CrossAttnDownBlock3D"]),
        ("up_block_types", ["CrossAttnUpBlock3D", "CrossAttnUpBlock3D", "UpBlock3D"]),
    ):
        published[key] = kinds
    checkpoint = write_tiny_checkpoint(
        folder / "tiny", configs=tiny_configs() | {"unet": published}
    )
    flat = [kind.replace("3D", "2D") for kind in published["down_block_types"]]
    linear = {"down_block_types": flat, "use_linear_projection": True}
    controlnet = write_tiny_controlnet(folder / "net", 1, **LEVELS, **linear)
    for source, name in ((checkpoint, MODEL), (controlnet, CONTROLNET)):
        there, back = folder / f"{source.name}-orbax", folder / f"{source.name}-back"
        assert convert_command.main([str(source), str(there)]) == 0
        command = [str(there), str(back), "--to-torch", "--push_to_hub", name]
        assert convert_command.main(command) == 0
    unet = prepare_component(open_checkpoint(checkpoint).unet, dtype=jnp.float32).load()
    trainee = LoraTrainee.of(unet, "spatial", 3)
    started, _ = trainee.start(flat_parameters(unet), 0)
    generator = np.random.default_rng(1)
    # As if they had been trained: none is zero.
    trained = {
        key: 0.2 * generator.standard_normal(each.shape, np.float32)
        for key, each in started.items()
    }
    export(folder / "lora", checkpoint, None, trainee, trained)
    check_push(LORA)
    push(folder / "lora", LORA, {"README.md": b"# LoRA"})
    return {MODEL: folder / "tiny-back", CONTROLNET: folder / "net-back", LORA: folder / "lora"}


@pytest.mark.slow
def test_by_their_ids_here_and_in_other_programs(
    hub: Hub, pushed: dict[str, Path], infer: Infer, tmp_path: Path
) -> None:
    edges = tmp_path / "edges.png"
    drawn = np.random.default_rng(0).integers(0, 2, (SIDE, SIDE, 1), np.uint8)
    Image.fromarray(np.repeat(255 * drawn, 3, axis=2)).save(edges)
    control = ("--gif", edges, "--controlnet_conditioning_scale", "0.5")
    flags: dict[str, Callable[[str, str, str], tuple[Any, ...]]] = {
        "plain": lambda model, lora, net: (),
        "lora": lambda model, lora, net: ("--lora", lora),
        "controlnet": lambda model, lora, net: ("--controlnet", net, *control),
    }
    ids, ours = (MODEL, LORA, CONTROLNET), {}
    for name, of in flags.items():
        made = []
        for number, (model, lora, net) in enumerate((ids, [str(pushed[each]) for each in ids])):
            output = tmp_path / f"{name}-{number}.png"
            run = infer(
                *("--pretrained_path", model, *of(model, lora, net), "--output", output),
                *("--prompt", "a red circle", "--negative_prompt", "blurred", "--seed", SEED),
                *("--video_length", 1, "--steps", STEPS, "--guidance_scale", 5),
                *(each for flag in ("", "og_", "target_") for each in (f"--{flag}width", SIDE)),
                *(each for flag in ("", "og_", "target_") for each in (f"--{flag}height", SIDE)),
            )
            assert run.status == 0, run.stderr
            made.append(pixels(output))
        np.testing.assert_array_equal(made[0], made[1])
        ours[name] = made[0]

    theirs = by_others(hub, edges, tmp_path)
    for name, found in theirs.items():
        expected = ours[{"peft": "lora", "unloaded": "plain"}.get(name, name)]
        assert np.abs(found - expected).max() <= TOLERANCE, name
    for name in ("lora", "controlnet"):
        assert np.abs(ours[name] - ours["plain"]).max() > 10 * TOLERANCE, name


def by_others(hub: Hub, edges: Path, folder: Path) -> dict[str, np.ndarray]:
    """Pictures of a process that runs the page's Python and nothing of this package."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    pieces = [_BEFORE, *itertools.chain(*zip(blocks, _BEHIND, strict=True))]
    output = folder / "others"
    output.mkdir()
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(pieces), str(output), str(edges)],
        env=os.environ | hub.environment(folder / "other-home"),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    names = ("plain", "controlnet", "lora", "unloaded", "peft")
    return {name: pixels(output / f"{name}.png") for name in names}


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)
