"""Tables of compiled programs, made a few at a time."""

import csv
import json
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import compile_table
from benchmarks.compile import report as compile_report

REPORT = {
    "mesh": "frames=8",
    "parameter_bytes": 2**30,
    "peak_bytes": 2**31,
    "fits": True,
    "flops_per_device": 3e12,
    "ideal_flops_per_device": 2e12,
    "roofline_seconds": 0.02,
    "summed_seconds": 0.03,
    "collectives": {"all-to-all": {"count": 30, "bytes": 2**22, "largest_bytes": 2**20}},
}


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was compiled; the compiler itself is not called."""
    calls: list[Any] = []

    def compile_program(topology: Any, task: str, mesh: str, size: Any, *, effort: str) -> Any:
        calls.append((str(topology), task, mesh, size.width, size.height))
        return SimpleNamespace()

    monkeypatch.setattr(compile_report, "compile_program", compile_program)
    monkeypatch.setattr(compile_report, "report_json", lambda _: json.dumps(REPORT))
    monkeypatch.setattr(compile_table, "without_tpu", lambda: None)
    monkeypatch.setattr(metadata, "version", lambda name: f"1.0 of {name}")
    return calls


def test_what_the_file_holds_is_not_compiled_again(
    compiled: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.jsonl"
    wanted = ["--meshes", "--results", str(results)]
    assert compile_table.main([*wanted, "--most", "2"]) == 0
    assert [call[2] for call in compiled] == ["frames=8", "frames=4,tensor=2"]
    shown = capsys.readouterr()
    assert "1 rows are not compiled yet" in shown.err
    row = "| v5e-8, mesh frames=8 | frames=8 | 2.00 | 3.00 | 1.500 | all-to-all 30 x, 4.0 MiB |"
    assert f"{row} 30.0 |" in shown.out

    assert compile_table.main(wanted) == 0
    assert [call[2] for call in compiled[2:]] == ["data=2,frames=4"]
    assert compile_table.main([*wanted, "--most", "0"]) == 0
    assert len(compiled) == 3
    assert capsys.readouterr().out.count("| v5e-8, mesh") == 6
    assert compile_table.main([*wanted, "--most", "0", "--csv"]) == 0
    rows = list(csv.reader(capsys.readouterr().out.splitlines()))
    assert rows[0][-2:] == ["roofline ms", "by instruction ms"]
    assert [row[0] for row in rows[1:]] == [f"v5e-8, mesh {mesh}" for mesh in compile_table.MESHES]
    assert {tuple(row[-2:]) for row in rows[1:]} == {("20.0", "30.0")}


def test_results_of_other_versions_do_not_count(
    compiled: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ["--training", "--results", str(tmp_path / "results.jsonl"), "--most", "1"]
    compile_table.main(wanted)
    monkeypatch.setattr(metadata, "version", lambda name: f"2.0 of {name}")
    compile_table.main(wanted)
    assert len(compiled) == 2 and compiled[0] == compiled[1]


def test_systems_cover_all_aspect_ratios(compiled: list[Any]) -> None:
    compile_table.main(["--systems"])
    infer = [call for call in compiled if call[1] == "infer"]
    assert len(infer) == len(set(infer)) == 8 * 7
    assert len(compiled) == 8 * 7 + 8
