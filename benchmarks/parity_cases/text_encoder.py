"""CLIP text encoders."""

from collections.abc import Iterator

import jax
import numpy as np

from benchmarks.parity_cases.case import SINGLE_MODULE, WHOLE_MODEL, Case, Result, compare
from benchmarks.parity_cases.models import load_text_encoder
from hotshot_jax.models import CLIPTextModel, CLIPTextOutput


def matches(case: Case) -> bool:
    """Whether the case runs a text encoder and nothing else."""
    return case.call.startswith(("CLIPTextModel(", "CLIPTextModelWithProjection("))


def run(case: Case) -> Iterator[Result]:
    """Compares pooled outputs and hidden states."""
    model = load_text_encoder(case.model(case.call.partition("(")[0]))
    for prefix in case.prefixes("input_ids"):
        output = _run(model, case[f"{prefix}input_ids"].astype(np.int32))
        named = {
            "pooled": output.pooled,
            "last_hidden_state": output.last_hidden_state,
            "penultimate": output.hidden_states[-2],
        } | {f"hidden_states.{i}": state for i, state in enumerate(output.hidden_states)}
        for name, got in named.items():
            if prefix + name in case:
                # The first hidden state is the embedding layer alone.
                bound = SINGLE_MODULE if name == "hidden_states.0" else WHOLE_MODEL
                yield compare(prefix + name, got, case[prefix + name], bound)


@jax.jit
def _run(model: CLIPTextModel, input_ids: jax.Array) -> CLIPTextOutput:
    return model(input_ids)
