"""Flags about data that make no sense are refused before anything is opened."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from hotshot_jax.cli.train import data as run_data
from hotshot_jax.cli.train.checks import check_effects, check_settings
from hotshot_jax.cli.train.data import open_run_data
from hotshot_jax.cli.train.output import check_output_dir
from hotshot_jax.cli.train.resume import changed_settings
from hotshot_jax.cli.train.settings import TrainSettings, parse_train_arguments
from hotshot_jax.errors import UsageError
from tests.data.clips import write_data


def parsed(*flags: str) -> tuple[TrainSettings, frozenset[str]]:
    return parse_train_arguments(flags, "train.py")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--data_dir is missing"),
        (["--data_dir", "d", "--data_dir", "e?weight=0"], "weight is 0; expected"),
        (["--data_dir", "d", "--data_dir", "e?weight=nan"], "weight is nan"),
        (["--data_dir", "d", "--data_dir", "e?weight=-2"], "weight is -2"),
        (["--data_dir", "d?repeats=0"], "repeats is 0"),
        (["--data_dir", "d?repeats=2", "--data_dir", "e?weight=1"], "repeats or weights to all"),
        (["--data_dir", "d?fps=none"], "fps is none"),
        (["--validation_data", "v?repeats=2"], "--validation_data v?repeats=2"),
        (["--frame_stride", "0"], "--frame_stride is 0"),
        (["--frame_stride", "2", "--fps", "8"], "--frame_stride and --fps"),
        (["--fps", "nan"], "--fps is nan"),
        (["--fps", "-8"], "--fps is -8"),
        (["--keep_tags", "-1", "--shuffle_tags"], "`keep_tags` is -1"),
        (["--keep_tags", "2"], "--keep_tags has no effect without --shuffle_tags"),
        (["--tag_dropout", "1.5"], "`tag_dropout` is 1.5"),
        (["--tag_dropout", "nan"], "`tag_dropout` is nan"),
        (["--trigger_words", " "], "`trigger_words` is ' '"),
        (["--caption_prefix", "\t"], "`caption_prefix` is"),
        (["--caption_suffix", "a\0b"], "`caption_suffix` is"),
        (["--cache_dir", "c", "--shuffle_tags"], "--shuffle_tags: texts are cached"),
        (["--cache_dir", "c", "--tag_dropout", "0.1"], "--tag_dropout: texts are cached"),
        (["--cache_dir", "c", "--mirror"], "--mirror: latents are cached"),
        (["--cache_dir", "c", "--random_crop"], "--random_crop: latents are cached"),
        (["--data_dir", "gs://bucket/clips"], "gs://bucket/clips"),
        (["--data_dir", "d", "--data_dir", "s3://bucket/clips?repeats=2"], "s3://bucket/clips"),
    ],
)  # fmt: skip
def test_nonsense_is_refused(flags: Sequence[str], message: str) -> None:
    given = flags if "--data_dir" in flags or not flags else ["--data_dir", "d", *flags]
    with pytest.raises(UsageError) as raised:
        settings, names = parsed(*given)
        check_settings(settings)
        check_effects(names, settings)
    assert message in str(raised.value)


def test_one_data_set_is_kept_as_ever_and_several_in_their_order(tmp_path: Path) -> None:
    assert parsed("--data_dir", "a")[0].data_dir == "a"
    several = parsed("--data_dir", "a?repeats=2", "--data_dir", "b")[0]
    assert several.data_dir == several.data_dirs == ("a?repeats=2", "b")
    (tmp_path / "c.yaml").write_text("data_dir: [a, b]\nmirror: true")
    read = parsed("--config", str(tmp_path / "c.yaml"))[0]
    assert (read.data_dirs, read.mirror) == (("a", "b"), True)
    (tmp_path / "c.yaml").write_text("data_dir: a")
    assert parsed("--config", str(tmp_path / "c.yaml"))[0].data_dir == "a"
    before = {"data_dir": "a", "snr_weights": "paper"}
    assert changed_settings(before, parsed("--data_dir", "a")[0]) == []
    assert changed_settings(before, several) == ["data_dir a -> ['a?repeats=2', 'b']"]
    renamed = parsed("--data_dir", "a", "--flip_aug", "--keep_tokens", "2", "--shuffle_caption")[0]
    assert (renamed.mirror, renamed.keep_tags, renamed.shuffle_tags) == (True, 2, True)


def test_every_data_set_is_guarded_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b"):
        write_data(tmp_path / name, [(16, 16)] * 2, frames=2)
    (tmp_path / "b/notes.docx").write_text("")
    places = ("--data_dir", f"{tmp_path}/a", "--data_dir", f"{tmp_path}/b?repeats=2")
    for flag in ("--output_dir", "--cache_dir"):
        settings, _ = parsed(*places, flag, f"{tmp_path}/b/run", "--video_length", "2")
        with pytest.raises(UsageError, match=f"lies in --data_dir {tmp_path}/b"):
            open_run_data(settings)
    data = open_run_data(parsed(*places, "--video_length", "2")[0])
    assert data.training.total == 4 and data.mix is not None
    assert [part.repeats for part in data.mix] == [1, 2]
    assert f"{tmp_path}/b: other files: 1 (notes.docx)" in caplog.text
    (tmp_path / "run/export/unet").mkdir(parents=True)
    place = f"{tmp_path}/run/export/unet?repeats=2"
    with pytest.raises(UsageError, match="export is what --data_dir reads"):
        check_output_dir(parsed("--data_dir", place, "--output_dir", f"{tmp_path}/run")[0])


def test_each_data_set_is_compared_with_what_other_hosts_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[dict[str, str]] = []
    monkeypatch.setattr(run_data, "compare", lambda seen, *words: compared.append(seen))
    for name, sizes in (("a", [(16, 16)] * 8), ("b", [(16, 16)] * 4), ("c", [(16, 24)] * 4)):
        write_data(tmp_path / name, sizes, frames=4)
    a, b, c = (str(tmp_path / name) for name in "abc")

    def seen(*flags: str) -> dict[str, str]:
        settings, _ = parsed("--output_dir", str(tmp_path / "out"), "--video_length", "4", *flags)
        run_data.check_same_data(settings, open_run_data(settings))
        return compared[-1]

    both = seen("--data_dir", a, "--data_dir", b, "--validation_data", c)
    assert list(both) == [f"`data_dir` {a}", f"`data_dir` {b}", f"`validation_data` {c}"]
    alone = seen("--data_dir", b, "--validation_split", "0.5")
    assert list(alone) == [f"`data_dir` {b}", "what `validation_split` 0.5 holds out"]
    assert both[f"`data_dir` {b}"] == seen("--data_dir", b)[f"`data_dir` {b}"]
    # As many clips of another size.
    others = both[f"`validation_data` {c}"]
    assert others.startswith("4 clips (") and others != both[f"`data_dir` {b}"]
