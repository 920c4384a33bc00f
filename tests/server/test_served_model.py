"""The real models behind a service: batches, LoRAs and ControlNets by name, against `ClipMaker`."""

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hotshot_jax.cli.serve.planner import InferPlanner
from hotshot_jax.jobs.maker import Clip, ClipMaker
from hotshot_jax.jobs.settings import ModelSettings
from hotshot_jax.media.write import write_video
from hotshot_jax.server.kept_frames import KeptFrames
from hotshot_jax.server.models import LoadedModels
from hotshot_jax.server.planning import PlannedClip
from hotshot_jax.server.service import ServedModel, Service
from hotshot_jax.server.store import JobStore
from hotshot_jax.server.warm import warm
from hotshot_jax.server.worker import Pace
from tests.lora_files import factors, is_spatial, write_lora
from tests.server.fakes import until
from tests.tiny_controlnet import write_tiny_controlnet

TWO = Pace((1, 2))
SIZE = {"width": 64, "height": 64, "video_length": 2, "steps": 2}


@dataclasses.dataclass
class Served:
    """A tiny model with a LoRA and a ControlNet that can be named."""

    models: LoadedModels
    planner: InferPlanner

    def alone(self, plan: PlannedClip) -> Clip:
        """What one call makes of a clip."""
        with self.models.lent(1, plan.loras, plan.controlnets) as maker:
            (clip,) = maker.make([plan.clip], plan.controls)
            return clip

    def made(self, folder: Path, *jobs: dict[str, Any], pace: Pace = TWO) -> list[KeptFrames]:
        """What a server makes of jobs that wait when it starts."""
        with JobStore(folder) as store:
            ids = [store.add("video", SIZE | job, {}).id for job in jobs]
            service = Service(
                store,
                self.models,
                self.planner,
                ServedModel("tiny"),
                pace=pace,
            )
            service.start()
            try:
                for id in ids:
                    until(lambda id=id: service.job(id).finished, 120)
                    assert service.job(id).error is None
            finally:
                service.stop()
            return [KeptFrames.read(store.job_folder(id) / "frames.kept") for id in ids]


@pytest.fixture(scope="module")
def served(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    lora = folder / "style.safetensors"
    write_lora(lora, factors(tiny_checkpoint, choose=is_spatial))
    net = write_tiny_controlnet(folder / "edges", 0)
    model = ModelSettings(
        str(tiny_checkpoint),
        precision="f32",
        loras=((str(lora), 0.0),),
        controlnets=(str(net),),
    )
    base = {"pretrained_path": str(tiny_checkpoint), "precision": "f32"}
    loras, nets = {"style": str(lora)}, {"edges": str(net)}
    loaded = ClipMaker.load(model)
    models = LoadedModels(loaded, loras, tuple(nets))
    yield Served(models, InferPlanner(base, {}, loras, nets))


def test_each_clip_of_a_batch_is_what_it_is_alone(served: Served, tmp_path: Path) -> None:
    jobs = [{"prompt": "a fox", "seed": 1}, {"prompt": "a whale", "seed": 2}]
    together = served.made(tmp_path, *jobs)
    for job, kept in zip(jobs, together, strict=True):
        plan = served.planner(SIZE | job, {})
        alone = served.alone(plan)
        difference = np.asarray(kept.frames).astype(int) - np.asarray(alone.frames)
        assert np.abs(difference).max() <= 1
        assert kept.metadata == {**plan.metadata, **alone.metadata}
    assert together[0].duration_ms == 1000


def test_a_lora_acts_where_it_is_asked_for(served: Served, tmp_path: Path) -> None:
    job: dict[str, Any] = {"prompt": "a fox", "seed": 1}
    before, styled, after = served.made(
        tmp_path, job, job | {"lora": [["style", 0.5]]}, job | {"prompt": "a fox "}
    )
    np.testing.assert_array_equal(before.frames, after.frames)
    assert np.abs(np.asarray(before.frames).astype(int) - np.asarray(styled.frames)).max() > 1
    assert '"lora": ["style.safetensors:0.5"]' in styled.metadata["settings"]
    assert "lora" not in after.metadata["settings"].replace("lora_allow_partial", "")


def test_a_controlnet_acts_where_it_is_asked_for(served: Served, tmp_path: Path) -> None:
    clip = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    path = write_video(tmp_path / "a.gif", clip, 1000, {})
    values = SIZE | {"prompt": "a fox", "seed": 1}
    followed = served.planner(values | {"controlnet": "edges"}, {"control": path})
    assert followed.controlnets == ("edges",) and followed.shared() is None
    made, plain = served.alone(followed), served.alone(served.planner(values, {}))
    assert np.abs(np.asarray(made.frames).astype(int) - np.asarray(plain.frames)).max() > 1


@pytest.mark.parametrize("usual", [{}, {"preset": "fast"}])
def test_what_is_warmed_is_not_compiled_again(served: Served, usual: dict[str, str]) -> None:
    planner = dataclasses.replace(served.planner, usual=usual)
    warm(served.models, planner, (64, 64, 2), (1, 2))
    with served.models.lent() as maker:
        programs = maker.pipeline.runtime._programs
    before = len(programs)
    asked = SIZE | {"steps": 10 if usual else 2, "seed": 1}
    clips = [planner(asked | {"prompt": prompt}, {}).clip for prompt in ("b", "c")]
    with served.models.lent(2) as two, served.models.lent(1) as one:
        list(two.make(clips))
        list(one.make(clips[:1]))
    assert len(programs) == before


def test_calls_side_by_side_make_what_each_makes_alone(served: Served, tmp_path: Path) -> None:
    jobs = [
        {"prompt": f"a fox {seed}", "seed": seed, "lora": [["style", 0.5]] if seed % 3 else []}
        for seed in range(6)
    ]
    pace = Pace(calls_at_once=2)
    for job, kept in zip(jobs, served.made(tmp_path, *jobs, pace=pace), strict=True):
        alone = served.alone(served.planner(SIZE | job, {}))
        np.testing.assert_array_equal(kept.frames, alone.frames)


def test_other_strengths_wait_until_nobody_uses_the_models(served: Served) -> None:
    order: list[str] = []

    def use(name: str, strength: float) -> threading.Thread:
        def body() -> None:
            with served.models.lent(1, [("style", strength)]):
                order.append(name)

        thread = threading.Thread(target=body)
        thread.start()
        return thread

    with served.models.lent(1, [("style", 0.0)]):
        use("same", 0.0).join()
        waiting = [use("other", 0.5)]
        until(served.models._turn.locked)
        # It would have to wait for ever if later ones went before it.
        waiting.append(use("later", 0.0))
        assert order == ["same"]
    for thread in waiting:
        thread.join()
    assert order == ["same", "other", "later"]
