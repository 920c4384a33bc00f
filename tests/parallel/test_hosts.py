"""How processes find each other, and what they say when they were started differently."""

import threading
from types import SimpleNamespace

import pytest
from jax._src import distributed

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.parallel import hosts
from hotshot_jax.parallel.hosts import HostsConfig, compare, differences, failing_together, join

ON_CLOUD_TPU = hosts._on_cloud_tpu
KAGGLE = {"TPU_PROCESS_ADDRESSES": "local", "TPU_WORKER_HOSTNAMES": "localhost"}


@pytest.fixture(autouse=True)
def no_tpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_on_cloud_tpu", lambda: False)


def test_a_process_that_is_told_nothing_is_alone() -> None:
    config = HostsConfig.given(None, None, None, {})
    assert config.alone
    assert not join(config)


def test_a_cloud_tpu_needs_no_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_on_cloud_tpu", lambda: True)
    assert not HostsConfig.given(None, None, None, {}).alone


def test_what_only_looks_like_a_cloud_tpu_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where libtpu is installed for compiling alone."""
    monkeypatch.setattr(hosts, "_on_cloud_tpu", lambda: True)

    def refuse(**_: object) -> None:
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(hosts.jax.distributed, "initialize", refuse)
    assert not join(HostsConfig())


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (KAGGLE, False),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "t1v-0"}, False),
        ({"TPU_WORKER_HOSTNAMES": "t1v-0,t1v-1"}, True),
        ({"TPU_PROCESS_ADDRESSES": "local", "TPU_WORKER_HOSTNAMES": "t1v-0,t1v-1"}, False),
        ({"TPU_WORKER_HOSTNAMES": "t1v-0", "MEGASCALE_NUM_SLICES": "2"}, True),
        ({"TPU_SKIP_MDS_QUERY": "1"}, False),
        ({}, True),
    ],
)
def test_where_one_host_is_named_nobody_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: bool
) -> None:
    monkeypatch.setattr(hosts.importlib.util, "find_spec", lambda name: object())
    for name in (*KAGGLE, "MEGASCALE_NUM_SLICES", "TPU_SKIP_MDS_QUERY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ON_CLOUD_TPU() == expected


@pytest.mark.parametrize("refusals", [1, 9])
def test_cloud_tpu_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, refusals: int
) -> None:
    """A worker of a slice that ran alone would leave the others waiting."""
    monkeypatch.setattr(hosts, "_on_cloud_tpu", lambda: True)
    monkeypatch.setattr(hosts, "_ASKED_AFTER_SECONDS", 0.0)
    asked: list[int] = []

    def initialize(**_: object) -> None:
        asked.append(1)
        if len(asked) <= refusals:
            raise ConnectionError("no answer")
        monkeypatch.setattr(hosts.distributed.global_state, "num_processes", 2)

    monkeypatch.setattr(hosts.jax.distributed, "initialize", initialize)
    assert join(HostsConfig()) == (refusals == 1)
    assert len(asked) == min(refusals + 1, 3)
    assert ("runs alone" in caplog.text) == (refusals == 9)


def test_a_slice_of_one_host_is_a_process_on_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_on_cloud_tpu", lambda: True)
    ended: list[int] = []
    monkeypatch.setattr(hosts.jax.distributed, "shutdown", lambda: ended.append(1))

    def initialize(**_: object) -> None:
        assert hosts.distributed.global_state.num_processes == 1

    monkeypatch.setattr(hosts.jax.distributed, "initialize", initialize)
    assert not join(HostsConfig())
    assert ended == [1]


def test_flags_and_variables_are_combined() -> None:
    environment = {
        "JAX_COORDINATOR_ADDRESS": "10.0.0.2:1234",
        "JAX_NUM_PROCESSES": "4",
        "JAX_PROCESS_ID": "3",
    }
    config = HostsConfig.given(None, None, 1, environment)
    assert config == HostsConfig("10.0.0.2:1234", 4, 1)
    assert not config.alone


def test_a_scheduler_tells_all_of_it() -> None:
    assert not HostsConfig.given("auto", None, None, {}).alone


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("10.0.0.2:1234", None, None), "need `process_count` and `process_index` too"),
        ((None, 2, 0), "need `coordinator_address` too"),
        ((None, 2, None), "JAX_COORDINATOR_ADDRESS and JAX_PROCESS_ID"),
        (("10.0.0.2", 2, 0), "expected HOST:PORT of process 0"),
        (("10.0.0.2:port", 2, 0), "expected HOST:PORT of process 0"),
        (("10.0.0.2:1234", 0, 0), "`process_count` is 0; expected at least 1"),
        (("10.0.0.2:1234", 2, 2), "`process_index` is 2; expected 0 to 1"),
        (("10.0.0.2:1234", 2, -1), "`process_index` is -1; expected 0 to 1"),
    ],
)
def test_what_makes_no_sense_is_refused(
    given: tuple[str | None, int | None, int | None], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        HostsConfig.given(*given, {})


def test_a_variable_that_is_no_number_is_named() -> None:
    with pytest.raises(UsageError, match="JAX_PROCESS_ID is 'first'"):
        HostsConfig.given("10.0.0.2:1234", 2, None, {"JAX_PROCESS_ID": "first"})


def test_differing_settings_are_named_with_their_values() -> None:
    settings = [
        {"seed": "1", "mesh": "auto", "jax": "0.10.2"},
        {"seed": "1", "mesh": "auto", "jax": "0.10.2"},
        {"seed": "2", "mesh": "auto"},
    ]
    assert differences(settings) == [
        "seed is 1 on process 0 and 2 on 2",
        "jax is 0.10.2 on process 0 and missing on 2",
    ]
    assert differences(settings[:2]) == []


OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
}
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NUM_NODES": "2",
}


@pytest.mark.parametrize(
    ("cluster", "changes", "message"),
    [
        (OPEN_MPI, {"OMPI_COMM_WORLD_SIZE": None}, "OMPI_COMM_WORLD_SIZE is not set"),
        (OPEN_MPI, {"OMPI_COMM_WORLD_RANK": None}, "OMPI_COMM_WORLD_RANK is not set"),
        (OPEN_MPI, {"OMPI_COMM_WORLD_LOCAL_RANK": None}, "LOCAL_RANK is not set"),
        (OPEN_MPI, {"OMPI_COMM_WORLD_RANK": "first"}, "'first'"),
        (OPEN_MPI, {"OMPI_MCA_orte_hnp_uri": "junk"}, "'junk'"),
        (SLURM, {"SLURM_LOCALID": None}, "neither Slurm's nor Open MPI's variables are all set"),
        (SLURM, {"SLURM_NTASKS": "many"}, "'many'"),
        ({}, {}, "variables are all set"),
    ],
)
def test_half_a_cluster_is_told(
    monkeypatch: pytest.MonkeyPatch,
    cluster: dict[str, str],
    changes: dict[str, str | None],
    message: str,
) -> None:
    # Other tests of this process have started JAX, which is then not asked for a cluster.
    monkeypatch.setattr("jax._src.xla_bridge.backends_are_initialized", lambda: False)
    for name, value in (cluster | changes).items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message) as caught:
        join(HostsConfig("auto"))
    assert "`coordinator_address` HOST:PORT" in str(caught.value)


def test_what_flags_say_counts_where_the_cluster_says_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {}
    monkeypatch.setattr(hosts.jax.distributed, "initialize", given.update)
    assert join(HostsConfig("auto", 4, 3))
    assert (given["coordinator_address"], given["num_processes"], given["process_id"]) == (
        None,
        4,
        3,
    )


@pytest.mark.parametrize(
    ("cluster", "config", "devices"),
    [
        # One task a node has all devices of it.
        (SLURM, HostsConfig("node1:1234", 2, 1), None),
        (SLURM, HostsConfig("auto"), "0"),
        (SLURM | {"SLURM_NTASKS": "4"}, HostsConfig("node1:1234", 4, 1), "0"),
        (SLURM | {"SLURM_NTASKS": "4", "SLURM_LOCALID": "1"}, HostsConfig("node1:1234", 4, 1), "1"),
        (OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, HostsConfig("node1:1234", 2, 1), None),
        (OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, HostsConfig("node1:1234", 2, 1), "0"),
        # As `mpirun` in an allocation of Slurm's: one task of that starts those of a node.
        (
            SLURM | OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"},
            HostsConfig("node1:1234", 2, 1),
            "0",
        ),
        ({}, HostsConfig("node1:1234", 2, 1), None),
    ],
)
def test_a_task_that_is_alone_on_its_node_drives_all_devices(
    monkeypatch: pytest.MonkeyPatch,
    cluster: dict[str, str],
    config: HostsConfig,
    devices: str | None,
) -> None:
    """With JAX's own reading of the variables; only the meeting is left out."""
    visible = {}
    for name in OPEN_MPI | SLURM | {"OMPI_COMM_WORLD_LOCAL_SIZE": "", "JAX_LOCAL_DEVICE_IDS": ""}:
        monkeypatch.delenv(name, raising=False)
    for name, value in (cluster | {"SLURM_PROCID": "1"} if cluster else {}).items():
        monkeypatch.setenv(name, value)
    meeting = SimpleNamespace(
        get_distributed_runtime_client=lambda *_, **__: SimpleNamespace(connect=lambda: None)
    )
    monkeypatch.setattr(distributed, "_jax", meeting)
    monkeypatch.setattr(distributed.config, "update", visible.__setitem__)
    monkeypatch.setattr(distributed.State, "initialize_preemption_sync_manager", lambda _: None)
    monkeypatch.setattr(hosts.jax.distributed, "initialize", distributed.State().initialize)
    assert join(config)
    assert visible.get("jax_cuda_visible_devices") == devices


def test_signals_are_heard_while_others_are_waited_for() -> None:
    """Whatever blocks is not the main thread, and what it raises comes back there."""
    assert hosts._waiting(threading.current_thread) is not threading.main_thread()
    with pytest.raises(KeyError, match="gone"):
        hosts._waiting(lambda: {}["gone"])


class TornError(HotshotError):
    """What a block may be entered again for."""


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        ([TornError("a"), None], TornError, "a"),
        ([None, TornError("b")], TornError, "[1] b"),
        ([UsageError("a"), TornError("b")], UsageError, "a"),
        ([None, HotshotError("b")], HotshotError, "[1] b"),
    ],
)
def test_what_fails_on_one_host_fails_on_all_as_what_it_is(
    monkeypatch: pytest.MonkeyPatch,
    raised: list[HotshotError | None],
    kind: type[HotshotError],
    message: str,
) -> None:
    """What the first of two hosts raises; the other one is the same block, seen from there."""

    def rows(own: dict[str, str]) -> list[dict[str, str]]:
        error = raised[1]
        other = {"message": "", "kind": ""}
        if error is not None:
            other = {"message": str(error), "kind": type(error).__name__}
        return [own, other]

    monkeypatch.setattr(hosts.jax, "process_count", lambda: 2)
    monkeypatch.setattr(hosts, "_of_all_hosts", rows)
    with pytest.raises(HotshotError) as caught, failing_together(TornError):
        if raised[0] is not None:
            raise raised[0]
    assert type(caught.value) is kind and str(caught.value) == message
    assert caught.value.everywhere


def test_one_process_has_nothing_to_compare() -> None:
    compare({"seed": object()})
