"""LoRA files of the reference: its outputs of UNet and text encoders, with weights merged here."""

from functools import cache

import jax
import numpy as np
import pytest
from flax import nnx
from lora_cases import GOLDEN, MODELS, case, config, names, state_dict

from hotshot_jax.convert.load import abstract, with_parameters
from hotshot_jax.convert.tensors.rules import flat_parameters, torch_slots
from hotshot_jax.convert.tensors.tensor_source import TensorSource, open_file
from hotshot_jax.lora import merged_source, open_lora
from hotshot_jax.models import CLIPTextConfig, CLIPTextModel, UNet3DConditionModel, UNet3DConfig

CASES = ("lora_diffusers", "lora_kohya", "lora_kohya_diffusers_names")
# The stored outputs are float32 and differ from float64 by 4e-6; ours come from other kernels.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> dict[str, TensorSource]:
    from safetensors.numpy import save_file

    path = tmp_path_factory.mktemp("base")
    for name in MODELS:
        save_file(state_dict(name), path / f"{name}.safetensors")
    return {name: open_file(path / f"{name}.safetensors") for name in MODELS}


def build(component: str):
    if component == "unet":
        unet = UNet3DConfig.from_dict(config(component))
        return lambda rngs: UNet3DConditionModel(unet, rngs=rngs)
    clip = CLIPTextConfig.from_dict(config(component))
    return lambda rngs: CLIPTextModel(clip, rngs=rngs)


@cache
def skeleton(component: str):
    module = abstract(build(component))
    return module, torch_slots(module)


@cache
def program(component: str):
    """One compiled program for all cases, since only weights and inputs differ.

    Compiled in a hurry: most of the time of these tests is the compiler's.
    """
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    graph, _ = nnx.split(skeleton(component)[0])
    return jax.jit(
        lambda state, *inputs: nnx.merge(graph, state)(*inputs), compiler_options=options
    )


def run(component: str, source: TensorSource, *inputs):
    module, slots = skeleton(component)
    values = {path: np.empty(p.shape, np.float32) for path, p in flat_parameters(module).items()}
    for slot in slots.values():
        value = values[slot.path]
        (value if slot.layer is None else value[slot.layer])[...] = slot.to_flax(
            source.read(slot.name)
        )
    return program(component)(nnx.state(with_parameters(module, values)), *inputs)


def unet_output(source: TensorSource, data):
    inputs = [data[key] for key in ("timestep", "encoder_hidden_states", "text_embeds", "time_ids")]
    output = run("unet", source, data["sample"].transpose(0, 2, 3, 4, 1), *inputs)
    return np.asarray(output).transpose(0, 4, 1, 2, 3)


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_the_references(name, base):
    data = case(name)
    lora = open_lora(GOLDEN / "lora" / f"{name}.safetensors", names())
    assert not lora.report.unmatched
    for scale in (1.0, 0.6):
        prefix = f"scale{scale:g}"
        merged = {key: merged_source(each, key, [(lora, scale)]) for key, each in base.items()}
        close(unet_output(merged["unet"], data), data[f"{prefix}.unet_out"])
        first = run("text_encoder", merged["text_encoder"], data["input_ids"])
        close(first.hidden_states[-2], data[f"{prefix}.text_encoder.penultimate"])
        second = run("text_encoder_2", merged["text_encoder_2"], data["input_ids_2"])
        close(second.hidden_states[-2], data[f"{prefix}.text_encoder_2.penultimate"])
        close(second.pooled, data[f"{prefix}.text_encoder_2.pooled"])


def test_scale_zero_is_the_base(base):
    data = case("lora_kohya")
    lora = open_lora(GOLDEN / "lora" / "lora_kohya.safetensors", names())
    merged = merged_source(base["unet"], "unet", [(lora, 0.0)])
    close(unet_output(merged, data), data["base.unet_out"])
    for name in merged:
        assert merged.read(name).tobytes() == base["unet"].read(name).tobytes()


def close(ours, expected):
    np.testing.assert_allclose(np.asarray(ours), expected, atol=TOLERANCE, rtol=0)


def test_the_reports_count_every_module():
    lora = open_lora(GOLDEN / "lora" / "lora_kohya.safetensors", names())
    assert sum(lora.report.matched.values()) == 450 // 3
    assert set(lora.report.matched) == set(MODELS)
    assert str(lora.report).startswith("150 modules matched (")


def test_spatial_loras_leave_temporal_weights_alone():
    for name in CASES:
        lora = open_lora(GOLDEN / "lora" / f"{name}.safetensors", names())
        assert not any("temporal_attentions" in each for each in lora.names("unet"))
