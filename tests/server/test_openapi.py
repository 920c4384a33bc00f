"""What `/openapi.json` says: its examples fit their schemas and are accepted."""

from collections.abc import Iterator
from typing import Any

import jsonschema
from starlette.testclient import TestClient

from tests.server.fakes import Serving, flat_frames, until


def examples(value: Any) -> Iterator[Any]:
    """All examples of a document, wherever they stand."""
    if isinstance(value, dict):
        for name, each in value.items():
            if name == "examples" and isinstance(each, dict):
                yield from (example["value"] for example in each.values())
            elif name == "examples" and isinstance(each, list):
                yield from each
            elif name == "example":
                yield each
            else:
                yield from examples(each)
    elif isinstance(value, list):
        for each in value:
            yield from examples(each)


def test_what_is_given_as_an_example_is_accepted(client: TestClient, serving: Serving) -> None:
    serving.making.frames = flat_frames
    document = client.get("/openapi.json").json()
    tried = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for kind, content in operation.get("requestBody", {}).get("content", {}).items():
                for example in content.get("examples", {}).values():
                    assert kind == "application/json"
                    jsonschema.validate(example["value"], content["schema"])
                    answer = client.request(method, path, json=example["value"])
                    assert answer.status_code == 200, (path, answer.text)
                    tried.append(example["value"])
    # None stands where this test does not look.
    assert len(tried) == len(list(examples(document["paths"]))) == 5
    until(lambda: not serving.service._live)
    made = serving.store.page("video", 100)
    assert len(made) == 4 and {job.status for job in made} == {"completed"}
