"""Makes small videos on meshes of 8 simulated devices and prints how far they are from one device.

A program of its own, because the number of simulated devices is fixed once JAX has started:
`python tests/parallel/sharded_pipeline.py CHECKPOINT CONTROLNET MESH:CASE+CASE ...` prints one JSON
object, by mesh and case: the relative error, and the sharding of what matters.
"""

import json
import sys
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from hotshot_jax.conditioning.control.windows import ControlWindow
from hotshot_jax.parallel.mesh import MeshConfig, create_mesh
from hotshot_jax.pipelines import HotshotXLPipeline
from hotshot_jax.pipelines.control import ControlInput
from hotshot_jax.pipelines.start import FROM_NOISE, StartInput
from hotshot_jax.sampling.windows import ContextConfig

PROMPTS = ["a fox in the snow", "a (red:1.3) boat"]
FRAMES = 8
# One window on each device, or on each row of devices, with all that goes with windows.
WINDOWS: dict[str, Any] = {
    "prompt": {0: PROMPTS[0], 7: PROMPTS[1]},
    "frames": 14,
    "context": ContextConfig(4, 2, "looped_uniform", closed=True),
    "controlled": True,
}
CLEAN = np.random.default_rng(2).standard_normal((1, FRAMES, 2, 4, 4)).astype(np.float32)
MASK = np.random.default_rng(3).integers(0, 2, (FRAMES, 2, 4)).astype(np.float32)
# Known frames, a mask and a clip beneath, the first frame seen by all; one step of two of a solver
# that calls the model twice.
STARTED: dict[str, Any] = {
    "start": StartInput(
        CLEAN, 0.5, MASK, {0: CLEAN[0, 1], 5: CLEAN[0, 2]}, first_frame_attention=True
    ),
    "scheduler": "heun",
}
CASES: dict[str, dict[str, Any]] = {
    "known": STARTED,
    "one step in windows": WINDOWS | {"steps": 1},
    "windows": WINDOWS | {"steps": 4},
    "fewer in windows": WINDOWS
    | {"steps": 4, "cache_interval": 2, "guidance_interval": (0.0, 0.75)},
    "fewer": {"steps": 3, "cache_interval": 3, "guidance_interval": (0.0, 0.5)},
    "plain": {},
    # A solver with a history, and no noise of its own.
    "solver": {"scheduler": "dpmpp_2m", "guidance_rescale": 0.5},
    "control": {"controlled": True},
    "low_vram": {"low_vram_mode": True},
}


def run(
    checkpoint: str, controlnet: str, case: dict[str, Any], mesh: jax.sharding.Mesh | None
) -> tuple[np.ndarray, HotshotXLPipeline]:
    controls = []
    count = case.get("frames", FRAMES)
    if case.get("controlled"):
        frames = np.random.default_rng(0).integers(0, 256, (count, 16, 32, 3), np.uint8)
        end = 1.0 if "context" in case else 0.5
        controls = [ControlInput(frames, ControlWindow(0.7, end=end))]
    pipeline = HotshotXLPipeline.from_pretrained(
        checkpoint,
        precision="f32",
        scheduler=case.get("scheduler"),
        controlnets=[controlnet] if controls else (),
        low_vram_mode=case.get("low_vram_mode", False),
        mesh=mesh,
    )
    output = pipeline(
        case.get("prompt", PROMPTS),
        negative_prompt="blurry",
        height=16,
        width=32,
        video_length=count,
        context=case.get("context"),
        num_inference_steps=case.get("steps", 2),
        guidance_rescale=case.get("guidance_rescale", 0.0),
        cache_interval=case.get("cache_interval", 1),
        guidance_interval=case.get("guidance_interval", (0.0, 1.0)),
        controls=controls,
        start=case.get("start", FROM_NOISE),
    )
    return np.asarray(output.videos), pipeline


def held(pipeline: HotshotXLPipeline) -> float:
    """The share of the UNet's parameters that the first device holds."""
    arrays, _ = pipeline.runtime.model("unet")
    assert all(isinstance(each.sharding, NamedSharding) for each in arrays)
    return sum(each.addressable_data(0).size for each in arrays) / sum(each.size for each in arrays)


def main(checkpoint: str, controlnet: str, arguments: list[str]) -> None:
    assert jax.device_count() == 8
    expected: dict[str, np.ndarray] = {}
    results: dict[str, dict[str, Any]] = {}
    for argument in arguments:
        text, _, names = argument.partition(":")
        config = MeshConfig.parse(text)
        mesh = create_mesh(config, jax.devices()[: config.size])
        results[text] = {}
        for name in names.split("+"):
            if name not in expected:
                expected[name] = run(checkpoint, controlnet, CASES[name], None)[0]
            videos, pipeline = run(checkpoint, controlnet, CASES[name], mesh)
            error = np.abs(videos - expected[name]).max() / np.abs(expected[name]).max()
            results[text][name] = {"error": float(error), "held": held(pipeline)}
        print(text, results[text], file=sys.stderr, flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
