"""Kept features equal those of the DeepCache package on diffusers' pipeline."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from DeepCache import DeepCacheSDHelper
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.numpy import load_file

from hotshot_jax.conditioning.control.windows import ControlWindow
from hotshot_jax.convert.tensors.rules import TEMPORAL
from hotshot_jax.pipelines import HotshotXLPipeline
from hotshot_jax.pipelines.control import ControlInput
from tests.tiny_controlnet import write_tiny_controlnet

STEPS, SIDE, SCALE = 8, 64, 6.0
CONTROL = np.random.default_rng(2).integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)


def embeddings(unet: Any) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    config = unet.config
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    return {
        f"{negative}{name}": random.standard_normal(shape).astype(np.float32)
        for negative in ("", "negative_")
        for name, shape in (
            ("prompt_embeds", (1, 77, config.cross_attention_dim)),
            ("pooled_prompt_embeds", (1, pooled)),
        )
    }


@pytest.fixture(scope="module")
def theirs(tiny_checkpoint: Path) -> Any:
    """diffusers' pipeline, with the spatial layers of the tiny UNet."""
    config = json.loads((tiny_checkpoint / "unet/config.json").read_text().replace("3D", "2D"))
    unet = UNet2DConditionModel.from_config(config)
    (weights,) = (tiny_checkpoint / "unet").glob("*.safetensors")
    tensors = {name: torch.tensor(t) for name, t in load_file(weights).items()}
    unet.load_state_dict({n: t for n, t in tensors.items() if TEMPORAL not in n}, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = StableDiffusionXLPipeline(
            vae=AutoencoderKL.from_pretrained(tiny_checkpoint / "vae"),
            text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None,
            unet=unet.eval(), scheduler=DDIMScheduler(**scheduler_options(tiny_checkpoint)),
            add_watermarker=False,
        )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    return made


def scheduler_options(checkpoint: Path) -> dict[str, Any]:
    config = json.loads((checkpoint / "scheduler/scheduler_config.json").read_text())
    known = "beta_start beta_end beta_schedule num_train_timesteps steps_offset timestep_spacing"
    return {name: config[name] for name in known.split() if name in config} | {"clip_sample": False}


@pytest.fixture(scope="module")
def ours(tiny_checkpoint: Path) -> HotshotXLPipeline:
    return HotshotXLPipeline.from_pretrained(
        str(tiny_checkpoint), precision="f32", scheduler="ddim"
    )


def draw(
    interval: int, ours: HotshotXLPipeline, theirs: Any, control: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The same picture by both, `[height, width, 3]` from 0 to 1."""
    controls, image = [], {}
    if control is not None:
        controls = [ControlInput(control, ControlWindow(scale=0.9))]
        image = {"image": torch.from_numpy(control.transpose(0, 3, 1, 2) / np.float32(255))}
        image["controlnet_conditioning_scale"] = 0.9
    given = embeddings(ours.components.unet)
    noise = np.random.default_rng(1).standard_normal((1, 4, SIDE // 8, SIDE // 8))
    noise = noise.astype(np.float32)
    made = ours(
        **given, height=SIDE, width=SIDE, video_length=1, num_inference_steps=STEPS,
        guidance_scale=SCALE, latents=noise.transpose(0, 2, 3, 1)[:, None],
        cache_interval=interval, controls=controls,
    ).videos[0, 0]  # fmt: skip
    helper = DeepCacheSDHelper(pipe=theirs)
    helper.set_params(cache_interval=interval, cache_branch_id=0)
    helper.enable()
    try:
        expected = theirs(
            **{name: torch.from_numpy(array) for name, array in given.items()},
            height=SIDE, width=SIDE, num_inference_steps=STEPS, guidance_scale=SCALE,
            latents=torch.from_numpy(noise), output_type="np", **image,
        ).images[0]  # fmt: skip
    finally:
        helper.disable()
    return np.asarray(made), expected


@pytest.mark.parametrize("interval", [1, 2, 3])
def test_pictures_are_those_of_the_package(
    interval: int, ours: HotshotXLPipeline, theirs: Any
) -> None:
    made, expected = draw(interval, ours, theirs)
    assert np.abs(made - expected).max() < 1 / 255
    if interval > 1:
        # Far from what is drawn without: the features matter.
        assert np.abs(made - draw(1, ours, theirs)[0]).max() > 5 / 255


@pytest.mark.slow
def test_pictures_that_follow_another_are_too(
    tiny_checkpoint: Path, theirs: Any, tmp_path: Path
) -> None:
    folder = write_tiny_controlnet(tmp_path / "net", 3)
    ours = HotshotXLPipeline.from_pretrained(
        str(tiny_checkpoint), precision="f32", scheduler="ddim", controlnets=[str(folder)]
    )
    net = ControlNetModel.from_unet(
        theirs.unet, conditioning_embedding_out_channels=(4, 8, 8, 16), load_weights_from_unet=False
    )
    (weights,) = folder.glob("*.safetensors")
    net.load_state_dict({name: torch.tensor(t) for name, t in load_file(weights).items()})
    controlled = StableDiffusionXLControlNetPipeline(**theirs.components, controlnet=net.eval())
    controlled.set_progress_bar_config(disable=True)
    made, expected = draw(3, ours, controlled, CONTROL)
    assert np.abs(made - expected).max() < 1 / 255
    black = draw(3, ours, controlled, np.zeros_like(CONTROL))[0]
    assert np.abs(made - black).max() > 5 / 255
