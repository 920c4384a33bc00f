"""What is told once while models are loaded and prompts are encoded."""

import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from hotshot_jax.errors import HotshotError
from hotshot_jax.parallel.mesh import MeshConfig, create_mesh
from hotshot_jax.pipelines.components import Components
from hotshot_jax.pipelines.loading import load_tokenizer
from hotshot_jax.runtime.progress import NoProgress
from hotshot_jax.training.feeding import feed
from hotshot_jax.training.feeding.feed import Encoders
from hotshot_jax.training.trainees.models import load_models
from hotshot_jax.training.trainees.trainee import Division


def _temporal(models: Components) -> Division:
    return Division.of(models.unet, "temporal")


def test_only_the_first_prompt_that_is_cut_off_is_told(
    tiny_checkpoint: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: dict[str, Any] = dict.fromkeys(("text_encoder", "text_encoder_2", "unet", "vae"))
    tokenizers = {n: load_tokenizer(tiny_checkpoint / n) for n in ("tokenizer", "tokenizer_2")}
    components = Components(**models, **tokenizers, scheduler_config={})
    encoders = Encoders(components, create_mesh(MeshConfig(), jax.devices()[:1]))
    monkeypatch.setattr(feed, "_encode_text", lambda first, second, ids, ids_2: (ids, ids_2))
    caplog.set_level(logging.WARNING)
    encoders.text(["a fox", "a red fox"])
    assert not caplog.records
    for word in ("fox", "whale"):
        ids, _ = encoders.text(["a fox", f"{word} " * 100])
        assert np.shape(ids)[0] == 2
    (record,) = caplog.records
    assert "75 tokens" in record.getMessage() and "fox fox" in record.getMessage()


def test_the_reference_s_optimiser_is_said_not_to_be_read(
    tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "optimizer.bin").write_bytes(b"")
    mesh = create_mesh(MeshConfig(), jax.devices()[:1])
    # There is no UNet beside it, which is the end of this loading.
    with pytest.raises(HotshotError, match=r"config\.json"):
        load_models(
            str(tiny_checkpoint), str(tmp_path), _temporal, mesh,
            dtype=np.float32, vae_dtype=np.float32, seed=0, progress=NoProgress(),
        )  # fmt: skip
    assert "optimizer.bin is not read" in caplog.text


def test_what_a_unet_from_elsewhere_predicts_comes_with_it(
    tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other"
    (other / "scheduler").mkdir(parents=True)
    (other / "unet").symlink_to(tiny_checkpoint / "unet")
    (other / "scheduler" / "scheduler_config.json").write_text(
        '{"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}'
    )
    mesh = create_mesh(MeshConfig(), jax.devices()[:1])
    models = load_models(
        str(tiny_checkpoint), str(other), _temporal, mesh,
        dtype=np.float32, vae_dtype=np.float32, seed=0, progress=NoProgress(),
    )  # fmt: skip
    assert models.components.scheduler_config["prediction_type"] == "v_prediction"
    assert models.components.scheduler_config["_class_name"] != "DDIMScheduler"
    assert "prediction_type = v_prediction" in caplog.text
