"""The page, served over a fake maker, and a real browser to look at it."""

import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn

from hotshot_jax.pipelines.latent_colors import LatentColors
from hotshot_jax.server.api.app import create_app
from hotshot_jax.server.api.guard import Access
from hotshot_jax.server.limits import Limits
from hotshot_jax.server.page.app import add_page, page_app
from hotshot_jax.server.running import bound_socket
from tests.server.fakes import Serving, until

COLORS = LatentColors(np.ones((4, 3)) / 10, np.full(3, 0.5))


@contextlib.contextmanager
def page_at(folder: Path, access: Access | None = None, *, alone: bool = False) -> Iterator[Any]:
    """The address of a page, and what is behind it."""
    access = access or Access()
    with Serving(folder, colors=COLORS, limits=Limits(most_frames=32)) as serving:
        if alone:
            app = page_app(serving.service, access)
        else:
            app = create_app(serving.service, access)
            add_page(app, serving.service, access)
        listening = bound_socket("127.0.0.1", 0)
        server = uvicorn.Server(
            uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            until(lambda: server.started)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", serving
        finally:
            server.should_exit = True
            thread.join()
            listening.close()


# Playwright's loop runs on while it lasts, beside which no test could have one of its own.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Debian's Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium; README.md says how to install it")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
