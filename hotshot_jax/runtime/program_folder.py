"""Compiled programs in a folder that its user alone can write, each bound to its key.

To load a compiled program is to run it. So none is taken from a folder or file that others can
write, and none under another's key: a file begins with a digest of key and program.
"""

import contextlib
import copy
import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
from pathlib import Path

from hotshot_jax.errors import HotshotError
from hotshot_jax.writing.staging import probe_writable, replace_anything, staged_file

logger = logging.getLogger(__name__)

_SUFFIX = ".program"
_DIGEST = hashlib.sha256
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
# What file systems take as a name, less the suffix.
_LONGEST_NAME = 200
_SECRET_BYTES = 32


class ProgramFolder:
    """Keeps programs by key. What cannot be read or written is compiled anew, with one warning.

    Args:
        path: the folder; made, for this user alone, where it is not there.

    Raises:
        HotshotError: the folder cannot be written, is another user's, or others can write to it.
    """

    def __init__(self, path: Path) -> None:
        self._secret = b""
        self.path = Path(os.path.realpath(path))
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            fault = _fault(self.path.stat())
            if fault is None:
                probe_writable(self.path)
        except OSError as error:
            raise HotshotError(
                f"Compiled programs cannot be kept in {path} ({error.strerror or error})"
            ) from error
        if fault is not None:
            raise HotshotError(f"Compiled programs are not taken from {path}: {fault}")
        self._told = False

    def with_secret(self, secret: bytes) -> "ProgramFolder":
        """The same folder, for programs that only who knows the secret can write."""
        other = copy.copy(self)
        other._secret = secret
        return other

    @property
    def keyed(self) -> bool:
        """Whether there is a secret."""
        return bool(self._secret)

    def get(self, key: str) -> bytes | None:
        """The program of a key; None where there is none that can be trusted."""
        file = self.file(key)
        try:
            # Neither through links nor from pipes, which would wait for a writer.
            descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(descriptor, "rb") as opened:
                status = os.fstat(descriptor)
                fault = _fault(status) if stat.S_ISREG(status.st_mode) else "it is no file"
                content = b"" if fault else opened.read()
                with contextlib.suppress(OSError):
                    # The time of its last use, for `forget_oldest`.
                    os.utime(descriptor)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._tell(file, str(error.strerror or error))
            return None
        size = _DIGEST().digest_size
        program = content[size:]
        if fault is None and not hmac.compare_digest(content[:size], self._digest(key, program)):
            fault = "it is damaged, or another program's"
        if fault is None:
            return program
        self._tell(file, fault)
        with contextlib.suppress(OSError):
            file.unlink()
        return None

    def put(self, key: str, program: bytes) -> None:
        """Keeps a program; replaces what is kept for its key."""
        file = self.file(key)
        try:
            with staged_file(file, may_replace=replace_anything) as staged:
                # This user's alone, whatever the mask of new files.
                descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with open(descriptor, "wb") as opened:
                    opened.write(self._digest(key, program) + program)
        except HotshotError as error:
            self._tell(file, str(error))

    def forget_oldest(self, prefix: str, most: int) -> None:
        """Deletes programs whose keys begin so, but for those that were used last.

        Args:
            prefix: of their keys.
            most: how many stay.
        """
        with contextlib.suppress(OSError):
            files = sorted(
                self.path.glob(f"{prefix}*{_SUFFIX}"), key=lambda file: file.stat().st_mtime
            )
            for file in files[: max(0, len(files) - most)]:
                file.unlink()

    def file(self, key: str) -> Path:
        """Where the program of a key is kept."""
        return self.path / (re.sub(r"[^\w.-]", "_", key)[-_LONGEST_NAME:] + _SUFFIX)

    def _digest(self, key: str, program: bytes) -> bytes:
        name = key.encode()
        content = len(name).to_bytes(8, "little") + name + program
        if self._secret:
            return hmac.new(self._secret, content, _DIGEST).digest()
        return _DIGEST(content).digest()

    def _tell(self, file: Path, fault: str) -> None:
        if not self._told:
            logger.warning("%s: %s. Programs of which this is so are compiled anew.", file, fault)
        self._told = True


def own_secret(file: Path) -> bytes | None:
    """This user's secret, which is drawn and written where there is none yet.

    Args:
        file: which this user alone may read and write.

    Returns:
        32 bytes; None where there is no file of which that is so.
    """
    try:
        if not file.exists():
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Another process may be as fast.
            with contextlib.suppress(HotshotError), staged_file(file) as staged:
                descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with open(descriptor, "wb") as opened:
                    opened.write(secrets.token_bytes(_SECRET_BYTES))
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as opened:
            status = os.fstat(descriptor)
            mine = status.st_uid == os.getuid() and stat.S_ISREG(status.st_mode)
            if not mine or status.st_mode & 0o077:
                return None
            secret = opened.read(_SECRET_BYTES + 1)
    except OSError:
        return None
    return secret if len(secret) == _SECRET_BYTES else None


def _fault(status: os.stat_result) -> str | None:
    """Why what is at a path cannot be trusted, if it cannot."""
    if status.st_uid not in (os.getuid(), 0):
        return "it belongs to another user"
    if status.st_mode & _WRITABLE_BY_OTHERS:
        return "others can write to it (chmod go-w takes that away)"
    return None
