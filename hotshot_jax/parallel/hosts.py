"""Several processes, usually one a host, that run one command together."""

import concurrent.futures
import contextlib
import dataclasses
import importlib.util
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax._src import distributed

from hotshot_jax.choices import AUTO
from hotshot_jax.errors import HotshotError, UsageError

_T = TypeVar("_T")

logger = logging.getLogger(__name__)

# A process that is gone is noticed after this. Beyond it lies only the time to say so.
HEARTBEAT_SECONDS = 30
# Hosts of a pod start minutes apart when an image is being fetched.
_START_SECONDS = 300
# The last to finish may still be writing what the others need not wait for.
_END_SECONDS = 600

# The metadata server is asked so often, and with this between; once, a hiccup of it would part this
# host from the others.
_ASKED_TIMES, _ASKED_AFTER_SECONDS = 3, 2.0

# JAX's words where no cluster speaks for itself.
_NOT_FOUND = "coordinator_address should be defined"
_PAUSE = 0.1

_ENVIRONMENT = {
    "coordinator_address": "JAX_COORDINATOR_ADDRESS",
    "process_count": "JAX_NUM_PROCESSES",
    "process_index": "JAX_PROCESS_ID",
}


@dataclasses.dataclass(frozen=True)
class HostsConfig:
    """Where the processes of a run find each other.

    Attributes:
        coordinator_address: host and port of process 0, or "auto"; None for what a Cloud TPU says
            of itself, or for a process on its own.
        process_count: how many processes there are.
        process_index: which of them this is, from 0.
    """

    coordinator_address: str | None = None
    process_count: int | None = None
    process_index: int | None = None

    @classmethod
    def given(
        cls,
        coordinator_address: str | None,
        process_count: int | None,
        process_index: int | None,
        environment: Mapping[str, str] = os.environ,
    ) -> "HostsConfig":
        """The values of flags; what is None there is taken from JAX's environment variables.

        Raises:
            UsageError: one is missing or makes no sense.
        """
        return cls(
            coordinator_address or environment.get(_ENVIRONMENT["coordinator_address"]),
            _number("process_count", process_count, environment),
            _number("process_index", process_index, environment),
        )

    def __post_init__(self) -> None:
        if self.coordinator_address == AUTO:
            return
        values = dataclasses.asdict(self)
        missing = [name for name, value in values.items() if value is None]
        if len(missing) == len(values):
            return
        if missing:
            raise UsageError(
                f"Several processes need `{'` and `'.join(missing)}` too (or "
                f"{' and '.join(_ENVIRONMENT[name] for name in missing)}); on Cloud TPU none of "
                "these is needed."
            )
        assert self.coordinator_address is not None
        assert self.process_count is not None and self.process_index is not None
        host, _, port = self.coordinator_address.rpartition(":")
        if not host or not port.isdigit():
            raise UsageError(
                f"`coordinator_address` {self.coordinator_address}: expected HOST:PORT of process "
                f"0, such as 10.0.0.2:1234, or {AUTO} under Slurm or Open MPI."
            )
        if self.process_count < 1:
            raise UsageError(f"`process_count` is {self.process_count}; expected at least 1.")
        if not 0 <= self.process_index < self.process_count:
            raise UsageError(
                f"`process_index` is {self.process_index}; expected 0 to {self.process_count - 1}, "
                f"as `process_count` is {self.process_count}."
            )

    @property
    def alone(self) -> bool:
        """Whether nothing speaks for other processes."""
        return self.coordinator_address is None and not _on_cloud_tpu()

    @property
    def complete(self) -> bool:
        """Whether nobody has to be asked where the processes are."""
        return self.coordinator_address not in (None, AUTO)


def join(config: HostsConfig) -> bool:
    """Meets the other processes; to be called before anything asks JAX for devices.

    Returns:
        Whether there are others, or may be.

    Raises:
        HotshotError: they were not found.
    """
    if config.alone:
        return False
    address = config.coordinator_address

    def initialize() -> None:
        for left in reversed(range(_ASKED_TIMES)):
            try:
                jax.distributed.initialize(
                    # JAX finds out what it is not told.
                    coordinator_address=None if address == AUTO else address,
                    num_processes=config.process_count,
                    process_id=config.process_index,
                    # A cluster, which JAX asks for devices even so, gives each task one.
                    cluster_detection_method=(
                        "deactivate" if config.complete and _alone_on_node() else None
                    ),
                    initialization_timeout=_START_SECONDS,
                    heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                    shutdown_timeout_seconds=_END_SECONDS,
                )
                return
            except OSError:
                if address is not None or not left:
                    raise
                time.sleep(_ASKED_AFTER_SECONDS)

    try:
        _waiting(initialize)
    # JAX reads the variables of each kind of cluster as if they were all there, and whole numbers.
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        unset = isinstance(error, KeyError) and len(error.args) == 1
        what = f"{error.args[0]} is not set" if unset else _first_line(error).rstrip(".")
        not_found = _NOT_FOUND in what
        if address is not None:
            if not_found:
                what = "neither Slurm's nor Open MPI's variables are all set"
            raise UsageError(
                f"`coordinator_address` {address}: the other processes cannot be found that way "
                f"({what}).\nGive `coordinator_address` HOST:PORT, `process_count` and "
                "`process_index`."
            ) from error
        # What looked like a Cloud TPU is none, or has one host and does not say so.
        if not not_found:
            logger.warning(
                "What Cloud TPU says of the hosts cannot be read (%s); this process runs alone.",
                what,
            )
        return False
    except (OSError, ImportError) as error:
        if config.coordinator_address is not None:
            raise
        logger.warning(
            "Cloud TPU could not be asked for other hosts (%s); this process runs alone.",
            _first_line(error),
        )
        return False
    except RuntimeError as error:
        port = "the port" if address else "port 8482 (or JAX_COORDINATOR_PORT)"
        raise HotshotError(
            f"The other processes were not found at {address or 'process 0'} "
            f"({_first_line(error)}).\nStart the same command on every host within "
            f"{_START_SECONDS // 60} minutes, and let {port} through the firewall."
        ) from error
    if address is None and distributed.global_state.num_processes == 1:
        # Nobody is to be waited for, and nobody listens to this one's heart.
        jax.distributed.shutdown()
        return False
    return True


def compare(
    settings: Mapping[str, Any],
    differing: str = "The processes of this run were started differently",
    advice: str = "Start the same command with the same version on every host.",
) -> None:
    """Checks that all hosts were given the same; they have to call it together.

    Args:
        settings: what is compared, by what it is called.
        differing: what it means where it differs.
        advice: what to do then.

    Raises:
        UsageError: on every host, with the names and values of what differs.
    """
    if jax.process_count() > 1:
        listed = differences(_of_all_hosts(settings))
        if listed:
            error = UsageError(f"{differing}: {'; '.join(listed)}.\n{advice}")
            error.everywhere = True
            raise error


@contextlib.contextmanager
def failing_together(*kinds: type[HotshotError]) -> Iterator[None]:
    """What fails in this block on one host fails on all; they have to enter it together.

    Args:
        kinds: of errors that stay what they are, beside `UsageError`; others become a
            `HotshotError`. Each is made of a message alone.

    Raises:
        HotshotError: the first host's that failed.
    """
    if jax.process_count() == 1:
        yield
        return
    told = {kind.__name__: kind for kind in (*kinds, UsageError, HotshotError)}
    own = {"message": "", "kind": ""}
    try:
        yield
    except HotshotError as error:
        name = next(name for name, kind in told.items() if isinstance(error, kind))
        own = {"message": str(error), "kind": name}
    for index, other in enumerate(_of_all_hosts(own)):
        if message := other["message"]:
            own_words = index == jax.process_index()
            shared = told[other["kind"]](message if own_words else f"[{index}] {message}")
            shared.everywhere = True
            raise shared


def first_of_all_hosts(text: str) -> str:
    """The text that the first host gives; all have to call it together, and all wait for all."""
    return text if jax.process_count() == 1 else _of_all_hosts({"text": text})[0]["text"]


def differences(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """What differs between hosts, in words.

    Args:
        settings: of each host, values as text.
    """
    listed = []
    for name in dict.fromkeys(name for each in settings for name in each):
        values = [each.get(name, "missing") for each in settings]
        other = next((i for i, value in enumerate(values) if value != values[0]), None)
        if other is not None:
            listed.append(f"{name} is {values[0]} on process 0 and {values[other]} on {other}")
    return listed


def is_first() -> bool:
    """Whether this process is the one that writes what is written once."""
    return jax.process_index() == 0


def start_agreeing_on_stops() -> None:
    """From now on a SIGTERM to any process makes all stop at one step; all have to call it.

    JAX can do so when processes meet, but listens from then on: Python no longer hears the signal,
    and while models load and caches fill nobody asks JAX.
    """
    jax.config.update("jax_enable_preemption_service", True)
    if distributed.global_state.preemption_sync_manager is None:
        distributed.global_state.initialize_preemption_sync_manager()


def _waiting(call: Callable[[], _T]) -> _T:
    """Calls what waits for other hosts, so that signals are heard in the meantime.

    Python's handlers run in the main thread, between two of its instructions; there is none while
    that is within JAX's runtime.
    """
    done: concurrent.futures.Future[_T] = concurrent.futures.Future()

    def run() -> None:
        try:
            done.set_result(call())
        except BaseException as error:
            done.set_exception(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_PAUSE)
    return done.result()


def _of_all_hosts(settings: Mapping[str, Any]) -> list[dict[str, str]]:
    return _waiting(lambda: _gathered(settings))


def _gathered(settings: Mapping[str, Any]) -> list[dict[str, str]]:
    from jax.experimental import multihost_utils

    text = json.dumps({name: str(value) for name, value in settings.items()}).encode()
    lengths = multihost_utils.process_allgather(np.int32(len(text)))
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: len(text)] = np.frombuffer(text, np.uint8)
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


def _number(name: str, value: int | None, environment: Mapping[str, str]) -> int | None:
    if value is not None:
        return value
    text = environment.get(_ENVIRONMENT[name])
    if text is None:
        return None
    if not text.isdigit():
        raise UsageError(f"{_ENVIRONMENT[name]} is {text!r}; expected a whole number.")
    return int(text)


def _alone_on_node(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether Open MPI or Slurm has started one task a node, which drives all devices there."""
    # Open MPI starts its tasks from one task of Slurm's a node.
    if (tasks := environment.get("OMPI_COMM_WORLD_LOCAL_SIZE")) is not None:
        return tasks == "1"
    nodes = environment.get("SLURM_STEP_NUM_NODES")
    return nodes is not None and nodes == environment.get("SLURM_NTASKS")


def _on_cloud_tpu() -> bool:
    if importlib.util.find_spec("libtpu") is None:
        return False
    # In JAX's order.
    named = os.environ.get("TPU_PROCESS_ADDRESSES", os.environ.get("TPU_WORKER_HOSTNAMES"))
    if named is not None:
        # Kaggle and Colab name one host, "local" or "localhost", which nobody would answer for.
        slices = any(name.startswith("MEGASCALE_") for name in os.environ)
        return "," in named or slices
    # JAX turns the question to the metadata server off where it finds no chips.
    return "TPU_SKIP_MDS_QUERY" not in os.environ


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
