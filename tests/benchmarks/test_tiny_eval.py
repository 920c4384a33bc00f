import json
from collections import Counter
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks import tiny_eval
from benchmarks.toy import shape_scores
from benchmarks.toy.shapes_evaluator import Measurement, measure, read_clip
from hotshot_jax.convert.tensors.rules import flat_parameters
from hotshot_jax.data import shapes
from hotshot_jax.models.unet.temporal_transformer import TransformerTemporal
from hotshot_jax.pipelines.hotshot_xl import HotshotXLPipeline
from tests.lora_files import factors, is_spatial, write_lora

PROMPT = "a red square moving right on a black background"


def test_marks_add_up_to_shares_and_confusions() -> None:
    scores = shape_scores.Scores()
    assert scores.add(PROMPT, Measurement("red", "square", "moving right", "black"))
    assert not scores.add(PROMPT, Measurement("pink", "square", "moving up", "black"))
    assert not scores.add(PROMPT, Measurement("pink", None, None, "black"))
    assert not scores.add(PROMPT, Measurement("red", "square", "moving up", "black"))
    assert scores.shares == {
        "colour": 0.5, "shape": 0.75, "motion": 0.25, "background": 1.0, "all": 0.25,
    }  # fmt: skip
    assert scores.confusions("colour") == [("red", "pink", 2)]
    assert scores.confusions("motion") == [
        ("moving right", "moving up", 2), ("moving right", "nothing", 1),
    ]  # fmt: skip
    assert scores.words("motion") == {"moving right": (1, 4)}
    shown = shape_scores.table({"one": scores, "other": shape_scores.Scores()})
    assert "red -> pink 2" in shown and "25.0 %" in shown
    assert scores.report()["scores"]["all"] == 0.25


def test_clips_of_the_data_set_are_all_right_and_still_ones_are_not() -> None:
    moving, still = shape_scores.Scores(), shape_scores.Scores()
    images = shape_scores.Scores(("colour", "shape", "background"))
    for seed, prompt in enumerate(tiny_eval.spread(shapes.split_prompts("held_out"), 24)):
        clip = shapes.render(prompt, seed, 64)
        moving.add(prompt, measure(clip))
        still.add(prompt, measure(np.repeat(clip[:1], 8, axis=0)))
        images.add(prompt, measure(clip[3:4]))
    assert moving.shares["all"] == 1.0
    assert images.shares["all"] == 1.0 and "motion" not in images.shares
    standing = still.words("motion")["standing still"][1] / 24
    assert still.shares["motion"] == still.shares["all"] == pytest.approx(standing)


def test_prompts_are_held_out_and_spread_over_every_word() -> None:
    prompts = tiny_eval.spread(shapes.split_prompts("held_out"), 200)
    assert len(set(prompts)) == 200 and all(map(shapes.is_held_out, prompts))
    parts = [shapes.parse_prompt(prompt) for prompt in prompts]
    for name, words in [("colour", 8), ("shape", 5), ("motion", 8), ("background", 4)]:
        counts = Counter(getattr(part, name) for part in parts)
        assert len(counts) == words
        assert max(counts.values()) <= 1.3 * min(counts.values()), counts
    again = tiny_eval.spread(prompts, 600)
    assert Counter(Counter(again).values()) == {3: 200}


def test_inert_temporal_layers_change_nothing_and_the_rest_is_shared(tiny_checkpoint: Path) -> None:
    pipeline = HotshotXLPipeline.from_pretrained(str(tiny_checkpoint), precision="f32")
    inert = tiny_eval.without_temporal_layers(pipeline)
    before, after = (flat_parameters(each.components.unet) for each in (pipeline, inert))
    changed = {path for path in before if before[path] is not after[path]}
    assert {path[-2:] for path in changed} == {("proj_out", "kernel"), ("proj_out", "bias")}
    transformers = {
        path: module
        for path, module in nnx.iter_modules(inert.components.unet)
        if isinstance(module, TransformerTemporal)
    }
    assert len(changed) == 2 * len(transformers) > 0
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 3, 2, 2, 32), np.float32))
    first = inert.components.unet.down_blocks[0].temporal_attentions[0]
    np.testing.assert_array_equal(first(x), x)
    assert (pipeline.components.unet.down_blocks[0].temporal_attentions[0](x) != x).any()


def test_clips_are_made_kept_and_measured(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "clips"
    given = ["--pretrained_path", str(tiny_checkpoint), "--count", "3", "--batch_size", "2"]
    given += ["--steps", "1", "--size", "16", "--video_length", "2", "--json", "--seed", "7"]
    given += ["--compilation_cache", str(tmp_path / "compiled"), "--save", str(folder)]
    assert tiny_eval.main(given) == 0
    out = capsys.readouterr().out
    report = json.loads(out.splitlines()[-1])
    assert report["clips"] == report["before"]["clips"] == 3
    assert set(report["scores"]) == {"colour", "shape", "motion", "background", "all"}
    assert "before the temporal stage" in out and "all at once" in out
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    prompts = tiny_eval.spread(shapes.split_prompts("held_out"), 3)
    assert lines == [
        {"file": f"{number:03d}.gif", "prompt": prompt, "seed": 7 + number}
        for number, prompt in enumerate(prompts)
    ]
    assert sorted(file.name for file in folder.iterdir()) == [
        "000.gif", "001.gif", "002.gif", "manifest.jsonl",
    ]  # fmt: skip
    assert read_clip(folder / "002.gif").shape == (2, 16, 16, 3)
    assert tiny_eval.main(given) == 2
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--count", "0"], "--count is 0"),
        (["--prompts_file", "/nowhere.txt"], "--prompts_file /nowhere.txt"),
        (["--sav", "x"], "did you mean --save?"),
    ],
)
def test_wrong_arguments_are_told(
    given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny_eval.main(given) == 2
    assert message in capsys.readouterr().err


def test_a_prompt_that_cannot_be_measured_is_told_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text(f"{PROMPT}\na bulldog\n")
    assert tiny_eval.main(["--prompts_file", str(file)]) == 2
    assert "'a bulldog'" in capsys.readouterr().err


def test_new_colours_are_those_of_the_prompts_or_any_that_a_lora_may_bring() -> None:
    assert tiny_eval.new_colours([PROMPT], []) == []
    assert tiny_eval.new_colours([PROMPT, PROMPT.replace("red", "cyan")], []) == ["cyan"]
    assert tiny_eval.new_colours([PROMPT], ["style:0.5"]) == ["cyan"]


def test_loras_are_merged_and_their_colours_told(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = factors(tiny_checkpoint, choose=is_spatial)
    lora = write_lora(tmp_path / "cyan.safetensors", tensors)
    given = ["--pretrained_path", str(tiny_checkpoint), "--lora", f"{lora}:0.5", "--before", "none"]
    given += ["--split", "cyan_held_out", "--count", "1", "--steps", "1", "--size", "16", "--json"]
    given += ["--video_length", "1", "--compilation_cache", "none"]
    assert tiny_eval.main(given) == 0
    out, err = capsys.readouterr()
    report = json.loads(out.splitlines()[-1])
    assert report["loras"] == [f"{lora}:0.5"] and "LoRA" in err and "0.5" in err
    assert report["words"]["colour"].keys() == {"cyan"}
