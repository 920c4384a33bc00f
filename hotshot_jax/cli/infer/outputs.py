"""Where the results of a run go."""

import dataclasses
import re
from pathlib import Path

from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.errors import UsageError
from hotshot_jax.files.plain_file import MOST_TEXT_BYTES, read_text
from hotshot_jax.media.formats.output_form import TIMED_FORMS, check_duration, output_form
from hotshot_jax.media.write import check_output

_DEFAULT_FOLDER = Path("outputs")
_SLUG_LENGTH = 60
_MOST_VIDEOS = 1000


@dataclasses.dataclass(frozen=True)
class Job:
    """One prompt and the files that its videos go to.

    Attributes:
        prompt: the prompt.
        outputs: a path for each video.
    """

    prompt: str
    outputs: tuple[str, ...]


def plan_jobs(settings: InferSettings) -> list[Job]:
    """Pairs prompts with output paths, and checks that each can be written.

    With several prompts or videos, `walk.gif` becomes `walk-001.gif`, `walk-002.gif` and so on.

    Raises:
        UsageError: the prompts' file is missing or empty, or an output cannot be written.
        HotshotError: mp4 without ffmpeg.
    """
    prompts = read_prompts(settings)
    if not 1 <= settings.num_videos <= _MOST_VIDEOS:
        raise UsageError(f"--num_videos is {settings.num_videos}; expected 1 to {_MOST_VIDEOS}.")
    total = len(prompts) * settings.num_videos
    base = settings.output if settings.output is not None else _default_output(settings, prompts)
    if settings.least_frames > 1 or output_form(base) in TIMED_FORMS:
        check_duration(settings.video_duration, settings.video_length)
    paths = [base] if total == 1 else [numbered(base, n, total) for n in range(1, total + 1)]
    for path in paths:
        check_output(path, settings.least_frames, settings.overwrite)
    each = settings.num_videos
    return [
        Job(prompt, tuple(paths[index * each : (index + 1) * each]))
        for index, prompt in enumerate(prompts)
    ]


def read_prompts(settings: InferSettings) -> list[str]:
    """The prompts of a run.

    Raises:
        UsageError: the file is missing, not text, or holds no prompt.
    """
    if settings.prompts_file is None:
        return [settings.prompt]
    try:
        lines = read_text(settings.prompts_file, MOST_TEXT_BYTES).splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"--prompts_file {settings.prompts_file} is not UTF-8 text.") from error
    except OSError as error:
        raise UsageError(
            f"--prompts_file {settings.prompts_file}: {error.strerror or error}."
        ) from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise UsageError(
            f"--prompts_file {settings.prompts_file} holds no prompt; expected one a line."
        )
    return prompts


def _default_output(settings: InferSettings, prompts: list[str]) -> str:
    keys = [text for _, text in sorted(settings.prompt_at)]
    texts = [*filter(None, prompts), *keys, ""]
    text = Path(settings.prompts_file).stem if settings.prompts_file else texts[0]
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_SLUG_LENGTH].strip("-")
    ending = ".gif" if settings.least_frames > 1 else ".png"
    name = f"{slug or 'untitled'}-{settings.seed}"
    path, copy = _DEFAULT_FOLDER / f"{name}{ending}", 2
    while path.exists() and not settings.overwrite:
        path, copy = _DEFAULT_FOLDER / f"{name}-{copy}{ending}", copy + 1
    return str(path)


def numbered(base: str, number: int, total: int) -> str:
    """The path of one of several outputs: `walk.gif` becomes `walk-001.gif`."""
    width = max(3, len(str(total)))
    path = Path(base)
    numbered = path.with_name(f"{path.stem}-{number:0{width}}{path.suffix}")
    return f"{numbered}/" if base.endswith("/") else str(numbered)
