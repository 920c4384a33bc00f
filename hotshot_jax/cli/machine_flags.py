"""Flags about devices and hosts, the same for every command that runs on several."""

from typing import Any

from hotshot_jax.choices import AUTO
from hotshot_jax.cli.flags import flag

DEVICES = (AUTO, "cpu", "gpu", "tpu")


def coordinator_address(group: str) -> Any:
    """The flag `--coordinator_address`."""
    return flag(
        None,
        f"HOST:PORT of process 0, or '{AUTO}' under Slurm or Open MPI; not needed on Cloud TPU",
        str,
        group,
        about_this_run=True,
    )


def process_count(group: str) -> Any:
    """The flag `--process_count`."""
    return flag(None, "processes in all, usually one a host", int, group, about_this_run=True)


def process_index(group: str) -> Any:
    """The flag `--process_index`."""
    return flag(None, "which of them this one is, from 0", int, group, about_this_run=True)
