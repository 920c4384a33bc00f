"""Every file is opened, and every JSON and YAML parsed, by `hotshot_jax.files`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "hotshot_jax"

# What reads or parses whatever it is given: names of functions and methods.
READERS = {
    "json.load", "json.loads", "yaml.load", "yaml.safe_load", "pickle.load", "pickle.loads",
    "open", "io.open", "os.open", "os.fdopen", "Image.open", "np.load", "np.fromfile", "np.memmap",
    ".open", ".read_text", ".read_bytes", "safe_open", "load_file", "zipfile.ZipFile",
    "gzip.open", "tarfile.open",
}  # fmt: skip

# Where such a call is right, and why.
ALLOWED = {
    "files/plain_file.py os.open": "it is the opener",
    "files/plain_file.py os.fdopen": "it is the opener",
    "files/parsed.py json.loads": "it is the reader",
    "files/parsed.py yaml.safe_load": "it is the reader",
    "media/reading/image_file.py Image.open": "of a stream from the opener",
    "data/clip_source.py Image.open": "of a stream from the opener",
    "data/records.py np.load": "mapped into memory, after check_plain",
    "convert/conversion.py .read_text": "the kernel's",
    "parallel/hosts.py json.loads": "what another process of this run says",
    "writing/staging.py os.open": "a folder, to be locked",
    "cli/train/resume.py json.loads": "the settings of this run, as JSON gives them back",
    "runtime/program_folder.py os.open": "owner and mode of what was opened are looked at",
    "runtime/program_folder.py open": "of what was opened",
    "runtime/stored_programs.py pickle.loads": "after its digest, with a secret of the user",
    "runtime/stored_programs.py .read_bytes": "this package's own source",
    "runtime/stored_programs.py .read_text": "the kernel's",
}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Attribute):
                whole = ast.unparse(function)
                yield whole if whole in READERS else f".{function.attr}", node
            elif isinstance(function, ast.Name):
                yield function.id, node


def writes(call: ast.Call) -> bool:
    """Whether a file is opened for writing."""
    text = ast.unparse(call)
    return any(mode in text for mode in ("'w", "'a", "'x", "O_CREAT", "O_WRONLY", "O_DIRECTORY"))


def found(path: Path) -> set[str]:
    name = path.relative_to(PACKAGE).as_posix()
    tree = ast.parse(path.read_text())
    return {f"{name} {call}" for call, node in calls(tree) if call in READERS and not writes(node)}


@pytest.fixture(scope="module")
def everything() -> set[str]:
    return set().union(*map(found, PACKAGE.rglob("*.py")))


def test_no_file_is_read_past_the_opener_and_the_parsers(everything: set[str]) -> None:
    assert sorted(everything - ALLOWED.keys()) == []


def test_no_exception_is_kept_that_is_not_used(everything: set[str]) -> None:
    writing = {"cli/run.py open", "cli/run.py os.open"}
    assert sorted(ALLOWED.keys() - everything - writing) == []
