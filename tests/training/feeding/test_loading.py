"""What is told once while models are loaded and prompts are encoded."""

import dataclasses
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from hotshot_jax.cli.compilation_cache import CompilationCounter
from hotshot_jax.conditioning.text.prompt import tokenize
from hotshot_jax.errors import HotshotError
from hotshot_jax.parallel.mesh import MeshConfig, create_mesh
from hotshot_jax.pipelines.components import Components
from hotshot_jax.pipelines.loading import load_tokenizer
from hotshot_jax.runtime.progress import NoProgress
from hotshot_jax.training.feeding import feed
from hotshot_jax.training.feeding.feed import Encoders, Feed
from hotshot_jax.training.trainees.models import load_models
from hotshot_jax.training.trainees.trainee import Division


def _temporal(models: Components) -> Division:
    return Division.of(models.unet, "temporal")


def _without_models(checkpoint: Path) -> Components:
    models: dict[str, Any] = dict.fromkeys(("text_encoder", "text_encoder_2", "unet", "vae"))
    tokenizers = {n: load_tokenizer(checkpoint / n) for n in ("tokenizer", "tokenizer_2")}
    return Components(**models, **tokenizers, scheduler_config={})


class OneBatch:
    config = SimpleNamespace(batch_size=2)

    def __init__(self, batch: Any):
        self.batch = batch

    def __next__(self) -> Any:
        return self.batch


@pytest.mark.parametrize("zeros", [True, False])
def test_where_text_encoders_train_steps_are_given_ids(tiny_checkpoint: Path, zeros: bool) -> None:
    """No text encoder is asked for: there are none."""
    components = dataclasses.replace(
        _without_models(tiny_checkpoint), force_zeros_for_empty_prompt=zeros
    )
    mesh = create_mesh(MeshConfig(), jax.devices()[:1])
    encoders = Encoders(components, mesh)
    encoders.moments = lambda frames: (frames, frames)  # type: ignore[method-assign]
    prompts = ["a fox", "a red whale"]
    frames = np.zeros((2, 1, 8, 8, 3), np.float32)
    batch = SimpleNamespace(arrays={"frames": frames}, prompts=prompts, time_ids=np.ones((2, 6)))
    loader: Any = OneBatch(batch)
    _, arrays = Feed(loader, encoders, mesh, text_trains=True).next()
    empty = [] if zeros else ["empty_ids", "empty_ids_2"]
    assert sorted(arrays) == sorted(["deviation", "ids", "ids_2", "mean", "time_ids", *empty])
    for name, tokenizer in (("ids", components.tokenizer), ("ids_2", components.tokenizer_2)):
        np.testing.assert_array_equal(arrays[name], tokenize(tokenizer, prompts))
        if empty:
            np.testing.assert_array_equal(arrays[f"empty_{name}"], tokenize(tokenizer, [""]))


def test_zeros_for_no_prompt_have_the_shape_of_a_prompt_and_compile_nothing(
    tiny_checkpoint: Path,
) -> None:
    mesh = create_mesh(MeshConfig(), jax.devices()[:1])
    loaded = load_models(
        str(tiny_checkpoint), None, _temporal, mesh,
        dtype=np.float32, vae_dtype=np.float32, seed=0, progress=NoProgress(),
    )  # fmt: skip
    components = dataclasses.replace(loaded.components, force_zeros_for_empty_prompt=True)
    encoders = Encoders(components, mesh)
    counter = CompilationCounter()
    empty = encoders.no_text()
    assert counter.hits + counter.misses == 0
    for zeros, text in zip(empty, encoders.text(["a fox"]), strict=True):
        np.testing.assert_array_equal(np.asarray(zeros), np.zeros(text.shape, text.dtype))
        assert np.asarray(zeros).dtype == text.dtype


def test_only_the_first_prompt_that_is_cut_off_is_told(
    tiny_checkpoint: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoders = Encoders(
        _without_models(tiny_checkpoint), create_mesh(MeshConfig(), jax.devices()[:1])
    )
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
