"""What a run reads, as its result tells of it: no folders, no secrets, enough to know it again.

A file or folder is told by its name, a URL without user, password, query and fragment, a model of
the Hub by its id. Beside them stand digests, by which the right one is known when it comes again.
Weights are large, so that a digest covers samples of them: see `digest`.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from hotshot_jax.cli.flags import flags_of
from hotshot_jax.conditioning.text.textual_inversion import parse_embedding
from hotshot_jax.convert.hub import parse_hub_id
from hotshot_jax.errors import UsageError
from hotshot_jax.files.limits import MOST_TEXT_BYTES
from hotshot_jax.files.plain_file import open_plain, read_text
from hotshot_jax.lora import parse_lora
from hotshot_jax.media.output import output_target
from hotshot_jax.media.reading.fetch import is_url
from hotshot_jax.writing.places import check_not_read, is_inside

SOURCES = "sources"
"""Key of the digests in a result's metadata."""

_PIECE = 1 << 16
_PIECES = 16
# Read in full: LoRAs, embeddings, clips.
_SMALL = 1 << 24
_MOST_FILES = 64


def source_flags(settings: type) -> list[str]:
    """The settings that name something to be read or fetched."""
    return [name for name, flag in flags_of(settings).items() if flag.source]


def values_of(value: Any) -> tuple[str, ...]:
    """The arguments of a flag, given once or repeatedly."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def place(name: str, argument: str) -> tuple[str, str]:
    """Divides an argument into the path, id or URL and what stands behind it, if anything."""
    try:
        path = {"lora": parse_lora, "embedding": parse_embedding}[name](argument)[0]
    except (KeyError, UsageError):
        return argument, ""
    return path, argument.removeprefix(path)


def public_name(name: str, argument: str) -> str:
    """An argument as everybody may see it.

    Args:
        name: of the flag.
        argument: its value.
    """
    path, rest = place(name, argument)
    if is_url(path):
        return _without_secrets(path) + rest
    local = os.path.abspath(os.path.expanduser(path))
    if not os.path.exists(local):
        return argument
    return (os.path.basename(local) or local) + rest


def public_settings(settings: type, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings as everybody may see them."""
    sources = source_flags(settings)
    return {
        name: _public(name, value) if name in sources else value for name, value in stored.items()
    }


def digests(settings: type, stored: Mapping[str, Any], defaults: Any) -> dict[str, list[str]]:
    """Digests of what a run reads, by flag, in the order of the values.

    What is read by default has none, and neither has what cannot be told cheaply, such as a URL.
    """
    found = {
        name: [digest(place(name, argument)[0]) for argument in values_of(stored[name])]
        for name in source_flags(settings)
        if name in stored and stored[name] != getattr(defaults, name)
    }
    return {name: values for name, values in found.items() if any(values)}


def digest(path: str) -> str:
    """What tells a file, folder or Hub model from others of its name; empty if nothing does.

    A file up to 16 MiB is read in full; of a larger one the size and sixteen pieces of 64 KiB from
    its beginning to its end, which differ wherever all weights do. A folder is its files' names and
    sizes, with the content of at most 64 of them. A model of the Hub is the commit in the cache.
    """
    if is_url(path):
        return ""
    local = Path(os.path.expanduser(path))
    try:
        if not os.path.exists(local):
            return _commit(path)
        found = hashlib.blake2b(digest_size=12)
        if local.is_dir():
            files = sorted(_files(local))
            for file in files:
                name = file.relative_to(local).as_posix()
                found.update(f"{name} {file.stat().st_size}\n".encode(errors="surrogateescape"))
            for file in files[:: max(1, -(-len(files) // _MOST_FILES))]:
                _add(found, file)
        else:
            _add(found, local)
    except (OSError, UsageError):
        return ""
    return found.hexdigest()


def check_not_replaced(
    settings: Any, outputs: Mapping[str, Sequence[str]], config: str | None = None
) -> None:
    """Checks that no output replaces what the run reads.

    Args:
        settings: of the run.
        outputs: paths that are written, by the flag that they come from.
        config: the file that `--config` names.

    Raises:
        UsageError: one does.
    """
    sources = [
        (f"--{name}", os.path.expanduser(place(name, argument)[0]))
        for name in source_flags(type(settings))
        for argument in values_of(getattr(settings, name) or ())
    ]
    if config is not None:
        sources.append(("--config", config))
    for flag, paths in outputs.items():
        for path in map(output_target, paths):
            for reader, source in sources:
                # Of a model's folder single files are read, of a clip's folder all.
                if reader == "--gif" or is_inside(source, path):
                    check_not_read(path, {reader: source}, flag)


def _public(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return public_name(name, value)
    return type(value)(public_name(name, each) for each in value)


def _without_secrets(url: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return url.partition("://")[0] + "://"
    return f"{parts.scheme}://{host}{port}{parts.path}"


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = (Path(parent, name) for name in names if not name.startswith("."))
        yield from (file for file in files if file.is_file())


def _add(found: Any, file: Path) -> None:
    size = file.stat().st_size
    found.update(f"{size}\n".encode())
    # A pipe has no size and would be waited for.
    if not file.is_file():
        return
    with open_plain(file) as stream:
        if size <= _SMALL:
            found.update(stream.read())
            return
        for index in range(_PIECES):
            stream.seek((size - _PIECE) * index // (_PIECES - 1))
            found.update(stream.read(_PIECE))


def _commit(source: str) -> str:
    hub_id = parse_hub_id(source)
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(
        repo_id=hub_id.repository, repo_type="model"
    )
    reference = folder / "refs" / (hub_id.revision or "main")
    return read_text(reference, MOST_TEXT_BYTES).strip()[:24] if reference.is_file() else ""
