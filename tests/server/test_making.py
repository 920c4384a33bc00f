"""The worker: what is made together, what is cancelled, what fails, and that the next is made."""

import errno
import logging
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hotshot_jax.errors import HotshotError
from hotshot_jax.media.reading.read import open_clip
from hotshot_jax.server import results
from hotshot_jax.server.failures import BadRequest, NoRoom, QueueFull, ShuttingDown, Unknown
from hotshot_jax.server.job import Status
from hotshot_jax.server.kept_frames import KeptFrames
from hotshot_jax.server.limits import Limits
from hotshot_jax.server.store import JobStore
from hotshot_jax.server.worker import Pace
from tests.server.fakes import Making, Serving, asked, frames_of, until

FOUR = Pace((1, 2, 4))


def test_a_job_is_made_and_kept(tmp_path: Path) -> None:
    with Serving(tmp_path) as serving:
        id = serving.submit("a fox", seed=7)
        job = serving.ended(id)
        assert (job.status, job.tries, job.told["seed"]) == (Status.COMPLETED, 1, 7)
        folder = serving.store.job_folder(id)
        assert '"a fox"' in KeptFrames.read(folder / "frames.kept").metadata["settings"]
        for form in results.CLIP_FORMS:
            assert len(open_clip(serving.service.result(id, form)).durations_ms) == 2
        kept = serving.store.get(id)
        assert kept is not None
        assert kept.bytes == sum(each.stat().st_size for each in folder.iterdir())


def test_jobs_that_are_alike_are_made_together_in_order_of_arrival(tmp_path: Path) -> None:
    making = Making()
    making.gate.clear()
    with Serving(tmp_path, making, pace=FOUR) as serving:
        ids = [serving.submit("0", steps=1)]
        until(lambda: making.batches)
        ids += [serving.submit(prompt, seed=n) for n, prompt in enumerate("abc")]
        ids += [serving.submit("wide", width=32), serving.submit("d"), serving.submit("e")]
        assert serving.service.standing(ids[1]) == {"stage": "waiting", "queue_position": 1}
        making.gate.set()
        assert {serving.ended(id).status for id in ids} == {Status.COMPLETED}
        assert making.batches == [["0"], ["a", "b", "c", "d"], ["wide"], ["e"]]
        assert [size for size, _, _ in making.asked] == [1, 4, 1, 1]
        for id, prompt, seed in zip(ids[1:4], "abc", range(3), strict=True):
            made = KeptFrames.read(serving.store.job_folder(id) / "frames.kept").frames
            clip = serving.service._planned(asked(prompt, seed=seed), {}).clip
            np.testing.assert_array_equal(made, frames_of(clip))


def test_calls_are_made_side_by_side(tmp_path: Path) -> None:
    making = Making()
    making.gate.clear()
    with Serving(tmp_path, making, pace=Pace(calls_at_once=2)) as serving:
        ids = [serving.submit(prompt) for prompt in "abc"]
        until(lambda: len(making.batches) == 2)
        assert serving.service.standing(ids[2]) == {"stage": "waiting", "queue_position": 1}
        making.gate.set()
        assert [serving.ended(id).status for id in ids] == [Status.COMPLETED] * 3
        assert sorted(making.batches) == [["a"], ["b"], ["c"]]


def test_what_a_server_ended_with_is_made_alone(tmp_path: Path) -> None:
    with JobStore(tmp_path) as store:
        ids = [store.add("video", asked(prompt), {}).id for prompt in "abcd"]
        store.begin(ids[1:3])
    running: list[str] = []
    seen: set[str] = set()

    def at_step(clips: Any) -> None:
        running.append(clips[0].prompt)
        time.sleep(0.02)
        seen.add("".join(sorted(set(running))))
        running.remove(clips[0].prompt)

    with Serving(tmp_path, Making(at_step=at_step), pace=Pace(calls_at_once=2)) as serving:
        assert {serving.ended(id).status for id in ids} == {Status.COMPLETED}
    assert all(each in seen and not any(each in s for s in seen if s != each) for each in "bc")


def test_one_of_a_batch_is_cancelled_and_the_others_are_made(tmp_path: Path) -> None:
    def at_step(clips: Any) -> None:
        if len(clips) == 3:
            serving.service.delete(ids[2])
            assert serving.service.job(ids[2]).status == Status.CANCELLED

    making = Making(at_step=at_step)
    making.gate.clear()
    with Serving(tmp_path, making, pace=FOUR) as serving:
        ids = [serving.submit("0", steps=1)]
        until(lambda: making.batches)
        ids += [serving.submit(prompt) for prompt in "abc"]
        making.gate.set()
        made = [serving.ended(id).status == Status.COMPLETED for id in ids]
        assert made == [True, True, False, True]
        until(lambda: not serving.store.job_folder(ids[2]).exists())


def test_a_job_is_cancelled_between_two_steps(tmp_path: Path) -> None:
    making, steps = Making(), []

    def at_step(clips: Any) -> None:
        steps.append(1)
        if len(steps) == 3:
            serving.service.delete(id)

    making.gate.clear()
    making.at_step = at_step
    with Serving(tmp_path, making) as serving:
        id = serving.submit(steps=50)
        making.gate.set()
        assert serving.ended(id).status == Status.CANCELLED
        until(lambda: serving.store.get(id).status == Status.CANCELLED)
        assert len(steps) == 3
        assert serving.ended(serving.submit("next")).status == Status.COMPLETED
        serving.service.delete(id)
        with pytest.raises(Unknown):
            serving.service.job(id)


def test_a_job_that_waits_is_cancelled_at_once(tmp_path: Path) -> None:
    making = Making()
    making.gate.clear()
    with Serving(tmp_path, making) as serving:
        serving.submit("0")
        until(lambda: making.batches)
        id = serving.submit("b")
        serving.service.delete(id)
        assert serving.service.job(id).status == Status.CANCELLED
        making.gate.set()
        assert serving.ended(serving.submit("c")).status == Status.COMPLETED
        assert making.batches == [["0"], ["c"]]


def test_what_fails_in_a_batch_fails_alone(tmp_path: Path) -> None:
    def at_clip(clip: Any) -> None:
        if clip.prompt == "bad":
            raise HotshotError("Every frame has a single colour.")

    making = Making(at_clip=at_clip)
    making.gate.clear()
    with Serving(tmp_path, making, pace=FOUR) as serving:
        ids = [serving.submit(prompt) for prompt in ("0", "good", "bad", "better")]
        making.gate.set()
        ended = [serving.ended(id) for id in ids]
        assert [job.status == Status.COMPLETED for job in ended] == [True, True, False, True]
        assert ended[2].error == {"code": "failed", "message": "Every frame has a single colour."}


def test_nothing_of_what_failed_is_kept_while_each_is_made_alone(tmp_path: Path) -> None:
    """A device that was full has room for one only when the arrays of all are gone."""
    kept: list[weakref.ref[np.ndarray]] = []

    def at_step(clips: Any) -> None:
        if len(clips) > 1:
            batch = np.zeros(3)
            kept.append(weakref.ref(batch))
            raise RuntimeError("RESOURCE_EXHAUSTED")
        gone.append(all(each() is None for each in kept))

    gone: list[bool] = []
    making = Making(at_step=at_step)
    making.gate.clear()
    with Serving(tmp_path, making, pace=FOUR) as serving:
        ids = [serving.submit(prompt) for prompt in ("0", "a", "b")]
        making.gate.set()
        assert all(serving.ended(id).status == Status.COMPLETED for id in ids)
    assert len(kept) == 1 and all(gone[-2:])


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (RuntimeError("secret words"), "server_error", "made a mistake"),
        (MemoryError(), "out_of_memory", "smaller size"),
        (RuntimeError("INTERNAL: CUDNN_STATUS_ALLOC_FAILED"), "out_of_memory", "smaller size"),
        (OSError(errno.ENOSPC, "No space left on device"), "no_room", "disk is full"),
    ],
)
def test_whatever_happens_the_next_job_is_made(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    code: str,
    message: str,
) -> None:
    def at_step(clips: Any) -> None:
        if clips[0].prompt == "bad":
            raise error

    with Serving(tmp_path, Making(at_step=at_step)) as serving:
        failed = serving.ended(serving.submit("bad"))
        assert failed.error is not None and failed.error["code"] == code
        assert message in failed.error["message"]
        assert serving.ended(serving.submit("good")).status == Status.COMPLETED
    assert "secret" not in caplog.text
    assert (code == "server_error") == ("RuntimeError" in caplog.text)


def test_a_full_disk_fails_the_job_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Serving(tmp_path) as serving:
        with monkeypatch.context() as patched:
            patched.setattr(KeptFrames, "write", full)
            failed = serving.ended(serving.submit())
        assert failed.error is not None and "disk is full" in failed.error["message"]
        # The table is told first, so that a server killed in between finds no job without files.
        until(lambda: not serving.store.job_folder(failed.id).exists())
        # Not even that it failed can be written, which is told all the same.
        told: list[object] = []

        def no_room(*words: object) -> None:
            told.append(words)
            raise NoRoom("The server cannot keep this: full.")

        with monkeypatch.context() as patched:
            patched.setattr(KeptFrames, "write", full)
            patched.setattr(serving.store, "fail", no_room)
            failed = serving.ended(serving.submit())
            assert failed.error is not None and "disk is full" in failed.error["message"]
            until(lambda: told)
        assert serving.ended(serving.submit("next")).status == Status.COMPLETED


def test_a_job_that_takes_too_long_fails(tmp_path: Path) -> None:
    making = Making()
    making.gate.clear()
    with Serving(tmp_path, making, pace=Pace((1,), 0.05)) as serving:
        id = serving.submit()
        until(lambda: making.batches)
        making.at_step = lambda clips: time.sleep(0.1)
        making.gate.set()
        error = serving.ended(id).error
        assert error == {
            "code": "timeout",
            "message": "It took longer than 0.05 seconds, which is the limit.",
        }


def test_what_is_stopped_is_made_at_the_next_start(tmp_path: Path) -> None:
    making = Making()
    making.gate.clear()
    with Serving(tmp_path, making) as serving:
        begun = serving.submit("begun", steps=50)
        until(lambda: making.batches)
        waiting = serving.submit("waiting")
        making.at_step = lambda clips: serving.service._worker._stopping.wait(10)
        making.gate.set()
    assert making.batches == [["begun"]]
    with Serving(tmp_path) as serving:
        jobs = [serving.ended(id) for id in (begun, waiting)]
        assert [(job.status, job.tries) for job in jobs] == [(Status.COMPLETED, 1)] * 2
        assert serving.making.batches == [["begun"], ["waiting"]]
        serving.service.closing = True
        with pytest.raises(ShuttingDown):
            serving.submit()


def test_what_may_have_ended_the_server_is_made_alone(tmp_path: Path) -> None:
    with Serving(tmp_path) as serving:
        pass
    serving = Serving(tmp_path, pace=FOUR)
    ids = [serving.store.add("video", asked(prompt), {}).id for prompt in "abc"]
    serving.store.begin([ids[0]])
    with serving:
        for id in ids:
            serving.ended(id)
        assert serving.making.batches == [["a"], ["b", "c"]]


def test_a_queue_has_an_end(tmp_path: Path) -> None:
    making = Making()
    making.gate.clear()
    with Serving(tmp_path, making, Limits(most_waiting=2)) as serving:
        serving.submit("0")
        until(lambda: making.batches)
        serving.submit("1"), serving.submit("2")
        with pytest.raises(QueueFull, match="2 jobs wait already") as refused:
            serving.submit("3")
        assert refused.value.retry_after and refused.value.retry_after >= 1


def test_that_a_size_is_compiled_is_told(tmp_path: Path) -> None:
    making = Making(compiles=True)
    making.gate.clear()
    with Serving(tmp_path, making) as serving:
        id = serving.submit()
        told = until(
            lambda: (now := serving.service.standing(id)).get("stage") == "compiling" and now
        )
        assert "compiled" in told["note"]
        making.gate.set()
        serving.ended(id)
        # It is counted when the whole batch has been handed over.
        until(lambda: b"hotshot_compilations_total 1.0" in serving.service.metrics.text())


def test_progress_and_the_time_left_are_told(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    making = Making(at_step=lambda clips: seen.append(serving.service.standing(id)))
    making.gate.clear()
    with Serving(tmp_path, making) as serving:
        id = serving.submit(steps=10)
        making.gate.set()
        serving.ended(id)
    assert [each["progress"] for each in seen] == [5 + 85 * n // 10 for n in range(10)]
    assert "seconds_left" in seen[-1] and seen[-1]["stage"] == "denoising"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"video_length": 200}, "`num_frames` is 200; this server makes up to 128."),
        ({"width": 2048}, "`width` is 2048; this server makes up to 1024."),
        ({"steps": 500}, "`num_inference_steps` is 500"),
        ({"width": 17}, "`width` is 17; expected a multiple of 8"),
        ({"lora": [["style", 1.0]]}, "There is no LoRA 'style' here. There is none."),
        ({"controlnet": "depth"}, "There is no ControlNet 'depth' here"),
        ({"prompt": "(a"}, "`prompt`: the '('"),
        ({"eta": 0.5}, "`eta` has no effect on this `scheduler`"),
        ({"strength": 0.5}, "`strength` needs `video`"),
        ({"loop": True, "ping_pong": True}, "`loop` and `ping_pong` are two ways"),
        ({"video_duration": 1}, "`seconds` is 1 milliseconds"),
        ({"prompt_at": {"9": "b"}}, "`prompt_at`"),
    ],
)
def test_what_cannot_be_made_is_told_at_once_in_the_words_of_the_api(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    with Serving(tmp_path) as serving, pytest.raises(BadRequest) as refused:
        serving.service.submit("video", asked() | values)
    assert message in str(refused.value) and "--" not in str(refused.value)
    assert not list((tmp_path / "jobs").iterdir())


def test_warnings_are_for_the_sender_and_not_for_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    making = Making(at_clip=lambda clip: logging.getLogger("hotshot_jax.x").warning("ate %s", clip))
    with Serving(tmp_path, making) as serving:
        job = serving.ended(serving.submit("secret"))
    assert any("not made for 'secret'" in each for each in job.told["warnings"])
    assert any("secret" in each for each in job.warnings)
    assert "secret" not in caplog.text
