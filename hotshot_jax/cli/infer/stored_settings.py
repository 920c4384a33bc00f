"""Settings that a run kept in its result, to be run again.

A picture may come from anywhere. It says what to draw; what is read, fetched or run is for the
person to say, on the command line.

What a run reads is told in its result without folders and secrets, and so that it is known again: a
file or folder by its name, a URL without user, password, query and fragment, a model of the Hub by
its id. Beside them stand digests, by which the right one is known when it comes again. Weights are
large, so that a digest covers samples of them: see `digest`.
"""

import dataclasses
import hashlib
import json
import logging
import os
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from hotshot_jax.builtin import NAME as BUILTIN_NAME
from hotshot_jax.cli.flags import flags_of
from hotshot_jax.conditioning.text.textual_inversion import parse_embedding
from hotshot_jax.convert.hub import parse_hub_id
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.files.parsed import ParseError, parse_json
from hotshot_jax.files.plain_file import MOST_TEXT_BYTES, open_plain, read_text
from hotshot_jax.lora import parse_lora
from hotshot_jax.media.metadata import SETTINGS_KEY, read_metadata
from hotshot_jax.media.reading.fetch import is_url
from hotshot_jax.media.write import output_target
from hotshot_jax.writing.places import check_not_read, is_inside

SOURCES = "sources"
"""Key of the digests in a result's metadata."""

# Of a model's folder single files are read, of a clip's folder all.
_WHOLE_FOLDERS = ("--gif", "--video", "--mask")
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


def place(name: str, argument: str) -> tuple[str, str, str]:
    """Divides an argument into what stands before the path, id or URL, that, and the rest."""
    if name == "frame_at":
        before, colon, path = argument.partition(":")
        spaces = len(path) - len(path.lstrip())
        return before + colon + path[:spaces], path[spaces:], ""
    try:
        path = {"lora": parse_lora, "embedding": parse_embedding}[name](argument)[0]
    except (KeyError, UsageError):
        return "", argument, ""
    return "", path, argument.removeprefix(path)


def public_name(name: str, argument: str) -> str:
    """An argument as everybody may see it.

    Args:
        name: of the flag.
        argument: its value.
    """
    before, path, rest = place(name, argument)
    if is_url(path):
        return before + _without_secrets(path) + rest
    local = os.path.abspath(os.path.expanduser(path))
    if not os.path.exists(local):
        return argument
    return before + (os.path.basename(local) or local) + rest


def public_settings(settings: type, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings as everybody may see them."""
    sources = source_flags(settings)
    return {
        name: _public(name, value) if name in sources else value for name, value in stored.items()
    }


def result_metadata(
    settings: Any, prompt: str, read: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """What is stored in a result beside what its maker tells.

    Args:
        settings: of the run.
        prompt: of the result.
        read: digests of what the run read.
    """
    kept = dataclasses.replace(settings, prompt=prompt, prompts_file=None).stored()
    public = public_settings(type(settings), kept)
    return {
        STORED: json.dumps(public),
        **({SOURCES: json.dumps(read)} if read else {}),
        "model": public.get("pretrained_path", BUILTIN_NAME),
    }


def digests(settings: type, stored: Mapping[str, Any], defaults: Any) -> dict[str, list[str]]:
    """Digests of what a run reads, by flag, in the order of the values.

    What is read by default has none, and neither has what cannot be told cheaply, such as a URL.
    """
    found = {
        name: [digest(place(name, argument)[1]) for argument in values_of(stored[name])]
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
        (f"--{name}", os.path.expanduser(place(name, argument)[1]))
        for name in source_flags(type(settings))
        for argument in values_of(getattr(settings, name) or ())
    ]
    if config is not None:
        sources.append(("--config", config))
    for flag, paths in outputs.items():
        for path in map(output_target, paths):
            for reader, source in sources:
                if reader in _WHOLE_FOLDERS or is_inside(source, path):
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


logger = logging.getLogger(__name__)

STORED = SETTINGS_KEY
"""Key of the settings in a result's metadata."""

_MOST_SHOWN = 2000


@dataclasses.dataclass(frozen=True)
class StoredSettings:
    """What a result holds.

    Attributes:
        values: the settings, without what was about that run alone; anything, if damaged.
        digests: of what the run read, by flag.
    """

    values: Any
    digests: Mapping[str, Any]


def stored_settings(settings: type, path: str) -> StoredSettings:
    """Reads the settings that a result holds.

    Args:
        settings: the dataclass that they are of.
        path: the result, as given after `--config`.

    Raises:
        UsageError: it is no result of a run, or damaged.
    """
    try:
        metadata = read_metadata(path)
        stored = parse_json(metadata[STORED])
        digests = parse_json(metadata.get(SOURCES, "{}"))
    except KeyError as error:
        raise UsageError(f"--config {path}: the stored settings are damaged.") from error
    except ParseError as error:
        raise UsageError(
            f"--config {path}: the stored settings are damaged: their text {error}."
        ) from error
    except HotshotError as error:
        raise UsageError(
            f"--config {path}: expected a .yaml or .json file, or a result of an earlier run that "
            f"holds its settings.\n{error}"
        ) from error
    if not isinstance(digests, dict):
        digests = {}
    if not isinstance(stored, dict):
        return StoredSettings(stored, digests)
    # A picture from elsewhere has no say in what is written where, or what may be fetched.
    flags = flags_of(settings)
    values = {
        name: value
        for name, value in stored.items()
        if name not in flags or not flags[name].about_this_run
    }
    return StoredSettings(values, digests)


def check_repeated(
    defaults: Any, path: str, values: Mapping[str, Any], given: Collection[str]
) -> None:
    """Checks that the command line names again whatever the settings of a picture would read.

    Args:
        defaults: the dataclass of settings with its defaults, which may be read unasked.
        path: of the picture.
        values: its settings, checked.
        given: the flags on the command line.

    Raises:
        UsageError: a source is not repeated; the message has the flags to copy.
    """
    missing = [
        argument_text(name, argument)
        for name in source_flags(type(defaults))
        if name in values and name not in given and values[name] != getattr(defaults, name)
        for argument in values_of(values[name])
    ]
    if missing:
        raise UsageError(
            f"--config {path} is a picture, and what to read is for you to say, not for it. Repeat "
            "this, files with their paths, or take it as it is with --trust_config:\n"
            f"{_shortened(' '.join(missing))}"
        )


def tell_differences(
    settings: type,
    path: str,
    stored: StoredSettings,
    given: Mapping[str, Any],
) -> None:
    """Warns where a picture was made with other files than those that are now read.

    Args:
        settings: the dataclass of settings.
        path: of the picture.
        stored: what it holds, checked.
        given: what is read now, by flag.
    """
    for name in source_flags(settings):
        if name not in stored.values or name not in given:
            continue
        now = values_of(given[name])
        known = stored.digests.get(name)
        for index, argument in enumerate(values_of(stored.values[name])):
            same = [each for each in now if public_name(name, each) == public_name(name, argument)]
            if not same:
                logger.warning(
                    "--config %s was made with %s, which is not given.",
                    path,
                    _shortened(argument_text(name, argument)),
                )
            elif isinstance(known, list) and index < len(known) and isinstance(known[index], str):
                found = digest(place(name, same[0])[1])
                if found and known[index] and found != known[index]:
                    logger.warning(
                        "%s is not what --config %s was made with: its content is another.",
                        _shortened(argument_text(name, same[0])),
                        path,
                    )


def argument_text(name: str, value: str) -> str:
    """A flag and its value for a shell; nothing in it acts on a terminal."""
    quoted = shlex.quote(value)
    if not value.isprintable():
        escaped = "".join(
            each if each.isprintable() and each not in "'\\" else _escaped(each) for each in value
        )
        quoted = f"$'{escaped}'"
    return f"--{name}={quoted}" if value.startswith("-") else f"--{name} {quoted}"


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]} ..."
