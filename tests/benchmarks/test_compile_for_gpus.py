"""Compiling for GPUs without a GPU."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compile.gpus import GPUS, GpuSystem
from benchmarks.compile.hlo_costs import program_costs
from benchmarks.compile.systems import parse_system
from benchmarks.compile.topologies import Topology
from hotshot_jax.errors import HotshotError, UsageError

ROOT = Path(__file__).parents[2]
PLUGIN = any(
    importlib.util.find_spec(f"jax_plugins.{name}") is not None
    for name in ("xla_cuda12", "xla_cuda13")
    if importlib.util.find_spec("jax_plugins") is not None
)


def test_names_of_systems() -> None:
    assert parse_system("h100") == GpuSystem(GPUS["h100"])
    assert parse_system("a100-8") == GpuSystem(GPUS["a100"], 8)
    assert str(parse_system("h200-4")) == "h200-4"
    assert set(GPUS) == {"a100", "h100", "h200", "b200", "l4", "rtx4090"}
    assert isinstance(parse_system("v5e-8", 2), Topology)


@pytest.mark.parametrize(
    ("name", "slices", "message"),
    [
        ("h100-0", 1, "like h100-8"),
        ("h100:2x4", 1, "like h100-8"),
        ("h100-8", 2, "one host"),
        ("h300", 1, "expected a name like"),
    ],
)
def test_what_is_no_system_is_refused(name: str, slices: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_system(name, slices)


@pytest.mark.skipif(PLUGIN, reason="the compiler is installed")
def test_without_the_compiler_the_message_says_what_to_install() -> None:
    with pytest.raises(HotshotError, match="hotshot-jax\\[cuda\\]"):
        GpuSystem.parse("h100").devices()


LIBRARIES = """HloModule jit_f, is_scheduled=true

%region_0 (a: f32[]) -> f32[] {
  ROOT %a = f32[] parameter(0)
}

%region_1 (b: f32[4,4]) -> f32[4,4] {
  %b = f32[4,4]{1,0} parameter(0)
  ROOT %ones = f32[4,4]{1,0} custom-call(%b, %b), custom_call_target="__cublas$lt$matmul", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]},"precision_config":{"operand_precision":["HIGHEST","HIGHEST"]}}}
}

%block (c: bf16[64,32]) -> bf16[64,64] {
  %c = bf16[64,32]{1,0} parameter(0)
  ROOT %d = bf16[64,64]{1,0} dot(%c, %c), lhs_contracting_dims={1}, rhs_contracting_dims={1}
}

ENTRY %main (q: bf16[2,256,4,64], x: bf16[1,8,8,3], k: bf16[5,3,3,3], y: bf16[1,8,8,5], p: pred[], b: f32[4,4]) -> f32[4,4] {
  %q = bf16[2,256,4,64]{3,2,1,0} parameter(0)
  %x = bf16[1,8,8,3]{3,2,1,0} parameter(1)
  %k = bf16[5,3,3,3]{3,2,1,0} parameter(2)
  %y = bf16[1,8,8,5]{3,2,1,0} parameter(3)
  %p = pred[] parameter(4)
  %b = f32[4,4]{1,0} parameter(5)
  %m = bf16[64,32]{1,0} constant({...})
  %fmha = (bf16[2,4,256,64]{3,1,2,0}, u8[0]{0}) custom-call(%q, %q, %q), custom_call_target="__cudnn$fmhaSoftmax", metadata={op_name="jit(f)/down_blocks.1/attentions.0/while/body/closed_call/attn1/dot_product_attention_fwd"}
  %conv = (bf16[1,8,8,5]{3,2,1,0}, u8[0]{0}) custom-call(%x, %k), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBiasActivationForward"
  %convx = (bf16[1,8,8,3]{3,2,1,0}, u8[0]{0}) custom-call(%y, %k), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardInput"
  %convk = (bf16[5,3,3,3]{3,2,1,0}, u8[0]{0}) custom-call(%x, %y), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardFilter"
  %gemm = bf16[64,64]{1,0} fusion(%m), kind=kCustom, calls=%block, backend_config={"fusion_backend_config":{"kind":"__triton_nested_gemm_fusion"}}
  ROOT %c = f32[4,4]{1,0} conditional(%p, %b, %b), true_computation=%region_1, false_computation=%region_0
}
"""  # noqa: E501 - the compiler's lines are long


def test_what_libraries_and_triton_took_is_counted() -> None:
    costs = program_costs(LIBRARIES, float32_passes=15)
    by_name = {work.instruction: work for work in costs.work}
    convolution = 2 * (3 * 8 - 2) ** 2 * 3 * 5
    assert by_name["fmha"].flops == 2 * 2 * (2 * 4 * 256 * 256 * 64)
    assert by_name["fmha"].layer == ("down_blocks.1/attentions.0/attn1/dot_product_attention_fwd")
    assert [by_name[name].flops for name in ("conv", "convx", "convk")] == [convolution] * 3
    assert by_name["gemm"].flops == 2 * 64 * 64 * 32
    assert (by_name["ones"].flops, by_name["ones"].mxu_flops) == (2 * 4**3, 15 * 2 * 4**3)
    assert {name: work.kernel for name, work in by_name.items()} == {
        "fmha": "cuDNN attention",
        "conv": "cuDNN convolution",
        "convx": "cuDNN convolution",
        "convk": "cuDNN convolution",
        "gemm": "Triton product",
        "ones": "cuBLAS product",
    }


CALLS = {
    "infer": ["h100", "--task", "infer"],
    "decode": ["h100", "--task", "decode"],
    "train": ["h100", "--task", "train", "--remat", "none"],
    "meshed": ["h100-2", "--task", "infer", "--mesh", "frames=2"],
}


@pytest.mark.slow
@pytest.mark.skipif(not PLUGIN, reason="JAX's CUDA plugin and cuDNN are not installed: gigabytes")
@pytest.mark.parametrize("task", list(CALLS))
def test_the_tiny_model_compiles_for_an_h100(task: str) -> None:
    small = "--size tiny --width 64 --height 64 --json".split()
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.compile_for", *CALLS[task], *small],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if "CACHE" not in key}
        | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    report: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    assert report["fits"]
    # Products on blocks of the matrix units are padded where a few channels do not fill them.
    assert report["flops_per_device"] == pytest.approx(report["ideal_flops_per_device"], rel=0.25)
    assert report["kernels"]["cuDNN convolution"]["count"] > 0
    assert bool(report["collectives"]) == (task == "meshed")
