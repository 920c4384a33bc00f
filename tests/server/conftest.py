"""A served fake, asked in process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from hotshot_jax.server.api.app import create_app
from tests.server.fakes import Serving


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    with Serving(tmp_path / "jobs") as serving:
        yield serving


@pytest.fixture
def client(serving: Serving) -> Iterator[TestClient]:
    with TestClient(
        create_app(serving.service), base_url="http://localhost", raise_server_exceptions=False
    ) as client:
        yield client
