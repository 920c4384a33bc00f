"""From what the user names as a model to a folder on this machine.

A name is a local path or the id of a repository on the Hugging Face Hub, ``org/name`` or
``org/name@revision``. Repositories hold the same weights in several formats, so only the files
that are needed are downloaded, into the Hub client's own cache.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hotshot_jax.convert.formats.diffusers_folder import (
    MODEL_INDEX,
    TOKENIZERS,
    WEIGHT_COMPONENTS,
    refuse_other_models,
)
from hotshot_jax.convert.tensors.weight_files import choose_weight_files, find_weight_files
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.writing.staging import check_disk_space

logger = logging.getLogger(__name__)

Select = Callable[[Sequence[str]], Sequence[str]]
"""Chooses, from all file names of a repository, those to download."""

_HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
_FILE_ENDINGS = (".safetensors", ".ckpt", ".pt", ".bin", ".json", ".zip", ".gguf")

# What the Hub client raises for anything between a wrong name and a broken connection. The
# downloader for large files (hf_xet) reports its own failures as RuntimeError.
_FAILURES = (HTTPError, HFValidationError, OSError, RuntimeError)


@dataclass(frozen=True)
class HubId:
    """A repository of the Hub at a branch, tag or commit.

    Attributes:
        repository: ``org/name``.
        revision: branch, tag, commit or ``refs/pr/N``; None for the main branch.
    """

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"


def resolve(
    source: str | os.PathLike[str], *, variant: str | None = None, select: Select | None = None
) -> Path:
    """Find a model on this machine, downloading it from the Hub where needed.

    Args:
        source: a file or folder that exists, or ``org/name[@revision]``. A path that exists wins.
        variant: the variant of the weights to download (``fp16``), as in
            ``open_diffusers_folder``.
        select: chooses what to download; the default takes the parts of a Hotshot-XL checkpoint
            and looks at its small files first, so that another model is refused before gigabytes
            are fetched. With HF_HUB_OFFLINE=1, or without a network, the cache is used as it is.

    Returns:
        The path; for a repository, the folder of its snapshot in the cache.

    Raises:
        UsageError: a local path that does not exist, or something that is neither path nor id.
        HotshotError: the repository or revision does not exist or needs a login or an agreement;
            it is not in the cache and the Hub cannot be reached; the disk is full; another model.
    """
    if not os.fspath(source).strip():
        raise UsageError(
            "the model's name is empty; expected a path on this machine or a Hub id, org/name"
        )
    path = Path(os.path.expanduser(source))
    # Unlike the method of `Path`, it says no to names that are too long for the file system.
    if os.path.exists(path):
        return path
    hub_id = parse_hub_id(source)
    try:
        sizes = _list_files(hub_id)
    except _FAILURES as error:
        cached = _cached_snapshot(hub_id)
        if cached is None:
            raise _explain(hub_id, error) from None
        logger.info("the Hub was not asked for %s; using the copy in the cache", hub_id)
        return cached
    if select is not None:
        return _download(hub_id, list(select(list(sizes))), sizes)
    if MODEL_INDEX not in sizes:
        raise HotshotError(
            f"the Hub repository {hub_id} has no {MODEL_INDEX}; expected a checkpoint in the "
            "diffusers layout, as hotshotco/Hotshot-XL has"
        )
    files = checkpoint_files(list(sizes), variant)
    small = [name for name in files if not name.endswith(".safetensors")]
    refuse_other_models(_download(hub_id, small, sizes))
    return _download(hub_id, files, sizes)


def cached(source: str) -> Path | None:
    """A local path, or the folder of a repository's snapshot in the cache; None if not there.

    Raises:
        UsageError: it looks like a local path that does not exist.
    """
    path = Path(os.path.expanduser(source))
    return path if os.path.exists(path) else _cached_snapshot(parse_hub_id(source))


def parse_hub_id(source: str | os.PathLike[str]) -> HubId:
    """Read ``org/name[@revision]``, for a ``source`` that is no existing path.

    Raises:
        UsageError: it looks like a local path that does not exist.
    """
    text = os.fspath(source)
    match = _HUB_ID.fullmatch(text)
    is_local = (
        match is None
        or text.lower().endswith(_FILE_ENDINGS)
        # "models/hotshot" beside a folder "models" is a path with a slip in it.
        or (match["revision"] is None and os.path.isdir(Path(text).parent))
    )
    if match is None or is_local:
        raise UsageError(
            f"{text!r} does not exist; expected a path on this machine, or a repository of the "
            "Hugging Face Hub written org/name or org/name@revision"
        )
    return HubId(match["repo"], match["revision"])


def repository_of(source: str | os.PathLike[str]) -> HubId | None:
    """The repository that a model comes from, or None where it comes from this machine.

    Args:
        source: as in `resolve`, by which it was found.

    Raises:
        UsageError: it is neither a path that exists nor an id.
    """
    return None if os.path.exists(os.path.expanduser(source)) else parse_hub_id(source)


def checkpoint_files(names: Sequence[str], variant: str | None) -> list[str]:
    """The files of a repository that make up a checkpoint in the diffusers layout.

    Args:
        names: paths of all files of the repository.
        variant: the variant of the weights that is preferred.

    Returns:
        Configurations, tokenizers and one set of .safetensors weights per component.
    """
    chosen = [MODEL_INDEX]
    for name in names:
        folder, _, file = name.partition("/")
        if (folder in TOKENIZERS and file.endswith((".json", ".txt"))) or (
            (folder in WEIGHT_COMPONENTS and file == "config.json")
            or (folder == "scheduler" and file == "scheduler_config.json")
        ):
            chosen.append(name)
    for component in WEIGHT_COMPONENTS:
        prefix = f"{component}/"
        below = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        weights = choose_weight_files(find_weight_files(below), variant)
        if weights is not None:
            chosen += [f"{component}/{name}" for name in weights.names]
    return chosen


def _list_files(hub_id: HubId) -> dict[str, int]:
    info = HfApi().model_info(hub_id.repository, revision=hub_id.revision, files_metadata=True)
    return {file.rfilename: file.size or 0 for file in info.siblings or ()}


def _download(hub_id: HubId, names: list[str], sizes: dict[str, int]) -> Path:
    revision = hub_id.revision or constants.DEFAULT_REVISION
    absent = [
        name
        for name in names
        if not isinstance(try_to_load_from_cache(hub_id.repository, name, revision=revision), str)
    ]
    check_disk_space(constants.HF_HUB_CACHE, sum(sizes[name] for name in absent))
    try:
        return Path(snapshot_download(hub_id.repository, revision=revision, allow_patterns=names))
    except _FAILURES as error:
        raise _explain(hub_id, error) from None


def _cached_snapshot(hub_id: HubId) -> Path | None:
    try:
        # One file is asked for: whether the others are there is seen when the folder is opened,
        # where what is missing can be named.
        return Path(
            snapshot_download(
                hub_id.repository,
                revision=hub_id.revision,
                allow_patterns=[MODEL_INDEX],
                local_files_only=True,
            )
        )
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def _explain(hub_id: HubId, error: Exception) -> HotshotError:
    if isinstance(error, HFValidationError):
        return UsageError(f"'{hub_id}' is neither an existing path nor a valid Hub id: {error}")
    if constants.HF_HUB_OFFLINE:
        return HotshotError(
            f"{hub_id} is not in the cache ({constants.HF_HUB_CACHE}) and HF_HUB_OFFLINE is set; "
            "unset it to download the model, or pass a local folder"
        )
    if isinstance(error, GatedRepoError):
        return HotshotError(
            f"{hub_id} asks for an agreement: accept it on https://huggingface.co/"
            f"{hub_id.repository} and log in with 'hf auth login'"
        )
    if isinstance(error, RevisionNotFoundError):
        return HotshotError(f"{hub_id.repository} has no branch, tag or commit {hub_id.revision!r}")
    if isinstance(error, RepositoryNotFoundError):
        return HotshotError(
            f"the Hub has no repository {hub_id.repository!r}, nor is there a local path of this "
            "name; check the spelling, or log in with 'hf auth login' if it is private"
        )
    no_space = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    if no_space or "No space left" in str(error):
        return HotshotError(
            f"the disk is full: {hub_id} was not downloaded completely to "
            f"{constants.HF_HUB_CACHE}; free some space and run again, or set HF_HOME"
        )
    if isinstance(error, PermissionError):
        return HotshotError(
            f"the cache of the Hub client, {constants.HF_HUB_CACHE}, cannot be written; "
            "set HF_HOME to a folder of yours"
        )
    if isinstance(error, HfHubHTTPError):
        return HotshotError(
            f"the Hub answered with status {error.response.status_code} for {hub_id}; "
            "try again later, or pass a local folder"
        )
    return HotshotError(
        f"the Hub cannot be reached for {hub_id} ({type(error).__name__}); "
        "check the network and run again (a download goes on where it stopped)"
    )
