import json
import sys
from pathlib import Path

import pytest

from benchmarks import lora_merge


@pytest.mark.slow
def test_the_figures_of_a_small_unet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["lora_merge", "--size", "tiny", "--rank", "2", "--folder", str(tmp_path), "--json"]
    monkeypatch.setattr(sys, "argv", arguments)
    lora_merge.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["modules"] > 50
    assert figures["merge_over_read"] == figures["merge_seconds"] / figures["read_seconds"]
    assert figures["merge_peak_bytes"] > figures["weights_bytes"] > figures["lora_bytes"]
    assert list(tmp_path.iterdir()) == []
