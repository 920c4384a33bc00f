import ml_dtypes
import numpy as np
import pytest
from lora_cases import merge, names, normal, state_dict, write

from hotshot_jax.convert.tensors.tensor_source import TensorSource
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.lora import merge_tensor, merged_source, read_lora

SPATIAL = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
TEMPORAL = "down_blocks.0.temporal_attentions.0.transformer_blocks.0.attention_blocks.0.to_q"


def lora_of(path, module, width, seed=0):
    tensors = {
        f"unet.{module}.lora_A.weight": normal(2, width, seed=seed),
        f"unet.{module}.lora_B.weight": normal(width, 2, seed=seed),
    }
    return read_lora(write(path, tensors), names())


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> TensorSource:
    """Stored in half precision, as published."""
    tensors = {name: each.astype(np.float16) for name, each in state_dict("unet").items()}
    return write(tmp_path_factory.mktemp("base") / "unet.safetensors", tensors)


@pytest.fixture(scope="module")
def spatial(tmp_path_factory):
    return lora_of(tmp_path_factory.mktemp("spatial") / "a.safetensors", SPATIAL, 64)


@pytest.fixture(scope="module")
def temporal(tmp_path_factory):
    return lora_of(tmp_path_factory.mktemp("temporal") / "a.safetensors", TEMPORAL, 32)


def test_only_the_named_tensors_change(base, spatial, temporal):
    """Bit for bit: a spatial LoRA leaves temporal weights alone, and the other way round."""
    for lora, changed in ((spatial, SPATIAL), (temporal, TEMPORAL)):
        merged = merged_source(base, "unet", [(lora, 1.0)])
        assert merged.names == base.names
        for name in base:
            same = merged.read(name).tobytes() == base.read(name).tobytes()
            assert same == (name != f"{changed}.weight"), name
            assert merged.shape(name) == base.shape(name)


def test_changed_tensors_are_float32_and_keep_small_differences(base, spatial):
    """A difference below half of a float16 step is not lost in the merge."""
    name = f"{SPATIAL}.weight"
    merged = merged_source(base, "unet", [(spatial, 1e-5)])
    assert merged.dtype(name) == merged.read(name).dtype == np.float32
    moved = merged.read(name) - base.read(name).astype(np.float32)
    assert 0 < np.abs(moved).max() < 1e-4
    assert base.dtype(name) == np.float16


def test_read_for_a_type_rounds_once_and_is_forgotten_by_what_is_computed_from_it(base, spatial):
    name = f"{SPATIAL}.weight"
    merged = merged_source(base, "unet", [(spatial, 1.0)])[name]
    rounded = merged.read_for(np.float16)
    np.testing.assert_array_equal(rounded, merged.read().astype(np.float16))
    assert rounded.dtype == np.float16
    doubled = merged.mapped("other", merged.shape, lambda array: array * 2)
    np.testing.assert_array_equal(doubled.read_for(np.float16), 2 * merged.read())
    assert base[name].read_for(np.float32).dtype == np.float16


def test_two_are_the_sum(base, spatial, tmp_path):
    other = lora_of(tmp_path / "b.safetensors", SPATIAL, 64, seed=1)
    name = f"{SPATIAL}.weight"
    plain = base.read(name).astype(np.float64)
    one, two, both, swapped = (
        merged_source(base, "unet", loras).read(name)
        for loras in (
            [(spatial, 1.0)],
            [(other, 0.6)],
            [(spatial, 1.0), (other, 0.6)],
            [(other, 0.6), (spatial, 1.0)],
        )
    )
    # Sums of values of order 10 in float32.
    np.testing.assert_allclose(both, one + (two - plain), atol=1e-5)
    np.testing.assert_allclose(both, swapped, atol=1e-5)


def test_strengths_come_and_go_without_trace(base, spatial):
    """What a pipeline does when a scale changes: the changed tensors are read again."""
    names_changed = spatial.names("unet")
    assert names_changed == {f"{SPATIAL}.weight"}
    before = {name: base.read(name).copy() for name in names_changed}
    strong = merged_source(base, "unet", [(spatial, 2.0)])
    assert all((strong.read(name) != before[name]).any() for name in names_changed)
    off = merged_source(base, "unet", [(spatial, 0.0)])
    for name in names_changed:
        assert off.read(name).tobytes() == before[name].tobytes()
        assert off.dtype(name) == np.float16


def test_no_strength_means_the_bases_own_arrays(base, spatial):
    off = merged_source(base, "unet", [(spatial, 0.0)])
    assert all(off[name] is base[name] for name in base)


def test_parameters_given_are_left_as_they_are(spatial):
    parameters = state_dict("unet")
    kept = parameters[f"{SPATIAL}.weight"].copy()
    merged = merge(parameters, "unet", [(spatial, 1.0)])
    assert list(merged) == [f"{SPATIAL}.weight"]
    np.testing.assert_array_equal(parameters[f"{SPATIAL}.weight"], kept)
    assert merge(parameters, "text_encoder", [(spatial, 1.0)]) == {}


def test_bfloat16_weights(spatial):
    weight = state_dict("unet")[f"{SPATIAL}.weight"].astype(ml_dtypes.bfloat16)
    changes = [(change, 1.0) for change in spatial.changes["unet"][f"{SPATIAL}.weight"]]
    expected = merge_tensor(weight.astype(np.float32), changes)
    np.testing.assert_array_equal(merge_tensor(weight, changes), expected)


@pytest.mark.parametrize("scale", [np.nan, np.inf])
def test_scale_must_be_finite(base, spatial, scale):
    with pytest.raises(UsageError, match="finite"):
        merged_source(base, "unet", [(spatial, scale)])


def test_a_tensor_that_the_base_lacks(base, temporal):
    plain = base.renamed(lambda name: None if "temporal" in name else name)
    with pytest.raises(HotshotError, match="a LoRA changes it"):
        merged_source(plain, "unet", [(temporal, 1.0)])
