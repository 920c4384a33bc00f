"""The text encoders against current transformers."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch_twins import MODEL_TOLERANCE, build, fill, names, relative_error

from benchmarks.parity_cases.compilation import jit_for_few_calls
from hotshot_jax.convert.tensors.rules import torch_slots
from hotshot_jax.models import CLIPTextConfig, CLIPTextModel, CLIPTextOutput


@jit_for_few_calls()
def run(model: Any, input_ids: np.ndarray) -> CLIPTextOutput:
    return model(input_ids)


def random_config(seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    heads = int(random.integers(1, 5))
    vocabulary = int(random.integers(50, 200))
    return {
        "hidden_size": int(heads * 4 * random.integers(1, 4)),
        "intermediate_size": int(random.integers(10, 70)),
        "num_hidden_layers": int(random.integers(2, 6)),
        "num_attention_heads": heads,
        "vocab_size": vocabulary,
        "max_position_embeddings": int(random.integers(9, 20)),
        "hidden_act": str(random.choice(["quick_gelu", "gelu"])),
        "projection_dim": int(random.integers(3, 30)),
        # 2 stands for the largest id, which is the end of text in CLIP's vocabulary.
        "eos_token_id": [2, vocabulary - 1, vocabulary // 2][seed % 3],
        "bos_token_id": 0,
        "pad_token_id": 1,
    }


def random_ids(config: CLIPTextConfig, seed: int) -> np.ndarray:
    """Texts of several lengths, ended by the end of text and padded with it."""
    random = np.random.default_rng([seed, 1])
    tokens = config.max_position_embeddings
    end = config.vocab_size - 1 if config.eos_token_id == 2 else config.eos_token_id
    ids = random.integers(3, config.vocab_size - 1, (4, tokens))
    ids[ids == end] = 3
    for row, length in enumerate((1, tokens // 2, tokens - 1, tokens - 2)):
        ids[row, length:] = end
    # What follows the first end of text has no say in where the text is pooled.
    ids[3, -1] = 5
    return ids


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("class_name", ["CLIPTextModel", "CLIPTextModelWithProjection"])
def test_equals_transformers(seed: int, class_name: str) -> None:
    values = random_config(seed)
    config = CLIPTextConfig.from_dict({**values, "architectures": [class_name]})
    model = build(lambda rngs: CLIPTextModel(config, rngs=rngs))
    # Current transformers leaves out a prefix that published checkpoints have.
    prefix = "" if config.with_projection else "text_model."
    twin = getattr(transformers, class_name)(transformers.CLIPTextConfig(**values))
    fill(twin, prefix)
    assert set(torch_slots(model)) == names(twin, prefix)

    ids = random_ids(config, seed)
    expected = twin(torch.from_numpy(ids), output_hidden_states=True)
    got = run(model, ids.astype(np.int32))
    pooled = expected.text_embeds if config.with_projection else expected.pooler_output
    assert relative_error(got.pooled, pooled) < MODEL_TOLERANCE
    assert relative_error(got.last_hidden_state, expected.last_hidden_state) < MODEL_TOLERANCE
    assert len(got.hidden_states) == config.num_hidden_layers + 1
    for index in range(config.num_hidden_layers):
        error = relative_error(got.hidden_states[index], expected.hidden_states[index])
        assert error < MODEL_TOLERANCE, f"layer {index}"


def test_later_tokens_do_not_change_earlier_ones() -> None:
    config = CLIPTextConfig.from_dict({**random_config(0), "architectures": ["CLIPTextModel"]})
    model = build(lambda rngs: CLIPTextModel(config, rngs=rngs))
    ids = random_ids(config, 0)[:1].astype(np.int32)
    changed = ids.copy()
    changed[0, 5:] = 7
    first, second = run(model, ids).last_hidden_state, run(model, changed).last_hidden_state
    np.testing.assert_array_equal(first[0, :5], second[0, :5])
    assert relative_error(first[0, 5:], second[0, 5:]) > 1e-2
