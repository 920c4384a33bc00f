"""Putting a finished model on the Hugging Face Hub, with the Hub client's own login.

Large files go to the Hub's storage first, where nobody sees them; then one commit makes all of the
model and its card visible together. An upload that was cut off leaves the repository as it was, and
the next one sends what is not in the storage yet.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
)

from hotshot_jax.convert.hub import parse_hub_id, repository_of
from hotshot_jax.errors import HotshotError, UsageError, causes
from hotshot_jax.writing.places import LIST

logger = logging.getLogger(__name__)

CARD = "README.md"
_FAILURES = (HTTPError, HFValidationError, OSError, RuntimeError, ValueError)
# What a repository has that nobody put there.
_OF_THE_HUB = frozenset({".gitattributes", CARD})
_WEIGHTS = (".safetensors", ".safetensors.index.json")


def check_push(repository: str, *, private: bool = False) -> None:
    """Check that a model can be put in a repository, and make the repository if there is none.

    Args:
        repository: ``org/name``.
        private: the repository has to be private.

    Raises:
        UsageError: it is no id of a repository, or one that is public and was to be private.
        HotshotError: there is no login, it may not write there, the Hub cannot be reached, or the
            repository holds something else.
    """
    check_name(repository)
    if constants.HF_HUB_OFFLINE:
        raise UsageError(
            f"`push_to_hub` {repository} needs the Hub, and HF_HUB_OFFLINE is set; unset it, or "
            "leave `push_to_hub` out."
        )
    api = HfApi()
    try:
        api.whoami()
        api.create_repo(repository, private=private or None, exist_ok=True)
        info = api.model_info(repository)
        # Of all that the Hub answers before an upload, this alone asks for the right to write.
        api.preupload_lfs_files(repository, [CommitOperationAdd(CARD, b"checked\n")])
    except _FAILURES as error:
        raise _explain(repository, error) from None
    if private and info.private is False:
        raise UsageError(
            f"`push_to_hub` {repository} is public, and `hub_private` was given; make it private "
            "in its settings, or name another."
        )
    names = {file.rfilename for file in info.siblings or ()}
    if names - _OF_THE_HUB and LIST not in names:
        raise HotshotError(
            f"`push_to_hub` {repository} holds files that hotshot-jax did not put there "
            f"({min(names - _OF_THE_HUB)}), and would be replaced; name another repository."
        )


def check_name(repository: str) -> None:
    """Check the form of a repository's name.

    Raises:
        UsageError: it is not ``org/name``.
    """
    try:
        revision = parse_hub_id(repository).revision
    except UsageError:
        revision = "wrong"
    if revision is not None:
        raise UsageError(
            f"`push_to_hub` is {repository!r}; expected the id of a repository of the Hub, org/name"
        )


def push(model: Path, repository: str, card: Mapping[str, bytes]) -> str:
    """Put a model and its card in a repository that `check_push` accepted.

    Args:
        model: its folder; or a file, which keeps its name.
        repository: ``org/name``.
        card: files of the card by name, `README.md` among them.

    Returns:
        The address of the repository.

    Raises:
        HotshotError: it was not put there; the repository is as it was before.
    """
    api = HfApi()
    files = {model.name: model}
    if model.is_dir():
        paths = (Path(at, name) for at, _, names in os.walk(model) for name in names)
        files = {path.relative_to(model).as_posix(): path for path in paths}
    # The card last, in the order of the commit too.
    added = [CommitOperationAdd(name, str(path)) for name, path in sorted(files.items())]
    added += [CommitOperationAdd(name, card[name]) for name in sorted(card, key=_card_last)]
    if LIST not in files:
        added.insert(0, CommitOperationAdd(LIST, b'{"made_by": "hotshot-jax"}\n'))
    try:
        old = {file.rfilename for file in api.model_info(repository).siblings or ()}
        api.create_commit(
            repository,
            [*added, *_stale(old, {each.path_in_repo for each in added})],
            commit_message="Model and card from hotshot-jax",
        )
    except _FAILURES as error:
        raise _explain(repository, error) from None
    return f"{constants.ENDPOINT}/{repository}"


def licence_of(source: str) -> str | None:
    """The licence in the card of a model, as the Hub spells it; None where it is not known.

    Args:
        source: ``org/name[@revision]``; a path has none.
    """
    if constants.HF_HUB_OFFLINE:
        return None
    try:
        hub_id = repository_of(source)
        if hub_id is None:
            return None
        data = HfApi().model_info(hub_id.repository, revision=hub_id.revision).card_data
    except (*_FAILURES, UsageError):
        return None
    licence = None if data is None else data.get("license")
    return licence if isinstance(licence, str) else None


def _card_last(name: str) -> tuple[bool, str]:
    return name == CARD, name


def _stale(old: set[str], new: set[str]) -> list[CommitOperationDelete]:
    """Weights of an earlier push, such as shards of another number, that nothing replaces."""
    gone = {name for name in old - new if LIST in old and name.endswith(_WEIGHTS)}
    return [CommitOperationDelete(name, is_folder=False) for name in sorted(gone)]


def _explain(repository: str, error: BaseException) -> HotshotError:
    """What the Hub's answer means; nothing of it is quoted, since it may repeat what was sent."""
    what = f"`push_to_hub` {repository}"
    # Of a file that was refused, the client says no more than its name.
    answers = (each for each in causes(error) if isinstance(each, HfHubHTTPError))
    error = next(answers, error) if isinstance(error, RuntimeError) else error
    if isinstance(error, LocalTokenNotFoundError):
        return HotshotError(f"{what}: there is no login; 'hf auth login', or set HF_TOKEN.")
    if isinstance(error, HFValidationError):
        return UsageError(f"{what} is no valid id; expected org/name.")
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status == 401 and not isinstance(error, RepositoryNotFoundError):
        return HotshotError(
            f"{what}: the Hub does not accept the login; 'hf auth login' again, or set HF_TOKEN."
        )
    if status == 403:
        return HotshotError(
            f"{what}: the login may not write there; use a token with the right to write, and a "
            "user or organisation that you belong to."
        )
    if isinstance(error, RepositoryNotFoundError):
        return HotshotError(
            f"{what}: there is no such model that the login can see. If it is a data set or a "
            "Space, name another; if it was removed, run again."
        )
    if isinstance(error, BadRequestError):
        return HotshotError(f"{what}: the Hub refused what was sent (status {status}).")
    if status is not None:
        return HotshotError(f"{what}: the Hub answered with status {status}; try again later.")
    if isinstance(error, FileNotFoundError):
        return HotshotError(f"{what}: {error.filename} is gone.")
    return HotshotError(
        f"{what}: the Hub cannot be reached ({type(error).__name__}); check the network and run "
        "again."
    )
