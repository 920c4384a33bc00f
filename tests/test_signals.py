"""A signal is not lost where Python drops what its handler raises."""

import contextlib
import gc
import os
import signal
import time
import types
import weakref
from collections.abc import Iterator

import pytest

from hotshot_jax.cli.run import INTERRUPTED, run
from hotshot_jax.signals import heard_too_early
from hotshot_jax.training.running.interruption import Interrupted, StopRequest


@contextlib.contextmanager
def signalled_while_collecting() -> Iterator[None]:
    """Sends this process a SIGINT from inside the garbage collector, once, and it goes on there."""
    sent = []

    def callback(phase: str, details: object) -> None:
        if not sent:
            sent.append(phase)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    def another(phase: str, details: object) -> None:
        time.sleep(0.01)

    gc.callbacks.extend([callback, another])
    try:
        yield
    finally:
        gc.callbacks.remove(callback)
        gc.callbacks.remove(another)
    assert sent


def outlast() -> None:
    gc.collect()
    time.sleep(5)
    pytest.fail("the signal was lost")


@pytest.fixture(autouse=True)
def listening_again() -> Iterator[None]:
    previous = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def test_a_command_stops() -> None:
    with signalled_while_collecting():
        assert run("test", outlast) == INTERRUPTED + signal.SIGINT


def test_a_second_request_ends_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hotshot_jax.training.running.interruption._REPEATED_WITHIN_SECONDS", 0.0)
    request = StopRequest()
    with request.listening():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert request.number == signal.SIGINT
        with signalled_while_collecting(), pytest.raises(Interrupted):
            outlast()


class Finalised:
    """Is interrupted while it is finalised."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)


def test_a_command_stops_after_a_finaliser() -> None:
    def body() -> None:
        Finalised()
        outlast()

    assert run("test", body) == INTERRUPTED + signal.SIGINT


class Referred:
    pass


def interrupted_in_a_callback_of_a_weak_reference() -> None:
    def callback(reference: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

    referred = Referred()
    reference = weakref.ref(referred, callback)
    del referred
    assert reference() is None
    outlast()


def test_a_command_stops_after_a_callback_of_a_weak_reference() -> None:
    assert run("test", interrupted_in_a_callback_of_a_weak_reference) == INTERRUPTED + signal.SIGINT


def test_a_second_request_ends_a_training_after_a_callback_of_a_weak_reference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hotshot_jax.training.running.interruption._REPEATED_WITHIN_SECONDS", 0.0)
    request = StopRequest()
    with request.listening():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        with pytest.raises(Interrupted):
            interrupted_in_a_callback_of_a_weak_reference()


def test_elsewhere_it_is_heard_at_once() -> None:
    heard = []

    def note(number: int, frame: types.FrameType | None) -> None:
        heard.append(heard_too_early(number, frame))

    signal.signal(signal.SIGINT, note)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)
    assert heard == [False]
