"""What the compiler is told, and where it can be told nothing."""

import pytest

from hotshot_jax.compile_effort import effort_options
from hotshot_jax.errors import UsageError


@pytest.mark.parametrize(
    ("effort", "options"),
    [
        ("O0", {"xla_optimization_level": "EFFORT_O0"}),
        ("O1", {"xla_optimization_level": "EFFORT_O1"}),
        ("O2", {}),
        ("O3", {"xla_optimization_level": "EFFORT_O3"}),
    ],
)
def test_all_but_the_compilers_own_effort_is_named_to_it(
    effort: str, options: dict[str, str]
) -> None:
    assert effort_options("tpu", effort) == options


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_elsewhere_only_the_compilers_own_effort_is_known(platform: str) -> None:
    assert effort_options(platform, "O2") == {}
    with pytest.raises(
        UsageError, match=f"O1 is for TPUs, and this run is on a {platform.upper()}"
    ):
        effort_options(platform, "O1")


def test_an_unknown_effort_is_refused() -> None:
    with pytest.raises(UsageError, match="'O4'; expected one of O0, O1, O2, O3"):
        effort_options("tpu", "O4")
