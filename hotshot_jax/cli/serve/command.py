"""`hotshot-jax-serve`: the command line is read before anything of JAX is imported."""

from collections.abc import Sequence
from typing import Any

from hotshot_jax.cli.flags import checked_settings, parse_flags, written_settings
from hotshot_jax.cli.run import program_name, run
from hotshot_jax.cli.serve.settings import ServeSettings

PROGRAM = "hotshot-jax-serve"

_EXAMPLES = """examples:
  {program} --warm 128x128x8
  {program} --pretrained_path hotshotco/Hotshot-XL --lora_dir loras/ --warm 512x512x8
  HOTSHOT_JAX_API_KEY=... {program} --host 0.0.0.0 --pretrained_path hotshotco/Hotshot-XL
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit status: 0, 1 (failed), 2 (usage), 128 + a signal's."""
    program = program_name(PROGRAM)

    def body() -> None:
        given = given_settings(arguments, program)
        from hotshot_jax.cli.serve.serve import serve

        serve(ServeSettings(**given), given)

    return run(program, body)


def given_settings(arguments: Sequence[str] | None, program: str) -> dict[str, Any]:
    """The settings that are named on the command line, or in its file of settings.

    Args:
        arguments: of the command line; None for this process's.
        program: name of the command.

    Raises:
        UsageError: a flag is unknown or given twice, or a value has the wrong form.
    """
    given = parse_flags(
        ServeSettings,
        arguments,
        program,
        "Text to GIF over HTTP, in the shape of vLLM-Omni's and OpenAI's endpoints.",
        "settings to start from: a YAML or JSON file",
        examples=_EXAMPLES.format(program=program),
    )
    config = given.pop("config", None)
    if config is None:
        return given
    return checked_settings(ServeSettings, config, written_settings(config)) | given
