"""Command lines in the words of other tools."""

import sys

import pytest

from hotshot_jax.cli.flags import flags_of
from hotshot_jax.cli.infer import command as infer
from hotshot_jax.cli.infer.arguments import parse_settings
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.cli.other_names import INFER, TRAIN, sampler
from hotshot_jax.cli.train.checks import check_settings
from hotshot_jax.cli.train.settings import TrainSettings, parse_train_settings
from hotshot_jax.errors import UsageError
from hotshot_jax.schedulers import SHORT_NAMES

UNDERSTOOD = {
    "--cfg 3": ("guidance_scale", 3.0),
    "--cfg_scale=3": ("guidance_scale", 3.0),
    "--CFG 3": ("guidance_scale", 3.0),
    "--guidance-scale 3": ("guidance_scale", 3.0),
    "--num_inference_steps 7": ("steps", 7),
    "--num-inference-steps 7": ("steps", 7),
    "--num_frames 4": ("video_length", 4),
    "--model a/b": ("pretrained_path", "a/b"),
    "--pretrained_model_name_or_path a/b": ("pretrained_path", "a/b"),
    "--sampler euler_a": ("scheduler", "euler_ancestral"),
    "--sampler_name=DPM++_2M_Karras": ("scheduler", "dpmpp_2m_karras"),
    "--scheduler dpmpp_2m": ("scheduler", "dpmpp_2m"),
    "--scheduler EulerDiscreteScheduler": ("scheduler", "EulerDiscreteScheduler"),
    "--precision fp16": ("precision", "f16"),
    "--torch_dtype torch.float16": ("precision", "f16"),
    "--fp16": ("precision", "f16"),
    "--bf16": ("precision", "bf16"),
    "--device cuda": ("device", "gpu"),
    "--cuda": ("device", "gpu"),
    "--aspect_ratio 16:9": ("aspect_ratio", "1.75"),
    "--ar 9:16": ("aspect_ratio", "0.57"),
    "--W 512": ("width", 512),
    "-o a.gif": ("output", "a.gif"),
    "--negative dull": ("negative_prompt", "dull"),
    "--seed -1": ("seed", -1),
    "--lora_path a.safetensors:0.5": ("lora", ("a.safetensors:0.5",)),
    "--overwrite true": ("overwrite", True),
    "--overwrite=False": ("overwrite", False),
    "--no-prompt-weights": ("prompt_weights", False),
    "--enable_model_cpu_offload": ("low_vram_mode", True),
    "--json kitten": ("prompt", "kitten"),
    "kitten --json": ("prompt", "kitten"),
}


@pytest.mark.parametrize("line", UNDERSTOOD)
def test_what_has_one_meaning_is_understood(line: str) -> None:
    name, value = UNDERSTOOD[line]
    assert getattr(parse_settings(line.split()), name) == value


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("--lr 1e-4", "learning_rate", 1e-4),
        ("--network_dim 8", "lora_rank", 8),
        ("--train_text_encoders --train lora", "train_text_encoder", True),
        ("--train_data_dir a", "data_dir", "a"),
        ("--max_train_epochs 3", "num_train_epochs", 3),
        ("--checkpointing_steps 5", "save_n_steps", 5),
        ("--resume_from_checkpoint latest", "resume", "auto"),
        ("--mixed_precision fp32", "mixed_precision", "no"),
        ("--min_snr_gamma 5", "snr_gamma", 5.0),
        ("--snr_gamma", "snr_gamma", 5.0),
        ("--v_parameterization", "prediction_type", "v_prediction"),
        ("--device cuda", "device", "gpu"),
        ("--steps 10", "max_train_steps", 10),
        ("--loss_type l2", "loss", "mse"),
        ("--train lcm", "lora_targets", "both"),
        ("--train lcm --lora_targets temporal", "lora_targets", "temporal"),
    ],
)
def test_training_knows_its_own(line: str, name: str, value: object) -> None:
    assert getattr(parse_train_settings(line.split(), "train.py"), name) == value


REFUSED = {
    "--fps 8": "--video_duration",
    "--size 512x512": "--width and --height",
    "--lora_scale 0.5": "--lora FILE:0.8",
    "a red dog": "--prompt 'a red dog'",
    "dog --prompt cat": "without a flag",
    "hello.gif": "looks like a file",
    "--cfg 3 --guidance_scale 4": "--guidance_scale is given twice, as 3.0 and 4.0",
    "--steps 3 --steps 4": "--steps is given twice",
    "--overwrite --no-overwrite": "--overwrite is given twice",
    "--overwrite maybe --prompt x": "without a flag",
    "--overwrite=maybe": "takes no value",
    "--step 5": "unrecognized arguments: --step 5; did you mean --steps?",
    "--cfgscale 5 --prompt x": "unrecognized arguments: --cfgscale 5",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_has_not_is_refused_with_the_flag_to_use(line: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_settings(line.split())
    assert REFUSED[line] in str(refused.value)
    assert "?." not in str(refused.value)


def test_equal_values_and_repeatable_flags_may_be_given_again() -> None:
    parsed = parse_settings("--steps 3 --steps 3 --lora a --lora b".split())
    assert (parsed.steps, parsed.lora) == (3, ("a", "b"))


def test_training_refuses_a_second_value() -> None:
    with pytest.raises(UsageError, match="--output_dir is given twice, as 'A' and 'B'"):
        parse_train_settings("--output_dir A --output_dir B".split(), "train.py")
    wrong = parse_train_settings("--data_dir A --aspect_ratio 3:2".split(), "train.py")
    with pytest.raises(UsageError, match="`aspect_ratio` 3:2") as refused:
        check_settings(wrong)
    assert "width" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Euler a", "euler_ancestral"),
        ("Euler", "euler"),
        ("DPM++ 2M Karras", "dpmpp_2m_karras"),
        ("DPM++ 2M SDE Karras", "dpmpp_2m_sde_karras"),
        ("dpmpp_2m_sde", "dpmpp_2m_sde"),
        ("uni_pc", "unipc"),
        ("PLMS", "pndm"),
        ("DPM++ SDE Karras", "DPM++ SDE Karras"),
    ],
)
def test_samplers_of_other_tools(name: str, expected: str) -> None:
    assert sampler(name) == expected


@pytest.mark.parametrize(("names", "settings"), [(INFER, InferSettings), (TRAIN, TrainSettings)])
def test_the_tables_fit_the_flags(names, settings) -> None:
    flags = flags_of(settings)
    assert set(names.same.values()) | set(names.values) <= set(flags)
    others = [*names.same, *names.instead, *names.advice]
    assert len(others) == len(set(others))
    assert not set(others) & set(flags)
    for arguments in names.instead.values():
        assert arguments[0].removeprefix("--") in flags
    assert set(map(sampler, SHORT_NAMES)) == set(SHORT_NAMES)


def test_the_help_knows_one_name_each(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_settings(["--help"])
    text = capsys.readouterr().out
    assert "--guidance_scale" in text
    assert "--cfg" not in text


def test_the_installed_command_goes_by_its_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/hotshot-jax", "--help"])
    with pytest.raises(SystemExit):
        infer.main()
    assert capsys.readouterr().out.startswith("usage: hotshot-jax ")
    monkeypatch.setattr(sys, "argv", ["/usr/bin/hotshot-jax", "--fps", "8"])
    assert infer.main() == 2
    assert capsys.readouterr().err.startswith("hotshot-jax: error: --fps")


def test_a_file_is_told_the_right_key(tmp_path) -> None:
    (tmp_path / "a.yaml").write_text("cfg_scale: 3\n")
    with pytest.raises(UsageError, match="did you mean 'guidance_scale'"):
        parse_settings(["--config", str(tmp_path / "a.yaml")])
