"""What the command line asks for and what cannot act."""

import pytest

from hotshot_jax.cli.infer.arguments import completed
from hotshot_jax.cli.infer.command import given_flags
from hotshot_jax.cli.infer.effects import check_effects, check_effort
from hotshot_jax.cli.train.settings import parse_train_arguments
from hotshot_jax.errors import UsageError


def check(line: str) -> None:
    parsed = completed(given_flags(line.split()))
    check_effects(parsed.given, parsed.settings)


IDLE = {
    "--gif a.gif": "without --control_type or --controlnet",
    "--controlnet_conditioning_scale 0.5": "without --control_type or --controlnet",
    "--guess_mode": "without --control_type or --controlnet",
    "--canny_low_threshold 5 --control_type depth --gif a.gif": "unless edges are made",
    "--canny_low_threshold 5 --control_type canny --control_preprocess none --gif a.gif": "unless",
    "--depth_checkpoint a/b --control_type canny --gif a.gif": "unless depth is made",
    "--allow_private_urls --control_type canny --gif a.gif": "unless --gif is a URL",
    "--lora_allow_partial": "without --lora",
    "--variant fp16": "on the built-in model",
    "--prompts_file a.txt --prompt x": "beside --prompts_file",
    "--prompt x --prompt_at 0:y": "beside a --prompt_at for frame 0",
    "--prompts_file a.txt --prompt_at 0:y": "beside a --prompt_at for frame 0",
    "--negative_prompt x --negative_prompt_at 0:y": "beside a --negative_prompt_at for frame 0",
    "--guidance_rescale 0.5 --guidance_scale 1": "a --guidance_scale above 1",
    "--guidance_interval 0:0.5 --guidance_scale 1": "a --guidance_scale above 1",
    "--eta 0.5": "it is for ddim",
    "--video_length 1 --output a.png --video_duration 500": "on pictures",
}


@pytest.mark.parametrize("line", IDLE)
def test_what_cannot_act_is_refused(line: str) -> None:
    with pytest.raises(UsageError, match="has no effect") as refused:
        check(line)
    assert IDLE[line] in str(refused.value)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--eta 0",
        "--eta 0.5 --scheduler ddim",
        "--guidance_interval 0:1 --cache_interval 1 --guidance_scale 1",
        "--guidance_interval 0:0.5 --cache_interval 3",
        "--eta 0.5 --scheduler default",
        "--variant fp16 --model a/b",
        "--control_type canny --canny_low_threshold 5 --gif a.gif",
        "--video_length 1 --output a.gif --video_duration 500",
        "--preset lightning --negative_prompt x",
        "--prompt x --prompt_at 3:y --negative_prompt x --negative_prompt_at 3:y",
    ],
)
def test_what_acts_is_not(line: str, caplog: pytest.LogCaptureFixture) -> None:
    check(line)
    assert caplog.text == ""


def test_a_file_that_is_fed_back_stays_silent(tmp_path) -> None:
    (tmp_path / "a.yaml").write_text("eta: 0.5\nguess_mode: true\nvariant: fp16\n")
    check(f"--config {tmp_path / 'a.yaml'}")


def test_a_negative_prompt_without_guidance_is_told(caplog: pytest.LogCaptureFixture) -> None:
    check("--negative_prompt dull --guidance_scale 1")
    assert "--negative_prompt has no effect with --guidance_scale 1" in caplog.text


@pytest.mark.parametrize("effort", ["O1", "O2"])
def test_an_effort_is_for_tpus(effort: str) -> None:
    _, given = parse_train_arguments(["--compile_effort", effort], "train.py")
    with pytest.raises(UsageError, match=f"--compile_effort {effort} is for TPUs"):
        check_effort("cpu", effort, given)
    check_effort("tpu", effort, given)
    check_effort("cpu", effort, ())
