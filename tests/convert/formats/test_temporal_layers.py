import ml_dtypes
import numpy as np
import pytest
import torch
from diffusers import MotionAdapter
from diffusers.loaders.single_file_utils import convert_animatediff_checkpoint_to_diffusers
from sdxl_tiny import as_source, state_dict

from hotshot_jax.choices import TEMPORAL_SPELLINGS
from hotshot_jax.convert.formats.temporal_layers import (
    COMFYUI,
    DIFFUSERS,
    HOTSHOT,
    motion_adapter_config,
    spelling_of,
    temporal_source,
    with_temporal_layers,
    write_names,
)
from hotshot_jax.convert.tensors.rules import is_temporal
from hotshot_jax.errors import HotshotError
from hotshot_jax.models.layers.embeddings import positional_encoding

TABLE = "down_blocks.1.temporal_attentions.0.transformer_blocks.0.attention_blocks.1.pos_encoder"
TABLE += ".positional_encoding"


@pytest.fixture(scope="module")
def unet() -> dict[str, np.ndarray]:
    return state_dict("unet")


@pytest.fixture(scope="module")
def shapes(unet) -> dict[str, tuple[int, ...]]:
    return {name: each.shape for name, each in unet.items()}


@pytest.fixture(scope="module")
def source(unet, tmp_path_factory):
    return as_source(unet, tmp_path_factory.mktemp("unet") / "unet.safetensors")


@pytest.fixture(scope="module")
def temporal(unet) -> dict[str, np.ndarray]:
    return {name: each for name, each in unet.items() if is_temporal(name)}


def tensors(source) -> dict[str, np.ndarray]:
    return {name: np.array(source.read(name)) for name in source.names}


def test_there_are_fifteen_layers_of_26_weights(temporal):
    """28 tensors in the published file, two of which are tables."""
    assert len(temporal) == 15 * 26


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("spelling", TEMPORAL_SPELLINGS)
def test_every_spelling_comes_back_bit_equal(tmp_path, source, temporal, shapes, spelling, dtype):
    written = {
        name: each.astype(dtype) for name, each in tensors(write_names(source, spelling)).items()
    }
    file = as_source(written, tmp_path / "temporal.safetensors")
    assert spelling_of(file.names) == spelling
    back = temporal_source(file, shapes)
    assert set(back.names) == set(temporal)
    for name, each in temporal.items():
        assert back.read(name).tobytes() == each.astype(dtype).tobytes(), name


def test_whole_unet_gives_its_temporal_layers(source, temporal, shapes):
    assert set(temporal_source(source, shapes).names) == set(temporal)


def test_temporal_layers_move_to_another_unet(tmp_path, source, temporal, shapes):
    other = {name: each + 1 for name, each in tensors(source).items()}
    file = as_source(other, tmp_path / "other.safetensors")
    for spatial in (file, file.renamed(lambda name: None if is_temporal(name) else name)):
        joined = with_temporal_layers(spatial, temporal_source(source, shapes))
        assert set(joined.names) == set(shapes)
        for name in joined:
            expected = temporal[name] if is_temporal(name) else other[name]
            np.testing.assert_array_equal(joined.read(name), expected)


def test_published_names_and_tables(source, temporal):
    written = tensors(write_names(source, HOTSHOT))
    assert len(written) == 15 * 28
    assert temporal.keys() < written.keys()
    np.testing.assert_array_equal(written[TABLE], positional_encoding(24, 64)[None])


def test_comfyui_names(source):
    names = write_names(source, COMFYUI).names
    start = "up_blocks.2.motion_modules.2.temporal_transformer.transformer_blocks.0."
    assert f"{start}attention_blocks.1.pos_encoder.pe" in names
    assert f"{start}attention_blocks.0.to_out.0.weight" in names
    assert f"{start}ff_norm.bias" in names
    assert not any("temporal_attentions" in name for name in names)


def test_current_diffusers_loads_the_motion_adapter(source, shapes):
    """Names, shapes and the configuration; and diffusers' own conversion of ComfyUI's names."""
    config = motion_adapter_config(shapes)
    adapter = MotionAdapter(**{key: each for key, each in config.items() if key[0] != "_"})
    ours = {
        name: torch.tensor(each) for name, each in tensors(write_names(source, DIFFUSERS)).items()
    }
    own_tables = {k: each for k, each in adapter.state_dict().items() if k.endswith("pos_embed.pe")}
    adapter.load_state_dict(ours, strict=True)
    for name, each in own_tables.items():
        # Both in float32, at angles up to 23: a few units in the last place of the argument.
        np.testing.assert_allclose(ours[name], each, atol=1e-5)
    comfyui = {k: torch.tensor(v) for k, v in tensors(write_names(source, COMFYUI)).items()}
    theirs = convert_animatediff_checkpoint_to_diffusers(comfyui)
    assert set(theirs) == set(ours) - set(own_tables)
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


def changed(temporal, **changes):
    result = {**temporal, TABLE: positional_encoding(24, 64)[None]}
    for change in changes.values():
        result |= change
    return {name: each for name, each in result.items() if each is not None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({TABLE: positional_encoding(32, 64)[None]}, r"\[1, 32, 64\].*\[1, 24, channels\]"),
        ({TABLE: positional_encoding(24, 64)[None] + 0.02}, "differs from the sinusoids"),
        ({TABLE: np.full((1, 24, 64), np.nan, np.float32)}, "differs from the sinusoids"),
        (
            {"mid_block.temporal_attentions.0.proj_in.bias": np.zeros(128, np.float32)},
            "no temporal layer at mid_block.temporal_attentions.0",
        ),
        ({"down_blocks.0.temporal_attentions.0.proj_in.bias": None}, "missing: down_blocks.0"),
        (
            {"down_blocks.0.temporal_attentions.0.more.bias": np.zeros(32, np.float32)},
            "unknown: down_blocks.0.temporal_attentions.0.more.bias",
        ),
        (
            {"down_blocks.0.temporal_attentions.0.proj_in.bias": np.zeros(31, np.float32)},
            r"has shape \[31\], expected \[32\]",
        ),
        ({"down_blocks.0.temporal_attentions.0.proj_in.bias": np.zeros(32, np.int8)}, "int8"),
    ],
)
def test_layers_of_another_model_are_refused(tmp_path, temporal, shapes, change, message):
    file = as_source(changed(temporal, change=change), tmp_path / "temporal.safetensors")
    with pytest.raises(HotshotError, match=message):
        temporal_source(file, shapes)


def test_other_widths_are_named(tmp_path, temporal, shapes):
    """The full model's layers for a model of other width."""
    wide = {
        name: np.zeros([2 * size for size in each.shape], np.float32)
        for name, each in temporal.items()
    }
    file = as_source(wide, tmp_path / "temporal.safetensors")
    with pytest.raises(HotshotError, match="64, 128, 256 channels wide, the UNet's 32, 64, 128"):
        temporal_source(file, shapes)


def test_missing_layers_are_counted(tmp_path, temporal, shapes):
    part = {name: each for name, each in temporal.items() if not name.startswith("up_blocks.1.")}
    file = as_source(part, tmp_path / "temporal.safetensors")
    with pytest.raises(HotshotError, match=r"3 of 15 temporal layers are missing: up_blocks.1"):
        temporal_source(file, shapes)


def test_a_file_without_temporal_layers(tmp_path, shapes):
    file = as_source({"conv_in.bias": np.zeros(1)}, tmp_path / "unet.safetensors")
    with pytest.raises(HotshotError, match="holds no temporal layers"):
        temporal_source(file, shapes)
    with pytest.raises(HotshotError, match="no temporal layers to write"):
        write_names(file, HOTSHOT)
