"""The examples of `docs/extending.md`, run as they stand there."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotshot_jax

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
SECTIONS = dict(
    re.findall(r"^## (.+?)\n.*?^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
)


@pytest.fixture(scope="module")
def plain() -> hotshot_jax.HotshotXLPipeline:
    return hotshot_jax.HotshotXLPipeline.from_pretrained()


def test_every_section_has_an_example_of_less_than_40_lines() -> None:
    assert list(SECTIONS) == re.findall(r"^## (.+)$", PAGE.read_text(), re.MULTILINE)
    assert len(SECTIONS) >= 6
    for section, code in SECTIONS.items():
        assert len(code.splitlines()) < 40, section


@pytest.mark.parametrize("section", SECTIONS)
def test_example(
    section: str, plain: hotshot_jax.HotshotXLPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []
    call = hotshot_jax.HotshotXLPipeline.__call__

    def seen(self: Any, *arguments: Any, **options: Any) -> Any:
        calls.append({"arguments": arguments, **options})
        return call(self, *arguments, **options)

    monkeypatch.setattr(hotshot_jax.HotshotXLPipeline, "__call__", seen)
    scope: dict[str, Any] = {}
    exec(compile(SECTIONS[section], str(PAGE), "exec"), scope)
    videos = scope["videos"]
    assert videos.shape == (1, 8, 64, 64, 3)
    assert np.isfinite(videos).all()
    # What was replaced had an effect: a plain run gives something else.
    prompt = calls[0]["arguments"] or ("a red circle standing still on a black background",)
    expected = call(plain, *prompt, height=64, width=64, num_inference_steps=2).videos
    assert np.abs(videos - expected).max() > 1e-4
