"""`--preset`: what it sets, that flags win, and the schedules that come of it."""

import json
from pathlib import Path

import diffusers
import numpy as np
import pytest

from hotshot_jax.cli.infer.arguments import completed, parse_settings
from hotshot_jax.cli.infer.job_settings import model_settings
from hotshot_jax.cli.infer.presets import PRESETS, describe_preset
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.errors import UsageError
from hotshot_jax.pipelines import HotshotXLPipeline
from hotshot_jax.schedulers import make_scheduler
from tests.cli.conftest import Infer

SDXL = {
    "_class_name": "EulerAncestralDiscreteScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


def settings_of(*arguments: str | Path) -> InferSettings:
    return parse_settings([str(each) for each in arguments])


def effective(settings: InferSettings) -> tuple[str, str | None, int, float]:
    return (
        settings.scheduler,
        settings.timestep_spacing,
        settings.steps,
        settings.guidance_scale,
    )


def timesteps_of(settings: InferSettings) -> np.ndarray:
    scheduler = make_scheduler(
        settings.scheduler, SDXL | model_settings(settings).scheduler_options
    )
    return scheduler.schedule(settings.steps).timesteps


@pytest.mark.parametrize(
    ("name", "expected", "timesteps"),
    [
        ("lcm", ("LCMScheduler", None, 4, 1.0), [999, 759, 499, 259]),
        ("lightning", ("EulerDiscreteScheduler", "trailing", 4, 1.0), [999, 749, 499, 249]),
        (
            "hyper",
            ("DDIMScheduler", "trailing", 8, 1.0),
            [999, 874, 749, 624, 499, 374, 249, 124],
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_presets(
    name: str, expected: tuple[str, str | None, int, float], timesteps: list[int]
) -> None:
    settings = settings_of("--preset", name)
    assert effective(settings) == expected
    np.testing.assert_array_equal(timesteps_of(settings), timesteps)
    theirs = getattr(diffusers, settings.scheduler).from_config(
        SDXL, **model_settings(settings).scheduler_options
    )
    theirs.set_timesteps(settings.steps)
    np.testing.assert_array_equal(timesteps_of(settings), theirs.timesteps.numpy())


@pytest.mark.parametrize(("name", "steps", "full"), [("balanced", 15, 1), ("fast", 30, 5)])
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_presets_for_any_model(name: str, steps: int, full: int) -> None:
    # A name that states steps is no model of few steps here; guidance stays as it is.
    named = ("--lora", "sdxl_drawings_8step_lora.safetensors", "--guidance_scale", "7")
    settings = settings_of("--preset", name, *named)
    assert effective(settings) == ("dpmpp_2m_karras", None, steps, 7.0)
    assert settings.cache_interval == full
    assert settings_of("--preset", name).guidance_scale == InferSettings().guidance_scale
    theirs = diffusers.DPMSolverMultistepScheduler.from_config(SDXL, use_karras_sigmas=True)
    theirs.set_timesteps(steps)
    np.testing.assert_array_equal(timesteps_of(settings), theirs.timesteps.numpy())


@pytest.mark.parametrize(
    ("flags", "interval"), [((), 5), (("--steps", "15"), 5), (("--cache_interval", "1"), 1)]
)
def test_what_a_preset_set_is_read_again(
    flags: tuple[str, ...], interval: int, tmp_path: Path
) -> None:
    settings = settings_of("--preset", "fast", *flags)
    assert settings.cache_interval == interval
    file = tmp_path / "run.json"
    file.write_text(json.dumps(settings.stored()))
    assert settings_of("--config", file) == settings
    assert settings_of("--config", file, "--steps", "10").cache_interval == interval
    # Features are not kept for a model of few steps.
    assert settings_of("--config", file, "--preset", "lcm").cache_interval == 1


def test_who_wins_over_whom(tmp_path: Path) -> None:
    """The command line, its preset, the file, its preset, and last what lies beside the model."""
    (tmp_path / "settings.json").write_text(
        json.dumps({"steps": 7, "scheduler": "ddim", "width": 64})
    )
    file = tmp_path / "run.json"
    named = {"pretrained_path": str(tmp_path), "timestep_spacing": "trailing"}
    file.write_text(json.dumps(named | {"preset": "fast", "guidance_scale": 6.0}))
    settings = settings_of("--config", file)
    assert effective(settings) == ("dpmpp_2m_karras", "trailing", 30, 6.0)
    assert settings.width == 64 and settings.cache_interval == 5
    few = settings_of("--config", file, "--preset", "hyper", "--guidance_scale", "2")
    assert effective(few) == ("DDIMScheduler", "trailing", 8, 2.0)
    assert effective(settings_of("--pretrained_path", tmp_path))[:3] == ("ddim", None, 7)


def test_a_preset_that_another_replaces_refuses_nothing(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"preset": "lightning"}))
    single = ("--lora", "sdxl_lightning_1step_lora.safetensors")
    assert settings_of("--config", file, "--preset", "fast", *single).steps == 30


def test_what_a_preset_sets_is_named() -> None:
    """So that `--smooth` does not put guidance into a model that was distilled without."""
    named = completed({"preset": "lightning"}).named
    assert {"preset", "scheduler", "steps", "guidance_scale"} <= named
    assert "guidance_scale" not in completed({"preset": "fast"}).named


def test_without_a_preset_nothing_changes() -> None:
    assert effective(settings_of()) == ("EulerAncestralDiscreteScheduler", None, 30, 5.0)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--steps", "6"), ("EulerDiscreteScheduler", "trailing", 6, 1.0)),
        (("--guidance_scale", "2"), ("EulerDiscreteScheduler", "trailing", 4, 2.0)),
        (("--scheduler", "unipc"), ("unipc", "trailing", 4, 1.0)),
        (("--timestep_spacing", "linspace"), ("EulerDiscreteScheduler", "linspace", 4, 1.0)),
        # A flag wins also with the value that is the default without a preset.
        (("--guidance_scale", "5"), ("EulerDiscreteScheduler", "trailing", 4, 5.0)),
    ],
)
def test_flags_win(flags: tuple[str, str], expected: tuple[str, str | None, int, float]) -> None:
    assert effective(settings_of("--preset", "lightning", *flags)) == expected
    assert effective(settings_of(*flags, "--preset", "lightning")) == expected


def test_configuration_files(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"preset": "lightning", "steps": 6}))
    assert effective(settings_of("--config", file))[2] == 6
    # On the command line, the preset is a flag like others.
    assert effective(settings_of("--config", file, "--preset", "hyper")) == (
        "DDIMScheduler",
        "trailing",
        8,
        1.0,
    )
    assert effective(settings_of("--config", file, "--scheduler", "ddim"))[0] == "ddim"


@pytest.mark.parametrize(
    ("preset", "flags", "steps", "guidance"),
    [
        ("lightning", ("--lora", "dir/sdxl_lightning_8step_lora.safetensors:0.9"), 8, 1.0),
        ("lightning", ("--spatial_unet_base", "sdxl_lightning_2step_unet.safetensors"), 2, 1.0),
        ("lightning", ("--pretrained_path", "runs/tuned-500steps"), 4, 1.0),
        ("hyper", ("--lora", "Hyper-SDXL-4steps-lora.safetensors"), 4, 1.0),
        ("hyper", ("--lora", "Hyper-SDXL-12steps-CFG-lora.safetensors:0.125"), 12, 5.0),
        ("lcm", ("--lora", "latent-consistency/lcm-lora-sdxl"), 4, 1.0),
    ],
)
def test_the_files_name_says_how_many_steps(
    preset: str, flags: tuple[str, str], steps: int, guidance: float
) -> None:
    settings = settings_of("--preset", preset, *flags)
    assert (settings.steps, settings.guidance_scale) == (steps, guidance)


def test_models_of_one_step_are_refused() -> None:
    with pytest.raises(UsageError, match=r"sdxl_lightning_1step_x0.* made for a single step"):
        settings_of("--preset", "lightning", "--base", "sdxl_lightning_1step_x0.safetensors")


def test_what_is_said() -> None:
    settings = settings_of("--preset", "lightning", "--steps", "6")
    assert describe_preset("lightning", settings) == (
        "preset lightning: scheduler EulerDiscreteScheduler, timestep_spacing trailing, "
        "steps 6 (as given), guidance_scale 1; without guidance, negative prompts have no effect"
    )
    assert "negative" not in describe_preset("lcm", settings_of("--guidance_scale", "1.5"))
    fast = settings_of("--preset", "fast", "--steps", "15")
    assert describe_preset("fast", fast) == (
        "preset fast: scheduler dpmpp_2m_karras, steps 15 (as given), cache_interval 5"
    )
    whole = settings_of("--preset", "fast", "--cache_interval", "1")
    assert describe_preset("fast", whole).endswith("steps 30, cache_interval 1 (as given)")


def test_the_built_in_model_s_own_lora_comes_with_its_preset(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("hotshot_jax.cli.infer.presets.builtin_loras", lambda: {"lcm": tmp_path})
    settings = settings_of("--preset", "lcm")
    assert model_settings(settings).loras == ((str(tmp_path), 1.0),)
    assert ", with the LoRA of the built-in model" in describe_preset("lcm", settings)
    for others in (
        ("--preset", "lightning"),
        ("--preset", "lcm", "--pretrained_path", "a"),
        ("--preset", "lcm", "--base", "a"),
        ("--scheduler", "lcm"),
    ):
        assert model_settings(settings_of(*others)).loras == ()
    # What is named is all that there is: it may be a LoRA of few steps itself.
    named = settings_of("--preset", "lcm", "--lora", "a:0.5")
    assert model_settings(named).loras == (("a", 0.5),)
    assert "built-in" not in describe_preset("lcm", named)


def test_the_pipeline_samples_on_that_schedule(tiny_checkpoint: Path) -> None:
    preset = PRESETS["lightning"]
    pipeline = HotshotXLPipeline.from_pretrained(
        str(tiny_checkpoint),
        precision="f32",
        scheduler=preset.scheduler,
        scheduler_options={"timestep_spacing": preset.timestep_spacing},
    )
    schedule = pipeline.scheduler.schedule(preset.steps)
    np.testing.assert_array_equal(schedule.timesteps, [999, 749, 499, 249])


@pytest.mark.slow
def test_a_run(infer: Infer, tmp_path: Path) -> None:
    out = tmp_path / "out.webp"
    run = infer("--preset", "lightning", "--output", out, "--json")
    assert run.status == 0, run.stderr
    assert "preset lightning: scheduler EulerDiscreteScheduler" in run.stderr
    stored = run.report["settings"]
    expected = {
        "preset": "lightning",
        "scheduler": "EulerDiscreteScheduler",
        "timestep_spacing": "trailing",
        "steps": 2,
        "guidance_scale": 1.0,
    }
    assert {name: stored[name] for name in expected} == expected
    again = parse_settings(["--config", str(out)])
    assert effective(again) == ("EulerDiscreteScheduler", "trailing", 2, 1.0)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ("epsilon", False, "leading")),
        (["--prediction_type", "v_prediction"], ("v_prediction", False, "leading")),
        (
            ["--prediction_type", "v_prediction", "--zero_terminal_snr"],
            ("v_prediction", True, "trailing"),
        ),
        (
            [
                *("--prediction_type", "v_prediction", "--zero_terminal_snr"),
                *("--timestep_spacing", "linspace"),
            ],
            ("v_prediction", True, "linspace"),
        ),
        (["--no-zero_terminal_snr"], ("epsilon", False, "leading")),
    ],
)
def test_what_the_model_predicts_can_be_said(
    arguments: list[str], expected: tuple[str, bool, str]
) -> None:
    settings = settings_of(*arguments)
    scheduler = make_scheduler("euler", SDXL | model_settings(settings).scheduler_options)
    found = scheduler.prediction_type, scheduler.rescale_betas_zero_snr, scheduler.timestep_spacing
    assert found == expected
    stored = settings.stored()
    assert stored.get("prediction_type") == (arguments[1] if len(arguments) > 1 else None)


def test_what_a_file_says_can_be_overruled() -> None:
    stated = SDXL | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    settings = settings_of("--prediction_type", "epsilon", "--no-zero_terminal_snr")
    scheduler = make_scheduler("euler", stated | model_settings(settings).scheduler_options)
    assert (scheduler.prediction_type, scheduler.rescale_betas_zero_snr) == ("epsilon", False)
