#!/usr/bin/env python3
"""The page alone, as a Hugging Face Space shows it; takes the flags of `hotshot-jax-serve`.

Whoever opens it may use it, and sees the clips of the own browser.
"""

import os

from hotshot_jax.cli.run import program_name, run
from hotshot_jax.cli.serve.command import given_settings

PROGRAM = "gradio_app.py"


def main() -> int:
    """Runs the command and gives its exit status."""
    program = program_name(PROGRAM)

    def body() -> None:
        in_space = "SPACE_ID" in os.environ
        usual = {"host": "0.0.0.0" if in_space else "127.0.0.1", "port": 7860, "keep_hours": 24.0}
        given = usual | given_settings(None, program)
        from hotshot_jax.cli.serve.serve import prepared, tell_address
        from hotshot_jax.cli.serve.settings import ServeSettings
        from hotshot_jax.server.api.guard import Access
        from hotshot_jax.server.page.app import page_app
        from hotshot_jax.server.running import run_app

        settings = ServeSettings(**given)
        access = Access(most_body_bytes=settings.max_request_mb << 20, any_host=in_space)
        with prepared(settings, given) as (service, listening):
            app = page_app(service, access)
            tell_address(listening)
            run_app(app, service, listening)

    return run(program, body)


if __name__ == "__main__":
    raise SystemExit(main())
