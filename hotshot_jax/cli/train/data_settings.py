"""What a run of `train.py` reads, and how: its flags, and which of them make no sense."""

import dataclasses
from typing import TYPE_CHECKING

from hotshot_jax.cli.flags import flag
from hotshot_jax.errors import UsageError

# `--help` imports nothing heavy.
if TYPE_CHECKING:
    from hotshot_jax.data.mixing.caption_edits import CaptionEdits

_DATA = "data"


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """The settings of a run's data; each field is a flag of the same name."""

    data_dir: str | tuple[str, ...] | None = flag(
        None,
        "folder of samples (frames and prompt.txt each) or a TFDS data set; required. Several may "
        "be given, each as DIR?repeats=N or DIR?weight=W",
        str,
        _DATA,
        local=True,
        repeatable=True,
    )
    resolution: int = flag(512, "of the buckets: 512, 1024, or another multiple of 8", int, _DATA)
    aspect_ratio: str | None = flag(
        None,
        "one bucket for all samples, such as 1.75 or 1:1 (default: the nearest for each sample)",
        str,
        _DATA,
    )
    video_length: int = flag(8, "frames of a sample", int, _DATA)
    frame_stride: int = flag(1, "from each frame of a sample to the next that is taken", int, _DATA)
    fps: float | None = flag(
        None,
        "take frames at the stride nearest to so many a second; DIR?fps=F says what clips have "
        "that do not tell",
        float,
        _DATA,
    )
    mirror: bool = flag(False, "exchange left and right of every second sample", bool, _DATA)
    random_crop: bool = flag(
        False, "crop samples anywhere in place of the middle; the model is told where", bool, _DATA
    )
    trigger_words: str = flag(
        "", "words before each caption that does not hold them, and a comma", str, _DATA
    )
    caption_prefix: str = flag("", "words before every caption", str, _DATA)
    caption_suffix: str = flag("", "words behind every caption", str, _DATA)
    shuffle_tags: bool = flag(
        False, "put what commas separate in captions into another order each time", bool, _DATA
    )
    keep_tags: int = flag(0, "how many of the first tags stay as they are", int, _DATA)
    tag_dropout: float = flag(0.0, "fraction of the other tags that is left out", float, _DATA)
    on_bad_sample: str = flag(
        "error",
        "what to do about samples that cannot be read",
        str,
        _DATA,
        choices=("error", "skip"),
    )
    cache_dir: str | None = flag(
        None,
        "folder for latents and text embeddings, which are then computed once",
        str,
        _DATA,
        local=True,
    )
    text_dropout: float = flag(0.0, "fraction of samples trained without prompt", float, _DATA)

    def __post_init__(self) -> None:
        # One data set is written and compared as ever.
        if isinstance(self.data_dir, list | tuple):
            one = self.data_dir[0] if len(self.data_dir) == 1 else tuple(self.data_dir) or None
            object.__setattr__(self, "data_dir", one)

    @property
    def data_dirs(self) -> tuple[str, ...]:
        """The data sets as they were given, one or several."""
        given = self.data_dir
        return given if isinstance(given, tuple) else () if given is None else (given,)

    @property
    def captions(self) -> "CaptionEdits":
        """What becomes of captions."""
        from hotshot_jax.data.mixing.caption_edits import CaptionEdits

        return CaptionEdits(
            self.trigger_words,
            self.caption_prefix,
            self.caption_suffix,
            self.shuffle_tags,
            self.keep_tags,
            self.tag_dropout,
        )


def check_data_settings(settings: DataSettings) -> None:
    """Refuses what makes no sense, before anything is loaded.

    Raises:
        UsageError: names the flag.
    """
    from hotshot_jax.data.mixing.data_place import parse_places

    if not settings.data_dirs:
        raise UsageError("--data_dir is missing: the folder of samples to train on.")
    parse_places(settings.data_dirs)
    if settings.frame_stride < 1:
        raise UsageError(f"--frame_stride is {settings.frame_stride}; expected 1 or more.")
    if settings.fps is not None and not 0 < settings.fps < float("inf"):
        raise UsageError(f"--fps is {settings.fps}; expected a number above 0.")
    if settings.fps is not None and settings.frame_stride > 1:
        raise UsageError("--frame_stride and --fps both say which frames are taken; give one.")
    settings.captions.check()
    if settings.cache_dir is not None:
        _check_cached(settings)


def check_held_out(place: str) -> None:
    """Refuses shares of data that are seen once, all of it.

    Raises:
        UsageError: it has repeats or a weight.
    """
    from hotshot_jax.data.mixing.data_place import parse_place

    parsed = parse_place(place)
    if parsed.repeats is not None or parsed.weight is not None:
        raise UsageError(f"--validation_data {place}: repeats and weights are for --data_dir.")


def _check_cached(settings: DataSettings) -> None:
    each_time = {
        "shuffle_tags": "texts are cached, and this makes others each time",
        "tag_dropout": "texts are cached, and this makes others each time",
        "mirror": "latents are cached, and a mirrored clip has others",
        "random_crop": "latents are cached, and each crop has others",
    }
    for name, reason in each_time.items():
        if getattr(settings, name):
            raise UsageError(f"--cache_dir cannot be used with --{name}: {reason}. Leave one out.")
