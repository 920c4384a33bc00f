"""One frame that starts from a picture, against current diffusers' SDXL pipelines."""

import functools
import inspect
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hotshot_jax.pipelines import HotshotXLPipeline
from hotshot_jax.pipelines.start import StartInput
from tests.tiny_checkpoint import tiny_configs, write_tiny_checkpoint

SIDE = 32
# Half of it is what rounding to 8 bits is worth.
TOLERANCE = 1 / 255
SCHEDULERS = {
    "EulerDiscreteScheduler": ("leading", "trailing", "karras"),
    "EulerAncestralDiscreteScheduler": ("leading", "linspace"),
    "DDIMScheduler": ("leading", "trailing"),
    "HeunDiscreteScheduler": ("leading", "trailing"),
}
# The others take their time to compile.
QUICK = (
    (0, "EulerDiscreteScheduler", "leading", False),
    (0, "DDIMScheduler", "trailing", True),
)
CASES = [
    pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
    for case in (
        (model, name, spacing, masked)
        for model in (0, 1)
        for name, spacings in SCHEDULERS.items()
        for spacing in spacings
        for masked in (False, True)
        # For a masked picture diffusers draws noise that nothing uses.
        if not (masked and "Ancestral" in name)
    )
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Checkpoints of random configurations, by number."""
    return functools.cache(lambda number: random_models(number, tmp_path_factory.mktemp("models")))


def random_models(number: int, folder: Path) -> Path:
    drawn = np.random.default_rng(number)
    configs = tiny_configs()
    configs["unet"] |= {
        "block_out_channels": [int(32 * drawn.integers(1, 3)), 64],
        "attention_head_dim": [2, int(2 ** drawn.integers(0, 3))],
        "transformer_layers_per_block": [1, int(drawn.integers(1, 3))],
        "layers_per_block": int(drawn.integers(1, 3)),
    }
    return write_tiny_checkpoint(folder / "a", configs=configs)


def theirs(kind: str, models: Path, scheduler: Any) -> Any:
    config = json.loads((models / "unet" / "config.json").read_text().replace("3D", "2D"))
    known = inspect.signature(diffusers.UNet2DConditionModel).parameters
    unet = diffusers.UNet2DConditionModel(**{k: v for k, v in config.items() if k in known})
    (file,) = (models / "unet").glob("*.safetensors")
    spatial = {k: v for k, v in load_file(file).items() if "temporal_attentions" not in k}
    unet.load_state_dict(spatial)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = getattr(diffusers, kind)(
            vae=diffusers.AutoencoderKL.from_pretrained(models / "vae"),
            unet=unet,
            scheduler=scheduler,
            **dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")),
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(("model", "name", "spacing", "masked"), CASES)
def test_one_frame(
    models: Callable[[int], Path], model: int, name: str, spacing: str, masked: bool
) -> None:
    folder = models(model)
    drawn = np.random.default_rng([len(name), len(spacing), masked])
    steps = int(drawn.integers(3, 7))
    strength = round(float(drawn.uniform(0.4, 1.0)), 2)
    picture = drawn.integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)
    mask = np.kron(drawn.integers(0, 2, (SIDE // 8, SIDE // 8)), np.ones((8, 8))).astype(np.float32)
    config = json.loads((folder / "unet" / "config.json").read_text())
    width = config["cross_attention_dim"]
    pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
    text: dict[str, Any] = {
        "prompt_embeds": drawn.standard_normal((1, 77, width), np.float32),
        "negative_prompt_embeds": drawn.standard_normal((1, 77, width), np.float32),
        "pooled_prompt_embeds": drawn.standard_normal((1, pooled), np.float32),
        "negative_pooled_prompt_embeds": drawn.standard_normal((1, pooled), np.float32),
    }
    options = {"use_karras_sigmas": True} if spacing == "karras" else {"timestep_spacing": spacing}
    stored = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    kind = "Inpaint" if masked else "Img2Img"
    pipeline = theirs(
        f"StableDiffusionXL{kind}Pipeline",
        folder,
        getattr(diffusers, name).from_config(stored | options),
    )
    expected = pipeline(
        image=picture.astype(np.float32) / 255,
        **({"mask_image": mask[None]} if masked else {}),
        **{key: torch.tensor(value) for key, value in text.items()},
        height=SIDE,
        width=SIDE,
        strength=strength,
        num_inference_steps=steps,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
    ).images
    ours = HotshotXLPipeline.from_pretrained(
        str(folder), precision="f32", scheduler=name, scheduler_options=options
    )
    made = ours(
        **text,
        height=SIDE,
        width=SIDE,
        video_length=1,
        num_inference_steps=steps,
        guidance_scale=4.0,
        seed=5,
        start=StartInput(picture, strength, mask[None] if masked else None),
    ).videos[0]
    np.testing.assert_allclose(made, expected, atol=TOLERANCE)
    assert expected.std() > 0.02
