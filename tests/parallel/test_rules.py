"""Where each parameter lies."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jax
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec as P

from hotshot_jax.convert.tensors.rules import flat_parameters
from hotshot_jax.models import (
    AutoencoderKL,
    AutoencoderKLConfig,
    CLIPTextConfig,
    CLIPTextModel,
    UNet3DConditionModel,
    UNet3DConfig,
)
from hotshot_jax.models.controlnet.config import ControlNetConfig, ControlNetUnionConfig
from hotshot_jax.models.controlnet.controlnet import ControlNetModel
from hotshot_jax.models.controlnet.union import ControlNetUnionModel
from hotshot_jax.parallel.mesh import AXES
from hotshot_jax.parallel.rules import (
    UnmatchedParametersError,
    parameter_shardings,
    state_shardings,
)

CONFIGS = Path(__file__).parents[1] / "golden" / "models"


def full_size(name: str) -> nnx.Module:
    values = json.loads((CONFIGS / f"{name}.config.json").read_text())
    config: Any
    build: Any
    if "vae" in name:
        config, build = AutoencoderKLConfig.from_dict(values), AutoencoderKL
    elif "text_encoder" in name:
        config, build = CLIPTextConfig.from_dict(values), CLIPTextModel
    else:
        config, build = UNet3DConfig.from_dict(values), UNet3DConditionModel
    return nnx.eval_shape(lambda: build(config, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def unet() -> nnx.Module:
    return full_size("hotshot_xl_full.unet")


def mesh(data: int = 1, fsdp: int = 1, frames: int = 1, tensor: int = 1) -> Any:
    return AbstractMesh((data, fsdp, frames, tensor), AXES)


def specs(module: nnx.Module, **axes: int) -> dict[str, P]:
    shardings = parameter_shardings(module, mesh(**axes))
    return {"/".join(map(str, path)): sharding.spec for path, sharding in shardings.items()}


@pytest.mark.parametrize(
    "name",
    ["sdxl_full.vae", "sdxl_full.text_encoder", "sdxl_full.text_encoder_2", "hotshot_xl_full.unet"],
)
def test_every_parameter_of_every_model_has_a_place_that_divides(name: str) -> None:
    module = full_size(name)
    shardings = parameter_shardings(module, mesh(data=2, fsdp=4, frames=2, tensor=2))
    parameters = flat_parameters(module)
    assert shardings.keys() == parameters.keys()
    for path, parameter in parameters.items():
        shardings[path].shard_shape(parameter.shape)


def controlnet(config_class: Any, model: Any) -> nnx.Module:
    values = json.loads((CONFIGS / "hotshot_xl_full.unet.config.json").read_text())
    of_unet = ControlNetConfig.from_unet(UNet3DConfig.from_dict(values))
    config = config_class(**dataclasses.asdict(of_unet))
    return nnx.eval_shape(lambda: model(config, rngs=nnx.Rngs(0)))


def test_controlnets_lie_as_the_unet_does() -> None:
    found = specs(controlnet(ControlNetConfig, ControlNetModel), tensor=2)
    spatial = "down_blocks/1/attentions/0/transformer_blocks"
    assert found[f"{spatial}/attn1/to_q/kernel"] == P(None, None, "tensor")
    assert found["controlnet_mid_block/kernel"] == P(None, None, None, None)
    assert found["controlnet_cond_embedding/conv_in/kernel"] == P(None, None, None, None)


def test_what_union_controlnets_add_is_whole_over_tensor() -> None:
    found = specs(controlnet(ControlNetUnionConfig, ControlNetUnionModel), tensor=2)
    added = ("task_embedding", "transformer_layes", "spatial_ch_projs", "control_add_embedding")
    places = {name: spec for name, spec in found.items() if name.startswith(added)}
    assert len(places) > 10
    assert not any("tensor" in spec for spec in places.values())


def test_heads_and_feed_forward_are_split_over_tensor(unet: nnx.Module) -> None:
    found = specs(unet, tensor=2)
    spatial = "down_blocks/1/attentions/0/transformer_blocks"
    temporal = "down_blocks/0/temporal_attentions/0/transformer_blocks/0"
    assert found[f"{spatial}/attn1/to_q/kernel"] == P(None, None, "tensor")
    assert found[f"{spatial}/attn2/to_out/0/kernel"] == P(None, "tensor", None)
    assert found[f"{spatial}/ff/net/2/kernel"] == P(None, "tensor", None)
    assert found[f"{temporal}/attention_blocks/1/to_v/kernel"] == P(None, "tensor")
    assert found[f"{temporal}/attention_blocks/1/to_out/0/kernel"] == P("tensor", None)
    assert found["mid_block/resnets/0/conv1/kernel"] == P(None, None, None, "tensor")
    assert found["mid_block/resnets/0/conv2/kernel"] == P(None, None, "tensor", None)
    assert found["mid_block/resnets/0/norm1/scale"] == P(None)
    assert found["mid_block/resnets/0/norm2/scale"] == P("tensor")


def test_heads_are_never_cut(unet: nnx.Module) -> None:
    """640 channels divide by 4, but its 10 heads do not; the 8 temporal ones do."""
    found = specs(unet, tensor=4)
    level = "down_blocks/1"
    query = f"{level}/attentions/0/transformer_blocks/attn1/to_q/kernel"
    assert found[query] == P(None, None, None)
    temporal = f"{level}/temporal_attentions/0/transformer_blocks/0/attention_blocks/0/to_q/kernel"
    assert found[temporal] == P(None, "tensor")
    assert found["down_blocks/2/attentions/0/transformer_blocks/attn1/to_q/kernel"] == P(
        None, None, "tensor"
    )


def test_fsdp_takes_the_largest_other_axis_of_kernels(unet: nnx.Module) -> None:
    found = specs(unet, fsdp=8, tensor=2)
    spatial = "down_blocks/2/attentions/0/transformer_blocks"
    assert found[f"{spatial}/attn1/to_q/kernel"] == P(None, "fsdp", "tensor")
    assert found[f"{spatial}/ff/net/0/proj/kernel"] == P(None, "tensor", "fsdp")
    assert found[f"{spatial}/norm1/scale"] == P(None, None)
    assert found["conv_in/kernel"] == P(None, None, None, "fsdp")


def test_an_axis_that_does_not_divide_stays_whole(unet: nnx.Module) -> None:
    found = specs(unet, fsdp=7, tensor=3)
    assert set(found.values()) <= {P(*[None] * rank) for rank in range(1, 5)}


def test_fsdp_divides_nearly_all_of_the_memory(unet: nnx.Module) -> None:
    sizes = flat_parameters(unet)
    shardings = parameter_shardings(unet, mesh(fsdp=8))
    held = sum(math.prod(shardings[path].shard_shape(leaf.shape)) for path, leaf in sizes.items())
    total = sum(math.prod(leaf.shape) for leaf in sizes.values())
    assert held < 1.01 * total / 8


def test_vae_is_whole_over_tensor() -> None:
    found = specs(full_size("sdxl_full.vae"), tensor=2)
    assert not any("tensor" in spec for spec in found.values())


def test_state_form_has_the_same_places(unet: nnx.Module) -> None:
    abstract = mesh(fsdp=4, tensor=2)
    tree = state_shardings(unet, abstract)
    by_path = parameter_shardings(unet, abstract)
    leaves = jax.tree.leaves(tree, is_leaf=lambda leaf: isinstance(leaf, NamedSharding))
    assert {str(leaf.spec) for leaf in leaves} == {str(leaf.spec) for leaf in by_path.values()}
    assert len(leaves) == len(by_path)


def test_parameters_without_a_rule_are_listed() -> None:
    class Unknown(nnx.Module):
        def __init__(self) -> None:
            self.alpha = nnx.Param(jax.numpy.zeros((2, 2)))
            self.conv = nnx.Conv(1, 1, (1, 1), rngs=nnx.Rngs(0))
            self.beta = nnx.Param(jax.numpy.zeros(2))

    with pytest.raises(UnmatchedParametersError, match="2 parameters: alpha, beta"):
        parameter_shardings(Unknown(), mesh())
