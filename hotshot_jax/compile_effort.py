"""How long the compiler may look for a faster program."""

from hotshot_jax.errors import UsageError

EFFORTS = ("O0", "O1", "O2", "O3")
DEFAULT_EFFORT = "O2"
"""What XLA takes where nothing is said."""


def effort_options(platform: str, effort: str) -> dict[str, str | bool]:
    """What tells the compiler how long it may look for a faster program.

    Args:
        platform: "cpu", "gpu" or "tpu".
        effort: one of `EFFORTS`.

    Raises:
        UsageError: the effort is another, or the platform's compiler knows none but its own.
    """
    if effort not in EFFORTS:
        raise UsageError(f"compile_effort is {effort!r}; expected one of {', '.join(EFFORTS)}.")
    if effort == DEFAULT_EFFORT:
        return {}
    if platform != "tpu":
        raise UsageError(
            f"compile_effort {effort} is for TPUs, and this run is on a {platform.upper()}; leave "
            "it out."
        )
    return {"xla_optimization_level": f"EFFORT_{effort}"}
