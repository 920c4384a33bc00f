"""LoRA files: outputs of UNet and text encoders with their weights merged."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.models.formula_weights import formula_source, read_shapes
from benchmarks.models.loading import load_module
from benchmarks.parity_cases import unet
from benchmarks.parity_cases.case import WHOLE_MODEL, Case, ModelReference, Result, compare
from benchmarks.parity_cases.compilation import jit_for_few_calls
from benchmarks.parity_cases.layout import channels_first
from hotshot_jax.convert.builders import model_builder
from hotshot_jax.lora import Lora, ModuleNames, merged_source, open_lora
from hotshot_jax.models import CLIPTextModel, CLIPTextOutput

_CLASSES = {
    "unet": "UNet3DConditionModel",
    "text_encoder": "CLIPTextModel",
    "text_encoder_2": "CLIPTextModelWithProjection",
}
_TEXT_OUTPUTS = ("penultimate", "pooled")


def matches(case: Case) -> bool:
    """Whether the case loads a LoRA."""
    return "pipe.load_lora_weights(" in case.call


def run(case: Case) -> Iterator[Result]:
    """Compares the outputs before loading and at every strength that the case has."""
    references = {name: case.model(of_class) for name, of_class in _CLASSES.items()}
    names = ModuleNames({name: _shapes(each) for name, each in references.items()})
    lora = open_lora(case.folder / case.description["lora_file"], names)
    inputs = unet.read_inputs(case, "")
    for prefix in case.prefixes("unet_out"):
        word = prefix.removesuffix(".")
        scale = 0.0 if word == "base" else float(word.removeprefix("scale"))
        loaded = _load("unet", references["unet"], lora, scale)
        output = unet.forward(loaded, *inputs, temporal=True)
        name = f"{prefix}unet_out"
        yield compare(name, channels_first(output), case[name], WHOLE_MODEL)
    for component, ids in (("text_encoder", "input_ids"), ("text_encoder_2", "input_ids_2")):
        for prefix in case.prefixes(f"{component}.penultimate"):
            scale = float(prefix.removeprefix("scale").removesuffix("."))
            encoder = _load(component, references[component], lora, scale)
            text = _encode(encoder, jnp.asarray(case[ids], jnp.int32))
            named = {"penultimate": text.hidden_states[-2], "pooled": text.pooled}
            for what in _TEXT_OUTPUTS:
                name = f"{prefix}{component}.{what}"
                if name in case:
                    yield compare(name, np.asarray(named[what]), case[name], WHOLE_MODEL)


@functools.lru_cache(maxsize=8)
def _shapes(reference: ModelReference) -> dict[str, tuple[int, ...]]:
    return read_shapes(reference.shapes_path)


def _load(component: str, reference: ModelReference, lora: Lora, scale: float) -> Any:
    where = str(reference.shapes_path)
    source = formula_source(_shapes(reference), reference.seed, reference.shapes_path)
    build = model_builder(component, reference.config, where=str(reference.config_path))
    merged = merged_source(source, component, [(lora, scale)])
    return load_module(build, merged, where=where, dtype=jnp.float32)


@jit_for_few_calls()
def _encode(model: CLIPTextModel, input_ids: jax.Array) -> CLIPTextOutput:
    return model(input_ids)
