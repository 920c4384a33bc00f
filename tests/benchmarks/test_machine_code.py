"""Cycles read from the code that libtpu writes for a TPU."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.compile import layer_times
from benchmarks.compile.machine_code import read_code, take_machine_code

ROOT = Path(__file__).parents[2]

# Two bundles, a loop over a grid of 2 x 5 with a loop of four turns inside, and a bundle.
CODE = """\
LB: loop body
= control target key end

     0   :  { %3 = vsyncpa [#allocation4], 0 }
   0x1   :  { %s9_s9 = smov 0  ;;  %s10_s10 = smov 0 } /* Start region 8 */
   0x2 LB: > { %s16 = sphi %s9, %s14_s16 } /* Start region 8 */
   0x3 LB: >> { %10 = vmatmul.f32.gmra.mxu0 %v1  ;;  %11 = vmatmul.bf16.gmra.mxu1 %v2 }
   0x4   : >> { %p1_p1 = scmp.ge.s32.totalorder %s7, 4 /* loop exit test */  ;;  %12 = sbr.rel (!%p1_p1) target = $region7 }
   0x5   : > { %13 = vmatmul.lmr.bf16.gmra.16.mxu0 %v1 }
   0x6   : > { %78193 = dma.hbm_to_vmem [thread:$0]  /*hbm=*/%s1, /*size_in_granules=*/20480 /*
window_bounds: (160, 2)
iteration_bounds: (2, 5, 1)
element_size_in_bytes: 2048 */ }
   0x7   : > { %p9_p9 = scmp.ge.s32.totalorder %s14_s16, 12 /* loop exit test */ }
   0x8   :  { %13 = sbr.rel (!%p9_p9) target = $region8 }
   0x9   :  { %64257 = vsyncpa [#allocation4], 1 } /* exit bundle */
"""  # noqa: E501 - the compiler's lines are long


def test_bundles_and_rows_of_loops_are_multiplied_out() -> None:
    code = read_code(CODE)
    assert code.bundles == 2 + 10 * (5 + 4 * 2) + 1
    assert code.rows == {"0": 10 * (8 + 4 * 8), "1": 10 * 4 * 16}
    assert (code.matrix_cycles, code.cycles) == (640, 640)


def test_a_loop_without_a_grid_ends_at_its_limit() -> None:
    code = read_code(CODE.replace("iteration_bounds", "strides"))
    assert code.bundles == 2 + 12 * (5 + 4 * 2) + 1


def test_a_loop_without_an_end_is_an_error() -> None:
    with pytest.raises(ValueError, match="no end"):
        read_code(CODE.replace("loop exit test", ""))


def test_of_a_dump_the_last_code_of_each_instruction_is_taken(tmp_path: Path) -> None:
    for name in (
        "179-fusion.3-72-final_bundles.txt",
        "179-fusion.3-71-schedule-analysis_final_bundles.txt",
        "179-fusion.3-48-packed-bundles-pre-ra.txt",
        "178-TLP-73-final_bundles.txt",
        "178-<late-finalization>-68-final_bundles.txt",
    ):
        (tmp_path / name).write_text(CODE)
    assert list(take_machine_code(tmp_path)) == ["fusion.3"]
    assert not list(tmp_path.iterdir())


def test_unknown_layers_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        layer_times.main(["conv"])
    assert ended.value.code == 2
    assert "'conv'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu, the TPU compiler, is not installed"
)
def test_the_model_is_near_the_code_of_a_product() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.compile.layer_times", "product"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    cells = finished.stdout.splitlines()[-1].split("|")
    assert 0.75 <= float(cells[-2]) <= 1.25
