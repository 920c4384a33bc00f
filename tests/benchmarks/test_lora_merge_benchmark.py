import json
import sys
from pathlib import Path

import pytest

from benchmarks import lora_merge


@pytest.mark.slow
@pytest.mark.parametrize(("given", "load_as"), [((), "f16"), (("--load_as", "bf16"), "bf16")])
def test_the_figures_of_a_small_unet(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    given: tuple[str, ...],
    load_as: str,
) -> None:
    arguments = ["lora_merge", "--size", "tiny", "--rank", "2", "--folder", str(tmp_path), "--json"]
    monkeypatch.setattr(sys, "argv", [*arguments, *given])
    lora_merge.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["modules"] > 50
    assert (figures["dtype"], figures["load_as"]) == ("f16", load_as)
    assert figures["merge_over_read"] == figures["merge_seconds"] / figures["read_seconds"]
    assert figures["merge_peak_bytes"] > figures["weights_bytes"] > figures["lora_bytes"]
    assert list(tmp_path.iterdir()) == []
