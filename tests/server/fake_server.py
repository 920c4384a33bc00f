"""A server over a fake maker as a process of its own, to be killed: prints its port and serves."""

import sys
import time
from pathlib import Path

from hotshot_jax.server.api.app import create_app
from hotshot_jax.server.running import bound_socket, run_app
from hotshot_jax.server.worker import Pace
from tests.server.fakes import Making, Serving

if __name__ == "__main__":
    making = Making(at_step=lambda clips: time.sleep(0.01))
    serving = Serving(Path(sys.argv[1]), making, pace=Pace((1, 2, 4), calls_at_once=2))
    listening = bound_socket("127.0.0.1", 0)
    print(listening.getsockname()[1], flush=True)
    run_app(create_app(serving.service), serving.service, listening)
