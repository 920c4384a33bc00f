"""The parity benchmark: what it finds, what it says, and how it exits."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from benchmarks.models.formula_weights import formula_tensor
from benchmarks.parity import main
from benchmarks.parity_cases import controlnet, lora, unet
from benchmarks.parity_cases.case import Case, Verdict, compare, read_cases, worst
from benchmarks.parity_cases.kinds import run_case, runs_pipeline
from benchmarks.parity_cases.pipelines import controlnet_pipeline

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
SMALL = "temporal_c64"


def copy_case(target: Path, name: str, source: str = SMALL) -> Path:
    """A golden folder with one case under another name, and all models."""
    (target / "cases").mkdir(parents=True, exist_ok=True)
    if not (target / "models").exists():
        shutil.copytree(GOLDEN / "models", target / "models")
    description = json.loads((GOLDEN / "cases" / f"{source}.json").read_text())
    description |= {"case": name, "file": f"cases/{name}.safetensors"}
    (target / "cases" / f"{name}.json").write_text(json.dumps(description))
    tensors = GOLDEN / "cases" / f"{source}.safetensors"
    if tensors.exists():
        shutil.copyfile(tensors, target / "cases" / f"{name}.safetensors")
    return target


def change(
    golden: Path, name: str, update: Callable[[dict[str, Any], dict[str, Any]], None]
) -> None:
    """Changes the description and the tensors of a copied case in place."""
    paths = [golden / "cases" / f"{name}.{ending}" for ending in ("json", "safetensors")]
    description, tensors = json.loads(paths[0].read_text()), load_file(paths[1])
    update(description, tensors)
    paths[0].write_text(json.dumps(description))
    save_file(tensors, paths[1])


def results(captured: str) -> dict[str, Any]:
    """The line of JSON at the end."""
    return json.loads(captured.splitlines()[-1])


@pytest.mark.parametrize(
    "name", ["ddpm_add_noise", "scale_aspect_fill", "schedulers", "torch_noise", "utils"]
)
def test_cases_without_models(name: str) -> None:
    (case,) = read_cases(GOLDEN, [name])
    found = list(run_case(case))
    assert [result for result in found if result.verdict.fails] == []
    assert any(result.error is not None for result in found)


def test_known_differences_are_named_and_still_compared() -> None:
    (case,) = read_cases(GOLDEN, ["schedulers"])
    found = {result.what: result for result in run_case(case)}
    named = found["dpm.n7 trajectory"]
    assert named.verdict is Verdict.DIFFERS
    assert "0.21.4" in named.note
    assert named.error is not None and named.error > 1e-3
    followed = found["dpm.n7 trajectory as in 0.21.4"]
    assert followed.verdict is Verdict.OK
    assert followed.bound == 2e-5


def test_every_case_is_read() -> None:
    assert len(read_cases(GOLDEN, [])) == len(list((GOLDEN / "cases").glob("*.json")))


def test_lora_cases_are_run() -> None:
    """That they pass is for the slow run of all cases, and for the tests of LoRAs."""
    (case,) = read_cases(GOLDEN, ["lora_kohya"])
    assert lora.matches(case)
    assert not unet.matches(case)


@pytest.mark.parametrize(
    "name",
    ["controlnet", "unet_controlnet", "controlnet_pipeline", "controlnet_pipeline_guess"],
)
def test_controlnet_cases_are_run(name: str) -> None:
    """That they pass is for the slow run of all cases, and for the tests of the models."""
    (case,) = read_cases(GOLDEN, [name])
    assert any(kind.matches(case) for kind in (controlnet, controlnet_pipeline, unet))
    assert runs_pipeline(case) == ("pipeline" in name)


def test_other_folder_with_other_name_seed_and_shapes(tmp_path, capsys) -> None:
    """What a case is follows from its content, not from its name."""
    golden = copy_case(tmp_path, "text of another kind", "clip_g_tiny")

    def other(description: dict[str, Any], tensors: dict[str, Any]) -> None:
        description["models"][0]["weights_seed"] = 9
        ids = tensors["pad_0.input_ids"][:1]
        embeddings = "text_model.embeddings"
        tokens, positions = (
            formula_tensor(f"{embeddings}.{name}_embedding.weight", shape, 9)
            for name, shape in (("token", (1000, 40)), ("position", (77, 40)))
        )
        tensors.clear()
        tensors.update({"x.input_ids": ids, "x.hidden_states.0": tokens[ids] + positions})

    change(golden, "text of another kind", other)
    assert main(["--golden", str(golden), "--json"]) == 0
    (row,) = results(capsys.readouterr().out)["results"]
    assert row["what"] == "x.hidden_states.0"


def test_passing_case(capsys) -> None:
    assert main(["--case", SMALL, "--json"]) == 0
    report = results(capsys.readouterr().out)
    assert report["passed"] is True
    assert {row["what"] for row in report["results"]} >= {"f8.out", "f16.out"}
    for row in report["results"]:
        assert row["case"] == SMALL
        assert row["error"] <= row["bound"] == 2e-5


def test_table_without_json(capsys) -> None:
    assert main(["--case", "utils"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["case", "what", "error", "bound", "verdict"]
    assert any(line.startswith("utils") and " exact " in line for line in lines)
    assert "1 cases" in lines[-1]


def test_error_just_above_the_bound_fails(tmp_path, capsys) -> None:
    golden = copy_case(tmp_path, SMALL)

    def nudge(_: dict[str, Any], tensors: dict[str, Any]) -> None:
        largest = np.abs(tensors["f8.out"]).max()
        tensors["f8.out"].flat[17] += 2.2e-5 * largest
        tensors["f16.out"].flat[17] += 1.5e-5 * np.abs(tensors["f16.out"]).max()

    change(golden, SMALL, nudge)
    assert main(["--golden", str(golden), "--json"]) == 1
    rows = {row["what"]: row for row in results(capsys.readouterr().out)["results"]}
    assert rows["f8.out"]["verdict"] == "FAILED"
    assert rows["f16.out"]["verdict"] == "ok"


def test_unknown_kind_of_case_fails(tmp_path, capsys) -> None:
    golden = copy_case(tmp_path, "riddle")
    change(golden, "riddle", lambda description, _: description.update(call="Oracle.forward(x)"))
    assert main(["--golden", str(golden)]) == 1
    assert "UNKNOWN" in capsys.readouterr().out


def test_tensor_that_nothing_compares_fails(tmp_path, capsys) -> None:
    golden = copy_case(tmp_path, SMALL)
    change(golden, SMALL, lambda _, tensors: tensors.update(extra=np.zeros(3, np.float32)))
    assert main(["--golden", str(golden), "--json"]) == 1
    rows = {row["what"]: row["verdict"] for row in results(capsys.readouterr().out)["results"]}
    assert rows["extra"] == "UNKNOWN"


def test_unknown_table_fails(tmp_path, capsys) -> None:
    (tmp_path / "cases").mkdir()
    tables = {"frames_to_uint8": {"rows": [[0.5, 128]]}, "best_gif": [1, 2]}
    (tmp_path / "cases" / "utils.json").write_text(json.dumps(tables))
    assert main(["--golden", str(tmp_path), "--json"]) == 1
    rows = {row["what"]: row for row in results(capsys.readouterr().out)["results"]}
    assert rows["best_gif"]["verdict"] == "UNKNOWN"
    assert rows["frames_to_uint8"]["verdict"] == "FAILED"
    assert "127" in rows["frames_to_uint8"]["note"]


def test_broken_case_does_not_hide_the_others(tmp_path, capsys) -> None:
    golden = copy_case(tmp_path, "a_broken")
    change(golden, "a_broken", lambda _, tensors: tensors.pop("f8.out"))
    copy_case(tmp_path, "b_whole")
    assert main(["--golden", str(golden), "--json"]) == 1
    rows = results(capsys.readouterr().out)["results"]
    assert {"ERROR"} <= {row["verdict"] for row in rows if row["case"] == "a_broken"}
    assert {row["verdict"] for row in rows if row["case"] == "b_whole"} == {"ok"}


def test_model_that_does_not_fit_its_configuration_is_an_error(tmp_path, capsys) -> None:
    golden = copy_case(tmp_path, SMALL)
    path = golden / "models" / "temporal_c64.config.json"
    path.write_text(path.read_text().replace('"max_length": 24', '"max_length": 32'))
    assert main(["--golden", str(golden)]) == 1
    assert "max_length = 32 is not supported" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--golden", "nowhere"], "nowhere"),
        (["--case", "unet_vidio"], "unet_vidio"),
    ],
)
def test_wrong_arguments_are_2(arguments: list[str], message: str, capsys) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_unknown_flag_is_2() -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--bound", "1"])
    assert exit_.value.code == 2


def test_module_runs_from_the_checkout() -> None:
    completed = subprocess.run(
        [sys.executable, "-m", "benchmarks.parity", "--case", "utils", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    assert results(completed.stdout)["passed"] is True


def test_errors_are_relative_to_the_largest_value() -> None:
    expected = np.asarray([1.0, -4.0], np.float32)
    assert compare("", [1.0, -4.4], expected, 0.2).error == pytest.approx(0.1)
    assert compare("", [1.0, -4.4], expected, 0.2, absolute=True).error == pytest.approx(0.4)
    assert compare("", [1.0, -4.4], expected, 0.05).verdict is Verdict.FAILED
    assert compare("", [0.5], np.zeros(1), 0.1).error == 0.5


@pytest.mark.parametrize("got", [[1.0, np.nan], [1.0, np.inf], [1.0], [[1.0, 2.0]]])
def test_what_is_not_finite_or_of_another_shape_fails(got: list) -> None:
    assert compare("", got, np.asarray([1.0, 2.0], np.float32), 1e9).verdict is Verdict.FAILED


def test_worst_of_several() -> None:
    expected = np.ones(1)
    small, large, nan = (compare("", [1 + e], expected, 0.5) for e in (0.1, 0.3, np.nan))
    assert worst("all", [small, large]).error == pytest.approx(0.3)
    assert worst("all", [small, nan, large]).verdict is Verdict.FAILED


def test_case_notes_what_was_asked_for(tmp_path) -> None:
    golden = copy_case(tmp_path, SMALL)
    case = Case(golden / "cases" / f"{SMALL}.json")
    before = case.unread
    _ = case["f8.out"]
    assert set(before) - set(case.unread) == {"f8.out"}
    assert case.get("none") is None
    assert case.prefixes("out") == ["f16.", "f8."]


@pytest.mark.slow
def test_every_stored_case() -> None:
    assert main([]) == 0
