"""What a single file says of the models in it, and of their schedule."""

import json

import numpy as np
import pytest
from sdxl_tiny import COMPONENTS, GOLDEN, HEADS, as_source, config, write

from hotshot_jax.convert.formats.single_file import open_single_file
from hotshot_jax.convert.formats.single_file_config import scheduler_config
from hotshot_jax.convert.tensors.tensor_source import TensorSource
from tests.single_file_writer import to_single_file


@pytest.mark.parametrize("name", COMPONENTS)
def test_derived_configuration_is_the_models_own(name, single):
    derived, given = dict(single.component(name).config), config(name)
    same = set(derived) & set(given) - {"_class_name", "sample_size", "eos_token_id"}
    assert len(same) >= 9
    for key in same:
        ours = [str(each).replace("2D", "3D") for each in np.atleast_1d(derived[key])]
        assert ours == [str(each).replace("2D", "3D") for each in np.atleast_1d(given[key])], key


@pytest.mark.parametrize(
    ("component", "name"),
    [
        ("unet", "unet2d"),
        ("text_encoder", "text_encoder"),
        ("text_encoder_2", "text_encoder_2"),
        ("vae", "vae"),
    ],
)
def test_full_size_shapes_give_sdxls_configuration(tmp_path, component, name):
    """From shapes alone: nothing of a full-size model is stored."""
    models = GOLDEN / "models"
    shapes = json.loads((models / f"sdxl_full.{name}.shapes.json").read_text())
    expected = json.loads((models / f"sdxl_full.{name}.config.json").read_text())
    template = as_source({"x": np.zeros(1, np.float32)}, tmp_path / "x.safetensors")
    named = {
        key: template["x"].mapped(key, tuple(entry["shape"]), lambda x: x)
        for key, entry in shapes.items()
        if not entry.get("buffer")
    }
    stored = to_single_file({component: TensorSource(named.values(), tmp_path)})
    found = open_single_file(stored).component(component)
    assert set(found.tensors) == set(named)
    assert all(found.tensors.shape(key) == each.shape for key, each in named.items())
    # The published 2 is an error that means the largest id, the last of the vocabulary.
    same = (found.config.keys() & expected.keys()) - {"eos_token_id"}
    assert len(same) > 8
    for key in same:
        assert found.config[key] == expected[key], key


@pytest.mark.parametrize(
    ("markers", "expected", "note"),
    [
        ((), {"prediction_type": "epsilon", "timestep_spacing": "leading"}, None),
        (("v_pred",), {"prediction_type": "v_prediction"}, "predicts v_prediction"),
        (
            ("v_pred", "ztsnr"),
            {
                "prediction_type": "v_prediction",
                "rescale_betas_zero_snr": True,
                "timestep_spacing": "trailing",
            },
            "zero terminal SNR",
        ),
        (("ztsnr",), {"prediction_type": "epsilon"}, "ignored"),
    ],
)
def test_markers_switch_the_scheduler_and_say_so(tmp_path, markers, expected, note):
    empty = {name: np.zeros(0, np.float32) for name in (*markers, "model.diffusion_model.x")}
    scheduler, notes = scheduler_config(write(tmp_path, empty))
    assert expected.items() <= scheduler.items()
    assert len(notes) == (note is not None)
    assert note is None or note in notes[0]


@pytest.mark.parametrize(
    ("header", "markers", "expected"),
    [
        ({"modelspec.prediction_type": "v"}, (), ("v_prediction", False)),
        ({"modelspec.prediction_type": "V-Prediction"}, (), ("v_prediction", False)),
        ({"modelspec.prediction_type": "epsilon"}, (), ("epsilon", False)),
        ({"modelspec.prediction_type": "epsilon"}, ("v_pred",), ("v_prediction", False)),
        ({"modelspec.prediction_type": "v"}, ("ztsnr",), ("v_prediction", True)),
        ({"ss_v_parameterization": "True"}, (), ("v_prediction", False)),
        (
            {"modelspec.prediction_type": "v", "ss_zero_terminal_snr": "True"},
            (),
            ("v_prediction", True),
        ),
        ({"modelspec.prediction_type": "sample"}, (), ("sample", False)),
        ({"modelspec.prediction_type": "rectified_flow"}, (), ("epsilon", False)),
        (
            {"modelspec.prediction_type": "velocity", "modelspec.noise_process": "flow"},
            (),
            ("epsilon", False),
        ),
    ],
)
def test_headers_switch_the_scheduler_and_say_so(tmp_path, header, markers, expected):
    empty = {name: np.zeros(0, np.float32) for name in (*markers, "model.diffusion_model.x")}
    plain = write(tmp_path, empty)
    scheduler, notes = scheduler_config(TensorSource(plain.values(), plain.path, header))
    found = scheduler["prediction_type"], scheduler.get("rescale_betas_zero_snr", False)
    assert found == expected
    assert bool(notes) == (header != {"modelspec.prediction_type": "epsilon"} or bool(markers))


def test_edm_markers(tmp_path, tensors):
    markers = {
        "edm_vpred.sigma_max": np.float32([120.0]).reshape(()),
        "edm_vpred.sigma_min": np.float32([0.002]).reshape(()),
    }
    opened = open_single_file(write(tmp_path, tensors | markers), HEADS)
    assert opened.scheduler["_class_name"] == "EDMEulerScheduler"
    assert opened.scheduler["sigma_max"] == 120.0
    assert "EDM" in opened.notes[0]
