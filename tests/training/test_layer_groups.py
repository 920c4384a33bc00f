"""Which parameters a group of layers has, and which factor counts where groups meet."""

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from flax import nnx

from hotshot_jax.convert.builders import model_builder
from hotshot_jax.convert.load import abstract
from hotshot_jax.convert.tensors.rules import torch_slots
from hotshot_jax.errors import UsageError
from hotshot_jax.training.layer_groups import check_factors, describe_factors, factors_by_name
from hotshot_jax.training.trainees.controlnet import ControlNetTrainee
from hotshot_jax.training.trainees.lora import TEXT_ENCODERS, LoraTrainee
from hotshot_jax.training.trainees.trainee import Division
from tests.tiny_checkpoint import tiny_configs

CONFIG = Path(__file__).parents[1] / "golden" / "models" / "unet_tiny.config.json"
TEXT = (
    "text_encoder/text_model/encoder/layers/self_attn/q_proj/lora_down",
    "text_encoder_2/text_model/encoder/layers/mlp/fc1/lora_up",
)


@pytest.fixture(scope="module")
def unet() -> nnx.Module:
    config = json.loads(CONFIG.read_text())
    return abstract(model_builder("unet", config, where="unet_tiny"))


@pytest.fixture(scope="module")
def names(unet: nnx.Module) -> frozenset[str]:
    return Division.of(unet, "unet").trained


def members(group: str, names: frozenset[str]) -> set[str]:
    return set(factors_by_name({group: 2.0}, names))


def part(name: str, *words: str) -> bool:
    return any(word in name.split("/") for word in words)


GROUPS: dict[str, Callable[[str], bool]] = {
    "unet": lambda n: not n.startswith("text"),
    "text_encoder": lambda n: n == TEXT[0],
    "text_encoder_2": lambda n: n == TEXT[1],
    "text_encoder*": lambda n: n in TEXT,
    "attention": lambda n: part(n, "to_q", "to_k", "to_v", "to_out", "self_attn"),
    "self_attention": lambda n: (
        part(n, "to_q", "to_k", "to_v", "to_out", "self_attn") and not part(n, "attn2")
    ),
    "cross_attention": lambda n: part(n, "attn2"),
    "feed_forward": lambda n: part(n, "ff", "mlp"),
    "resnets": lambda n: (
        part(n, "conv1", "conv2", "conv_shortcut", "time_emb_proj")
        or (part(n, "norm1", "norm2") and part(n, "resnets"))
    ),
    "embeddings": lambda n: n.startswith(("time_embedding/", "add_embedding/")),
    "down": lambda n: n.startswith("down_blocks/"),
    "down1": lambda n: n.startswith("down_blocks/1/"),
    "mid": lambda n: n.startswith("mid_block/"),
    "up0": lambda n: n.startswith("up_blocks/0/"),
    "up0+temporal+feed_forward": lambda n: (
        n.startswith("up_blocks/0/temporal_attentions/") and part(n, "ff")
    ),
    "conv_in*": lambda n: n in ("conv_in/kernel", "conv_in/bias"),
    "*/bias": lambda n: n.endswith("/bias"),
    "conv_in.weight": lambda n: n == "conv_in/kernel",
    "down_blocks.1.resnets.0": lambda n: n.startswith("down_blocks/1/resnets/0/"),
    "*.to_q.weight+down": lambda n: n.startswith("down_blocks/") and n.endswith("to_q/kernel"),
}


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_has_its_layers_and_no_others(group: str, names: frozenset[str]) -> None:
    everything = names | set(TEXT)
    expected = {name for name in everything if GROUPS[group](name)}
    assert expected and members(group, everything) == expected


def test_kinds_are_those_that_training_knows(unet: nnx.Module, names: frozenset[str]) -> None:
    for kind in ("temporal", "spatial"):
        assert members(kind, names | set(TEXT)) == Division.of(unet, kind).trained
    norms = {name for name in names if name.endswith("/scale")}
    assert members("norms", names) == norms | {name[:-5] + "bias" for name in norms}


def test_names_of_pytorch_are_patterns(unet: nnx.Module, names: frozenset[str]) -> None:
    slots = torch_slots(unet)
    paths = {"/".join(map(str, slot.path)): name for name, slot in slots.items()}
    # Layers of a stack are one array, and have one rate.
    alone = [n for n in sorted(names) if slots[paths[n]].layer is None]
    for name in random.Random(0).sample(alone, 20):
        assert members(paths[name], names) == {name}


def test_factors_of_low_rank_and_controlnets_have_the_same_groups(unet: nnx.Module) -> None:
    lora = LoraTrainee.of(unet, "both", 2, "all").trained
    found = members("down1+temporal", lora)
    assert found == {n for n in lora if n.startswith("down_blocks/1/temporal_attentions/")}
    assert {name.rpartition("/")[2] for name in found} == {"lora_down", "lora_up"}
    encoders = {
        name: abstract(model_builder(name, tiny_configs()[name], where=name))
        for name in TEXT_ENCODERS
    }
    texts = LoraTrainee.of(unet, "both", 2, "all", encoders).trained - lora
    assert members("text_encoder*", lora | texts) == texts
    for name in TEXT_ENCODERS:
        own = {each for each in texts if each.startswith(f"{name}/")}
        assert members(name, lora | texts) == own
        attention = members(f"{name}+attention", texts)
        assert attention == {each for each in own if part(each, "self_attn")}
        assert members(f"{name}+feed_forward", texts) == own - attention != set()
    control = ControlNetTrainee.of(unet).trained  # type: ignore[arg-type]
    assert members("mid", control) == {n for n in control if n.startswith("mid_block/")}
    assert members("controlnet_*", control) == {n for n in control if n.startswith("controlnet_")}


def test_the_inner_group_counts_in_any_order(names: frozenset[str]) -> None:
    given = {"all": 0.1, "down": 0.5, "down1": 2.0, "down1+resnets": 3.0, "temporal+down1": 0.0}
    for seed in range(4):
        shuffled = dict(random.Random(seed).sample(sorted(given.items()), len(given)))
        found = factors_by_name(shuffled, names)
        for name in names:
            expected = 0.1
            if name.startswith("down_blocks/1/"):
                expected = 2.0
                if part(name, "resnets"):
                    expected = 3.0
                if part(name, "temporal_attentions"):
                    expected = 0.0
            elif name.startswith("down_blocks/"):
                expected = 0.5
            assert found[name] == expected, name
    assert set(found) == names


def test_what_crosses_needs_a_word_for_both(names: frozenset[str]) -> None:
    crossing = {"down": 0.5, "temporal": 2.0}
    with pytest.raises(UsageError, match=r"overlap.* by (down\+temporal|temporal\+down)=FACTOR"):
        factors_by_name(crossing, names)
    found = factors_by_name({**crossing, "down+temporal": 1.0}, names)
    assert not [n for n in found if n.startswith("down_blocks/") and "temporal" in n]
    # Where nothing else trains, one lies within the other.
    temporal = frozenset(n for n in names if "temporal_attentions" in n)
    within = factors_by_name(crossing, temporal)
    assert {within[n] for n in temporal if n.startswith("down_blocks/")} == {0.5}


def test_factors_of_one_are_as_good_as_none(names: frozenset[str]) -> None:
    assert factors_by_name({"all": 1.0, "temporal": 1.0, "down0+spatial": 1.0}, names) == {}
    assert factors_by_name({}, names) == {}


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"temporal": -0.1}, "of temporal is -0.1; expected a number from 0"),
        ({"all": float("nan")}, "of all is nan; expected a number"),
        ({"temporal": float("inf")}, "of temporal is inf; expected a number"),
        ({"temporl": 2.0}, r"no group 'temporl' \(did you mean temporal\?\)"),
        ({"down1+atention": 2.0}, r"no group 'atention' \(did you mean attention\?\)"),
        ({"": 2.0}, "no group ''"),
        ({"down1+": 2.0}, "no group ''"),
        ({"zzz": 2.0}, r"no group 'zzz' \(known are unet, "),
    ],
)
def test_what_makes_no_sense_is_refused_without_a_model(
    factors: Mapping[str, float], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check_factors(factors)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"down7": 2.0}, "nothing of down7 trains in this run. What does is in .*, down0, down1"),
        ({"text_encoder": 2.0}, "nothing of text_encoder trains in this run"),
        ({"mid+embeddings": 2.0}, r"nothing of mid\+embeddings trains"),
        ({"conv_inn.weight": 2.0}, "The nearest name of what does is conv_in/"),
        ({"down+up": 2.0}, r"nothing of down\+up trains"),
        ({"unet": 2.0, "*": 3.0}, "are the same layers here; give one of them"),
        ({"all": 0.0}, "is 0 for all that trains"),
        ({"temporal": 0.0, "spatial": 0.0}, "is 0 for all that trains"),
    ],
)
def test_what_has_nothing_to_train_is_refused(
    factors: Mapping[str, float], message: str, names: frozenset[str]
) -> None:
    check_factors(factors)
    with pytest.raises(UsageError, match=message):
        factors_by_name(factors, names)


def test_what_is_said_counts_tensors() -> None:
    by_name = {"a": 0.5, "b": 0.0, "c": 2.0, "d": 0.5}
    assert describe_factors(by_name, "abcdef") == (
        "learning rate x 2 for 1 tensors, learning rate x 1 for 2 tensors, learning rate x 0.5 "
        "for 2 tensors, 1 stay as they are"
    )
    assert describe_factors({"a": 0.5}, "ab") == (
        "learning rate x 1 for 1 tensors, learning rate x 0.5 for 1 tensors"
    )
