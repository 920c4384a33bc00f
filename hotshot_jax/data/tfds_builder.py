"""Clips as a TensorFlow Datasets data set in array_record form, built without TensorFlow.

One builder takes any origin, on this machine or through Apache Beam. Frames are stored as the bytes
of pictures, so that nothing is decoded that a batch does not need. Records keep the order of the
origin: a data set trains like the folders that it was built from.
"""

import contextlib
import io
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer

from hotshot_jax.data.building.findings import Findings
from hotshot_jax.data.building.in_order import made_in_order
from hotshot_jax.data.clip_source import OnBadSample, Problem, refuse_or_skip
from hotshot_jax.data.left_out import LeftOut
from hotshot_jax.data.origins import ClipRecord, Origin
from hotshot_jax.data.records import write_table
from hotshot_jax.errors import HotshotError, UsageError, causes
from hotshot_jax.writing.places import check_made_here, list_files
from hotshot_jax.writing.staging import staged_folder

SPLIT = "train"

_log = logging.getLogger(__name__)

# Keys are numbers, since those of a data set that keeps its order are sorted by them.
_MOST_CLIPS_AN_ITEM = 1 << 20


@dataclass(frozen=True)
class BuildReport:
    """What a build made.

    Attributes:
        folder: where the data set lies.
        clips: how many it holds; None where it cannot be read from here.
        problems: why items were left out; through Beam they go to its log instead.
        warnings: what training would learn wrongly; not looked for through Beam.
    """

    folder: str
    clips: int | None
    problems: tuple[Problem, ...]
    warnings: tuple[LeftOut, ...] = ()


@dataclass(eq=False)
class ClipsConfig(tfds.core.BuilderConfig):
    """What to build from; `problems` and `findings` fill while building on this machine."""

    origin: Origin | None = None
    on_bad_sample: OnBadSample = "error"
    through_beam: bool = False
    problems: list[Problem] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)


class HotshotClips(tfds.core.GeneratorBasedBuilder):
    """Clips with prompts.

    Features: `frames` (encoded pictures, in order), `prompt`, `name`, `width`, `height` and `fps`
    (frames a second; 0 where it is not known).
    """

    VERSION = tfds.core.Version("1.0.0")
    builder_config: ClipsConfig
    # Nothing is downloaded, so that no checksums lie beside this file; to look for them TFDS would
    # import importlib_resources, which it does not declare.
    code_path = None

    def _info(self) -> Any:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Clips for training Hotshot-XL's temporal layers: key frames and a prompt.",
            features=tfds.features.FeaturesDict(
                {
                    # TFDS's image features decode every frame of a record; bytes are left alone.
                    "frames": tfds.features.Sequence(tfds.features.Text()),
                    "prompt": tfds.features.Text(),
                    "name": tfds.features.Text(),
                    "width": tfds.features.Scalar(np.int32),
                    "height": tfds.features.Scalar(np.int32),
                    "fps": tfds.features.Scalar(np.float32),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Any:
        config = self.builder_config
        assert config.origin is not None
        items = list(enumerate(config.origin.items()))
        if config.through_beam:
            import apache_beam as beam

            read = _BeamReader(config.origin, config.on_bad_sample)
            return beam.Create(items) | "read" >> beam.FlatMap(read)
        return _examples(config, items)


@dataclass(frozen=True)
class _BeamReader:
    origin: Origin
    on_bad_sample: OnBadSample

    def __call__(self, item: tuple[int, str]) -> list[tuple[int, dict[str, Any]]]:
        number, name = item
        try:
            return _keyed(number, self.origin.clips(name))
        except HotshotError as error:
            if self.on_bad_sample == "error":
                raise
            _log.warning("left out: %s", error)
            return []


def build_clips(
    origin: Origin,
    output: str | os.PathLike[str],
    on_bad_sample: OnBadSample = "error",
    beam_arguments: list[str] | None = None,
    overwrite: bool = False,
    count_tokens: Callable[[str], int] | None = None,
) -> BuildReport:
    """Build a data set, on all cores. A local one appears under its name only once it is whole.

    Args:
        origin: what from.
        output: a folder that is given the layout of TFDS. Through Beam it may be a URL of any file
            system that Beam writes to; copy the result to a disk to train on it.
        on_bad_sample: `error` reads everything, then tells all that is broken and builds nothing;
            `skip` leaves broken items out.
        beam_arguments: Beam's own flags, such as `--runner=DirectRunner`, to build through Beam.
        overwrite: replace what is at `output`, if it was built by this and nothing was added.
        count_tokens: of a prompt, to tell those that are too long; see `Findings`.

    Raises:
        HotshotError: items are broken, nothing is left to build from, or the disk is full.
        UsageError: the origin holds nothing, the output is there already, or is not to be replaced.
    """
    if "://" in os.fspath(output):
        config, folder = _build(
            origin, os.fspath(output), on_bad_sample, beam_arguments, count_tokens
        )
        return BuildReport(folder, None, tuple(config.problems), config.findings.found())
    target = Path(os.path.realpath(output))

    def may_replace(folder: Path) -> None:
        if folder.is_file():
            raise UsageError(f"`output` {output} is a file; name a folder.")
        if not overwrite:
            raise UsageError(
                f"`output` {output} is not empty; name another folder or give `overwrite`."
            )
        check_made_here(folder)

    with staged_folder(output, may_replace=may_replace) as staged:
        config, folder = _build(origin, str(staged), on_bad_sample, beam_arguments, count_tokens)
        clips = len(write_table(Path(folder)))
        list_files(staged)
    folder = str(target / os.path.relpath(folder, staged))
    return BuildReport(folder, clips, tuple(config.problems), config.findings.found())


def _build(
    origin: Origin,
    output: str,
    on_bad_sample: OnBadSample,
    beam_arguments: list[str] | None,
    count_tokens: Callable[[str], int] | None,
) -> tuple[ClipsConfig, str]:
    total = len(origin.items())
    config = ClipsConfig(
        name="default",
        origin=origin,
        on_bad_sample=on_bad_sample,
        through_beam=beam_arguments is not None,
        findings=Findings(count_tokens),
    )
    options: dict[str, Any] = {}
    if beam_arguments is not None:
        options["beam_options"] = _beam_options(beam_arguments)
    # TFDS wants a place for downloads, of which there are none.
    with _quiet(), _same_bytes(), tempfile.TemporaryDirectory() as downloads:
        builder = HotshotClips(data_dir=output, config=config, file_format="array_record")
        try:
            builder.download_and_prepare(
                download_dir=downloads, download_config=tfds.download.DownloadConfig(**options)
            )
        except Exception as error:
            # What the generator raises comes back wrapped, by TFDS and by Beam in their own ways.
            refuse_or_skip(config.problems, total, "The source", on_bad_sample)
            for cause in causes(error):
                if isinstance(cause, HotshotError):
                    raise cause from error
            raise
    return config, os.fspath(builder.data_dir)


def _examples(
    config: ClipsConfig, items: list[tuple[int, str]]
) -> Iterator[tuple[int, dict[str, Any]]]:
    assert config.origin is not None
    made = 0
    everything = made_in_order(config.origin, [name for _, name in items])
    for (number, name), clips in zip(items, everything, strict=True):
        if isinstance(clips, str):
            config.problems += [Problem(name, line) for line in clips.split("\n")]
            continue
        # After the first problem the rest is read only to tell what else is wrong.
        if config.problems and config.on_bad_sample == "error":
            continue
        made += len(clips)
        for clip in clips:
            config.findings.add(clip.name, clip.prompt, clip.remarks, clip.signature)
        yield from _keyed(number, clips)
    bad = len({problem.sample for problem in config.problems})
    refuse_or_skip(config.problems, bad + made, "The source", config.on_bad_sample)


def _keyed(number: int, clips: list[ClipRecord]) -> list[tuple[int, dict[str, Any]]]:
    return [
        (
            number * _MOST_CLIPS_AN_ITEM + place,
            {
                "frames": list(clip.pictures),
                "prompt": clip.prompt,
                "name": clip.name,
                "width": clip.width,
                "height": clip.height,
                "fps": clip.fps,
            },
        )
        for place, clip in enumerate(clips)
    ]


def _beam_options(arguments: list[str]) -> Any:
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise HotshotError(
            "Building through Beam needs Apache Beam: pip install apache-beam"
        ) from error
    return PipelineOptions(arguments)


class _OrderedSerializer(example_serializer.ExampleSerializer):
    """Writes the features of a record in one order, which protobuf draws by process."""

    def serialize_example(self, example: Any) -> bytes:
        serialized: bytes = self.get_tf_example(example).SerializeToString(deterministic=True)
        return serialized


@contextlib.contextmanager
def _same_bytes() -> Iterator[None]:
    """Lets equal clips become equal files: TFDS takes no serialiser of ours."""
    before = example_serializer.ExampleSerializer
    example_serializer.ExampleSerializer = _OrderedSerializer
    try:
        yield
    finally:
        example_serializer.ExampleSerializer = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep TFDS from printing and logging, with the staged folder's name in what it says.

    Its progress bars stay where someone can watch them.
    """
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
        tfds.enable_progress_bar()
