"""Every endpoint, asked for what its schema allows and forbids: no 500, and what was promised."""

import copy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from hotshot_jax.server.api.app import create_app
from hotshot_jax.server.api.guard import Access
from hotshot_jax.server.limits import Limits
from tests.server.fakes import Making, Serving, flat_frames, until

# Thousands of requests are to take no time.
LIMITS = Limits(most_frames=8, most_side=128, most_waiting=1000)
KEY = "the key of the fuzzed server"
HEADERS = {"Authorization": f"Bearer {KEY}"}
# Of one that waits for its clip behind others, on a machine that does other things too.
SECONDS_OF_A_CALL = 300
PROMISED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)
OPERATIONS = (
    "POST /v1/videos",
    "POST /v1/videos/sync",
    "GET /v1/videos",
    "GET /v1/videos/{video_id}",
    "DELETE /v1/videos/{video_id}",
    "GET /v1/videos/{video_id}/content",
    "GET /v1/videos/{video_id}/content.{ending}",
    "GET /v1/videos/{video_id}/events",
    "POST /v1/images/generations",
    "GET /v1/models",
    "GET /health",
    "GET /metrics",
)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = Path(tmp_path_factory.mktemp("fuzzed")) / "jobs"
    with Serving(folder, Making(frames=flat_frames), LIMITS) as serving:
        yield serving


@pytest.fixture(scope="module")
def app(serving: Serving) -> Any:
    # The client calls a host of its own, for which a key is needed.
    return create_app(serving.service, Access(KEY))


@pytest.fixture(scope="module")
def schema(app: Any) -> Any:
    return schemathesis.openapi.from_asgi("/openapi.json", app, headers=HEADERS)


@pytest.fixture(scope="module")
def without_forms(app: Any) -> Any:
    """The schema without files, of which Schemathesis cannot make wrong ones."""
    content = copy.deepcopy(app.openapi())
    for methods in content["paths"].values():
        for operation in methods.values():
            operation.get("requestBody", {}).get("content", {}).pop("multipart/form-data", None)
    schema = schemathesis.openapi.from_dict(content)
    schema.app = app
    return schema


def test_the_schema_has_every_endpoint(schema: Any) -> None:
    found = {f"{each.ok().method.upper()} {each.ok().path}" for each in schema.get_all_operations()}
    assert found == set(OPERATIONS)
    schema.validate()


def fuzz(serving: Serving, right: Any, wrong: Any, operation: str, examples: int) -> Counter[int]:
    """Asks, and counts what is answered."""
    method, path = operation.split(" ")
    checks, seen = CHECKS.get_by_names(PROMISED), Counter[int]()
    known = [serving.submit(width=16), serving.submit(width=24), serving.submit("cancelled")]
    serving.service.delete(known[2])
    until(lambda: not len(serving.service._waiting), SECONDS_OF_A_CALL)

    @hypothesis.given(
        case=right[path][method].as_strategy(GenerationMode.POSITIVE)
        | wrong[path][method].as_strategy(GenerationMode.NEGATIVE),
        id=st.sampled_from([None, *known]),
        few=st.none() | st.randoms(use_true_random=False),
    )
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    def ask(case: Any, id: str | None, few: Random | None) -> None:
        if "video_id" in (case.path_parameters or {}) and id is not None:
            case.path_parameters["video_id"] = id
        if isinstance(case.body, dict) and few is not None:
            # Of so many settings at once some always contradict each other.
            names = set(few.sample(sorted(case.body), min(3, len(case.body))))
            case.body = {k: v for k, v in case.body.items() if k in {"prompt", *names}}
        answer = case.call(headers=HEADERS, timeout=SECONDS_OF_A_CALL)
        seen[answer.status_code] += 1
        case.validate_response(answer, checks=checks)

    ask()
    return seen


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_endpoint_keeps_its_promises(
    serving: Serving, schema: Any, without_forms: Any, operation: str
) -> None:
    fuzz(serving, schema, without_forms, operation, 12)


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_endpoint_keeps_its_promises_for_long(
    serving: Serving, schema: Any, without_forms: Any, operation: str
) -> None:
    print(operation, fuzz(serving, schema, without_forms, operation, 1000))
