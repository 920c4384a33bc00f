"""Pipeline cases of one frame, computed with diffusers' own models and schedulers.

With one frame the reference's UNet leaves out its temporal layers, and is diffusers' 2-D UNet.
"""

import functools
import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from benchmarks.models.formula_weights import formula_tensor, read_shapes

GOLDEN = Path(__file__).parents[1] / "golden"
SIZE = 32
TEXT = ("prompt_embeds", "pooled_prompt_embeds")
IDS = ("input_ids", "input_ids_2")


@functools.cache
def torch_model(name: str, of_class: str, seed: int) -> Any:
    """A diffusers model with formula weights."""
    path = GOLDEN / "models" / f"{name}.config.json"
    config = json.loads(path.read_text().replace("3D", "2D"))
    shapes = read_shapes(path.with_name(f"{name}.shapes.json"))
    model = getattr(diffusers, of_class).from_config(config)
    model.load_state_dict(
        {
            key: torch.tensor(formula_tensor(key, shape, seed))
            for key, shape in shapes.items()
            if "temporal_attentions" not in key
        }
    )
    return model.eval()


@torch.no_grad()
def write_case(
    folder: Path,
    name: str,
    scheduler: tuple[str, dict[str, Any]],
    *,
    steps: int,
    guidance_scale: float = 1.0,
    detailed: tuple[int, ...] = (),
    recorded: slice | None = None,
    then: Any = None,
    timesteps: np.ndarray | None = None,
    control: float | None = None,
) -> Path:
    """Writes a case to a golden folder.

    Args:
        folder: the golden folder; its models are linked to the stored ones.
        name: of the case.
        scheduler: class and configuration, as the case states them.
        steps: number of denoising steps.
        guidance_scale: up to 1 is none.
        detailed: calls of which the UNet's input and output are stored.
        recorded: which calls are in `latents_per_step`; None for all.
        then: the diffusers scheduler that computes, where it is not the stated one.
        timesteps: given to it in place of the number of steps.
        control: strength of a ControlNet, if there is one.
    """
    base, stored = (
        json.loads((GOLDEN / "cases" / "pipeline_image.json").read_text()),
        load_file(GOLDEN / "cases" / "pipeline_image.safetensors"),
    )
    guided = guidance_scale > 1
    prefixes = ("negative_", "") if guided else ("",)
    tensors = {f"{prefix}{key}": stored[f"{prefix}{key}"] for prefix in prefixes for key in TEXT}
    tensors |= {f"{prefix}{key}": stored[f"{prefix}{key}"] for prefix in prefixes for key in IDS}
    hidden, pooled = (
        torch.tensor(np.concatenate([tensors[f"{prefix}{key}"] for prefix in prefixes]))
        for key in TEXT
    )
    time_ids = torch.tensor([[SIZE, SIZE, 0, 0, SIZE, SIZE]] * len(prefixes), dtype=torch.float32)
    generator = torch.Generator().manual_seed(7)
    first = torch.randn(1, 4, SIZE // 8, SIZE // 8, generator=generator)

    solver = then or getattr(diffusers, scheduler[0]).from_config(scheduler[1])
    solver.set_timesteps(
        **({"timesteps": timesteps} if timesteps is not None else {"num_inference_steps": steps})
    )
    arguments = {
        "video_length": 1, "height": SIZE, "width": SIZE, "num_inference_steps": steps,
        "guidance_scale": guidance_scale, "init_noise_sigma": float(solver.init_noise_sigma),
        "negative": "prompt" if guided else "none",
    }  # fmt: skip
    calls = len(solver.timesteps)
    added = {"text_embeds": pooled, "time_ids": time_ids}
    models = base["models"]
    if control is not None:
        models = [
            *models,
            json.loads((GOLDEN / "cases" / "controlnet_pipeline.json").read_text())["models"][-1],
        ]
        arguments |= {"controlnet_conditioning_scale": control, "control_guidance_end": 0.8}
        scales = [control if (call + 1) / calls <= 0.8 else 0.0 for call in range(calls)]
        pictures = np.random.default_rng(3).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)
        tensors |= {
            "control_images_uint8": pictures,
            "cond_scale_per_step": np.asarray(scales, np.float32),
        }
        frames = torch.tensor(pictures.astype(np.float32) / 255).permute(0, 3, 1, 2)

    unet = torch_model("unet_tiny", "UNet2DConditionModel", 0)
    latents, after = first * solver.init_noise_sigma, []
    for call, timestep in enumerate(solver.timesteps):
        scaled = solver.scale_model_input(torch.cat([latents] * len(prefixes)), timestep)
        extra: dict[str, Any] = {}
        if control is not None:
            net = torch_model("controlnet_tiny", "ControlNetModel", 1)
            down, mid = net(
                scaled, timestep, hidden, frames.repeat(len(prefixes), 1, 1, 1), scales[call],
                added_cond_kwargs=added, return_dict=False,
            )  # fmt: skip
            extra = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        output = unet(scaled, timestep, hidden, added_cond_kwargs=added, **extra).sample
        if call in detailed:
            tensors |= {
                f"step{call}.unet_input": _with_frames(scaled),
                f"step{call}.unet_output": _with_frames(output),
            }
            if control is not None:
                tensors |= {
                    f"step{call}.mid_block_additional_residual": _with_frames(mid),
                    f"step{call}.controlnet_sample": scaled.numpy().copy(),
                    f"step{call}.controlnet_cond": frames.numpy(),
                }
        if guided:
            negative, positive = output.chunk(2)
            output = negative + guidance_scale * (positive - negative)
        latents = solver.step(output, timestep, latents).prev_sample
        after.append(_with_frames(latents))
    tensors |= {
        "latents": _with_frames(first),
        "time_ids": time_ids.numpy(),
        "timesteps": solver.timesteps.numpy(),
        "latents_per_step": np.stack(after[recorded or slice(None)]),
    }
    call_name = "HotshotXLPipeline" if control is None else "HotshotXLControlNetPipeline"
    description = {
        "case": name,
        "models": models,
        "scheduler": {"class": scheduler[0], "config": scheduler[1]},
        "call": f"{call_name}.__call__(prompt_embeds, ..., latents)",
        "arguments": arguments,
        "file": f"cases/{name}.safetensors",
    }
    (folder / "cases").mkdir(exist_ok=True)
    if not (folder / "models").exists():
        (folder / "models").symlink_to(GOLDEN / "models")
    (folder / "cases" / f"{name}.json").write_text(json.dumps(description))
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()},
              folder / "cases" / f"{name}.safetensors")  # fmt: skip
    return folder


def _with_frames(x: torch.Tensor) -> np.ndarray:
    return x.numpy()[:, :, None].copy()
