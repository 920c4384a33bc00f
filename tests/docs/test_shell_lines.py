"""Shell lines of README.md and the pages: the program takes them all, and the cheap ones run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.toy.from_scratch import command as from_scratch
from hotshot_jax.cli.convert import command as convert
from hotshot_jax.cli.data import command as data
from hotshot_jax.cli.infer.command import given_flags
from hotshot_jax.cli.measure import command as measure
from hotshot_jax.cli.serve.command import given_settings
from hotshot_jax.cli.train.settings import parse_train_arguments
from hotshot_jax.errors import UsageError
from tests.docs.shell_lines import LINES, NOT_RUN, PAGES, ROOT, Line, shell_lines

RUN = [page for page in PAGES if any(line.reason is None for line in shell_lines(page))]


def words_of(text: str) -> list[str]:
    """A command's words, without the variables that stand before it."""
    words = shlex.split(text)
    while words and re.match(r"\w+=", words[0]):
        words = words[1:]
    return words


def source_of(module: str) -> str:
    """The code of a benchmark and of the other benchmarks' modules that it takes flags from."""
    place = ROOT.joinpath(*module.split("."))
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    own = file.read_text()
    return own + "".join(
        source_of(name) for name in set(re.findall(r"^from (benchmarks\.[\w.]+) import", own, re.M))
    )


def parse(words: Sequence[str]) -> bool:
    """Whether a parser of ours has read the command; it raises `UsageError` for a wrong one."""
    name, given = words[0], list(words[1:])
    if name == "srun":
        return parse(given)
    if name == "python" and given[0] == "-m":
        name, given = given[1], given[2:]
    elif name == "python":
        name, given = given[0], given[1:]
    if name in ("infer.py", "hotshot-jax", "hotshot_jax"):
        given_flags(given)
    elif name in ("train.py", "hotshot-jax-train"):
        parse_train_arguments(given, "train.py")
    elif name in ("convert", "hotshot-jax-convert"):
        convert._parser().parse_args(given)
    elif name in ("hotshot-jax-measure", "hotshot_jax.measure"):
        measure._parser().parse_args(given)
    elif name == "hotshot_jax.data.build":
        data._build_parser().parse_args(given)
    elif name == "hotshot_jax.data.inspect":
        data._inspect_parser().parse_args(given)
    elif name == "hotshot-jax-serve":
        given_settings(given, name)
    elif name == "benchmarks.toy.from_scratch":
        from_scratch.parse(given[0], given[1:])
    elif name.startswith("benchmarks."):
        source = source_of(name)
        for flag in re.findall(r"(?<!\S)(--[a-z][\w-]*)", " ".join(given)):
            # Some name their flags in a table or as fields of a dataclass.
            spelt = rf'"(--)?{flag[2:]}"|^    {flag[2:]}: '
            assert re.search(spelt, source, re.MULTILINE), f"python -m {name} {flag}"
    else:
        return False
    return True


@pytest.mark.parametrize(
    "page", [page for page in PAGES if shell_lines(page)], ids=lambda page: page.stem
)
def test_every_line_is_taken_by_its_parser(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for line in shell_lines(page):
        # Of other programs, only that they are known to this test.
        assert parse(words_of(line.text)) or line.reason is not None, line.text


def test_a_wrong_line_is_seen() -> None:
    with pytest.raises(UsageError, match="--promt"):
        parse(words_of('python infer.py --promt "a red circle"'))
    with pytest.raises(UsageError, match="mesh_of_nobody"):
        parse(words_of("JAX_PLATFORMS=cpu python train.py --mesh_of_nobody 2"))
    assert not parse(["someprogram", "--flag"])


def test_every_reason_is_needed_and_most_pages_run_something() -> None:
    for pattern in NOT_RUN:
        assert any(re.search(pattern, line.text) for line in LINES), pattern
    assert len(RUN) >= 8
    assert sum(line.reason is None for line in LINES) >= 25


def test_lines_are_found_in_blocks_and_indented(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```bash\npython infer.py --steps 2 \\\n  --seed 3   # so\n# no\npip install . && b\n```\n"
        "```text\npython not.py\n    python not.py\n```\n\n    python -m a --b\n    export C=1\n"
    )
    assert [line.text for line in shell_lines(page)] == [
        "python infer.py --steps 2 --seed 3",
        "pip install .",
        "b",
        "python -m a --b",
        "export C=1",
    ]


def shortened(line: Line) -> str:
    """With less work, where the line does not say how much: it is run to see that it runs."""
    if re.search(r"infer\.py", line.text) and "--steps" not in line.text:
        steps = 30 if "--cache_interval 0,1" in line.text else 2
        return f"{line.text} --steps {steps} --overwrite"
    if re.search(r"train\.py", line.text):
        few = "--data_dir 'shapes:cyan?length=4&size=128&frames=1'"
        return f"{line.text} {few} --max_train_steps 1 --train_batch_size 2 --lr_warmup_steps 0"
    # Of the VAE in full size, a sixteenth of the pixels.
    return line.text.replace("--full 256", "--full 64")


def lay_out(folder: Path) -> None:
    """A folder as the reader's: the checkout, and the clips and pictures that pages name."""
    for name in (
        "infer.py",
        "train.py",
        "configs",
        "benchmarks",
        "convert",
        "tests",
        "hotshot_jax",
    ):
        (folder / name).symlink_to(ROOT / name)
    images = ROOT / "docs" / "images"
    for name in ("hello", "walk", "fox", "plain", "loop", "clip"):
        shutil.copy(images / "loop.gif", folder / f"{name}.gif")
    with Image.open(images / "loop.gif") as clip:
        clip.convert("RGB").save(folder / "cat.png")
        for name in ("day", "night", "middle", "fox", "pose", "red-circle"):
            clip.convert("RGB").save(folder / f"{name}.png")
        (folder / "frames").mkdir()
        for index in range(clip.n_frames):
            clip.seek(index)
            clip.convert("RGB").save(folder / "frames" / f"{index:03}.png")
    mask = Image.new("L", (128, 128), 0)
    mask.paste(255, (0, 0, 128, 64))
    mask.save(folder / "sky.png")
    (folder / "long.txt").write_text("a yellow star spinning on a teal background, " * 12)
    for sample, count in (("clips/star", 8), ("data/cyan/cyan-000", 1)):
        (folder / sample).mkdir(parents=True)
        (folder / sample / "prompt.txt").write_text("a yellow star spinning on a teal background")
        for index in range(count):
            shutil.copy(folder / "frames" / f"{index:03}.png", folder / sample / f"{index}.png")
    (folder / "videos").mkdir()
    shutil.copy(images / "loop.gif", folder / "videos" / "star.gif")
    (folder / "videos" / "star.txt").write_text("a yellow star spinning on a teal background")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.notebook
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_the_lines_of_a_page_run(page: Path, tmp_path: Path, cache: Path) -> None:
    lay_out(tmp_path)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        # What one page compiled, another finds.
        "XDG_CACHE_HOME": str(cache),
        "XDG_CONFIG_HOME": str(cache / "config"),
        "HF_HUB_OFFLINE": "1",
    }
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    for line in shell_lines(page):
        if line.reason is None:
            done = subprocess.run(
                ["bash", "-c", shortened(line)],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert done.returncode == 0, f"{line.text}\n{done.stderr[-3000:]}"
