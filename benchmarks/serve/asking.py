"""A server as a process of its own, and asking it."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_START_SECONDS = 300


class Server:
    """A server that runs.

    Args:
        process: of the server.
        url: where it answers.
    """

    def __init__(self, process: "subprocess.Popen[str]", url: str):
        self.process = process
        self.url = url

    def ask(self, path: str, body: Any = None, method: str | None = None) -> tuple[int, bytes]:
        """Status and content of what is answered.

        Args:
            path: of the endpoint.
            body: sent as JSON, if given.
            method: of HTTP.
        """
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, content, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def made(self, body: Any) -> tuple[str, bytes]:
        """The name of a job and its GIF, when it is made.

        Raises:
            RuntimeError: it is not.
        """
        status, content = self.ask("/v1/videos", body)
        if status != 200:
            raise RuntimeError(content.decode())
        id = json.loads(content)["id"]
        while (job := json.loads(self.ask(f"/v1/videos/{id}")[1]))["status"] != "completed":
            if job["status"] in ("failed", "cancelled"):
                raise RuntimeError(str(job))
            time.sleep(0.1)
        return id, self.ask(f"/v1/videos/{id}/content")[1]

    @property
    def processor_seconds(self) -> float:
        """That the process and its threads have worked, on all cores together (Linux)."""
        content = Path(f"/proc/{self.process.pid}/stat").read_text()
        user, system = content.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    @property
    def resident_bytes(self) -> int:
        """Memory of the process (Linux)."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        return 0


@contextlib.contextmanager
def server(folder: Path, flags: Sequence[str]) -> Iterator[Server]:
    """Starts a server on a free port, and ends it.

    Args:
        folder: of its jobs.
        flags: further ones.
    """
    code = "import sys; from hotshot_jax.cli.serve.command import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "--port", "0", "--jobs_dir", str(folder), *flags]
    # What the shell says of JAX's own cache would make a cold start a warm one.
    cache = ("JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(cache)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=kept) as process:
        try:
            assert process.stdout is not None
            running = Server(process, process.stdout.readline().strip())
            until = time.monotonic() + _START_SECONDS
            while time.monotonic() < until:
                with contextlib.suppress(OSError):
                    running.ask("/health")
                    break
                time.sleep(0.1)
            yield running
        finally:
            process.terminate()
            process.wait()
