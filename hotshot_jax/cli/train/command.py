"""`train.py`, `hotshot-jax-train`: the command line is read before anything of JAX is imported."""

from collections.abc import Sequence

from hotshot_jax.cli.run import program_name, run
from hotshot_jax.cli.train.settings import parse_train_arguments

PROGRAM = "train.py"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit status: 0, 1 (run failed) or 2 (wrong usage)."""
    program = program_name(PROGRAM)

    def body() -> None:
        settings, given = parse_train_arguments(arguments, program)
        from hotshot_jax.cli.train.train import train_on_hosts

        train_on_hosts(settings, given)

    return run(program, body)
