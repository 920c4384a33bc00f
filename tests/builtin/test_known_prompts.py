"""What the built-in model says that it knows, and what is said where something else is asked."""

import json
import shutil
from pathlib import Path

import pytest

from hotshot_jax.builtin import builtin_checkpoint
from hotshot_jax.cli.infer.arguments import parse_settings
from hotshot_jax.cli.infer.prompts import warn_of_unknown
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.convert.formats.small_files import KNOWN_PROMPTS, copy_small_files
from hotshot_jax.data import shapes
from hotshot_jax.pipelines.known_prompts import KnownPrompts


@pytest.fixture(scope="module")
def known() -> KnownPrompts:
    found = KnownPrompts.of(builtin_checkpoint())
    assert found is not None
    return found


def test_it_is_what_it_was_trained_on(known: KnownPrompts) -> None:
    assert known.words == {
        "COLOUR": tuple(shapes.COLOURS),
        "SHAPE": shapes.SHAPES,
        "MOTION": shapes.MOTIONS,
        "BACKGROUND": tuple(shapes.BACKGROUNDS),
    }
    assert known.sizes == ((shapes.DEFAULT_SIZE, shapes.DEFAULT_SIZE),)
    prompts = shapes.all_prompts()
    assert all(known.knows(prompt) for prompt in prompts)
    assert known.knows(shapes.parse_prompt(prompts[0]).brief)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("A red  circle moving right on a black background ", True),
        ("a cyan circle moving right on a black background", False),
        ("a red circle moving right", False),
        ("a red circle moving right on a black background, hd", False),
        ("a bulldog", False),
        ("", False),
    ],
)
def test_other_words(known: KnownPrompts, prompt: str, expected: bool) -> None:
    assert known.knows(prompt) == expected


def test_its_default_is_a_prompt_that_it_knows(known: KnownPrompts) -> None:
    assert known.knows(parse_settings([]).prompt)
    assert not known.knows(InferSettings().prompt)


def warned(caplog: pytest.LogCaptureFixture, *arguments: str) -> list[str]:
    caplog.clear()
    settings = parse_settings(arguments)
    warn_of_unknown(settings, [settings.prompt])
    return caplog.messages


def test_what_is_not_known_is_said(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    copy_small_files(builtin_checkpoint(), copy)
    for model in ((), ("--pretrained_path", str(copy))):
        assert warned(caplog, *model) == []
        assert (
            warned(caplog, *model, "--prompt", "a (red:1.2) star growing on a teal background")
            == []
        )
        edited = "a [red:blue:0.5] star growing on a teal background"
        assert warned(caplog, *model, "--prompt", edited) == []
        (message,) = warned(caplog, *model, "--prompt", "a bulldog")
        assert message.startswith("The model was not made for 'a bulldog'.")
        assert (
            '"a COLOUR SHAPE MOTION on a BACKGROUND background", where COLOUR is red, ' in message
        )
        (message,) = warned(caplog, *model, "--prompt", edited.replace("blue", "golden"))
        assert "[red:golden:0.5]" in message
        # A LoRA may have taught other words.
        assert warned(caplog, *model, "--prompt", "a bulldog", "--lora", "dog.safetensors") == []
        (message,) = warned(caplog, *model, "--width", "256")
        assert message == "The model was not made for 256 x 128 pixels, but for 128 x 128."
        (message,) = warned(caplog, *model, "--video_length", "16")
        assert message == "The model was not made for 16 frames at once, but for 1 or 8."


def test_other_checkpoints_say_nothing(
    tiny_checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert KnownPrompts.of(tiny_checkpoint) is None
    assert warned(caplog, "--pretrained_path", str(tiny_checkpoint), "--prompt", "a bulldog") == []


@pytest.mark.parametrize(
    "change",
    [
        {"forms": []},
        {"forms": "a COLOUR"},
        {"words": {"COLOUR": []}},
        {"words": {"COLOUR": [1]}},
        {"words": []},
        {"sizes": [128, 128]},
        {"sizes": [[128]]},
        {"frames": [True]},
        {"more": 1},
        None,
    ],
)
def test_files_of_that_name_that_are_not_ours_say_nothing(tmp_path: Path, change: object) -> None:
    file = tmp_path / KNOWN_PROMPTS
    shutil.copyfile(builtin_checkpoint() / KNOWN_PROMPTS, file)
    assert KnownPrompts.of(tmp_path) is not None
    values = json.loads(file.read_text())
    file.write_text("[" if change is None else json.dumps(values | change))
    assert KnownPrompts.of(tmp_path) is None
