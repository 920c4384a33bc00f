"""`infer.py`, `hotshot-jax`: the command line is read before anything of JAX is imported."""

from collections.abc import Sequence
from typing import Any

from hotshot_jax.cli.flags import parse_flags
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.cli.other_names import INFER
from hotshot_jax.cli.run import program_name, run

PROGRAM = "infer.py"

_EXAMPLES = """examples:
  {program} --prompt "a red circle moving right on a black background" --output hello.gif
  {program} --loop --prompt "a yellow star spinning on a teal background" --output loop.gif
  {program} --pretrained_path hotshotco/Hotshot-XL --video_length 64 --output long.mp4 \\
    --prompt_at "0: a snowy forest, winter" --prompt_at "63: the same forest in spring"
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit status: 0, 1 (run failed) or 2 (wrong usage)."""
    program = program_name(PROGRAM)

    def body() -> None:
        given = given_flags(arguments, program)
        if given.pop("report", False):
            from hotshot_jax.cli.infer.report import describe_installation

            print(describe_installation(given))
            return
        from hotshot_jax.cli.infer.arguments import completed
        from hotshot_jax.cli.infer.infer import generate

        parsed = completed(given)
        generate(parsed.settings, parsed.given, parsed.config, parsed.named)

    return run(program, body)


def given_flags(arguments: Sequence[str] | None, program: str = PROGRAM) -> dict[str, Any]:
    """What stands on the command line itself, by name; see `parse_flags`.

    Raises:
        UsageError: a flag is unknown, or a value has the wrong form.
    """
    return parse_flags(
        InferSettings,
        arguments,
        program,
        "Text to GIF with Hotshot-XL.",
        "settings to start from: a YAML or JSON file, or a result of an earlier run",
        INFER,
        _EXAMPLES.format(program=program),
        {"report": "tell versions, devices and settings for an issue, without paths and names"},
    )
