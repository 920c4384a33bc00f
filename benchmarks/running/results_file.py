"""A file of results that grows line by line, so that a run that was stopped can go on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hotshot_jax.errors import HotshotError, UsageError

_SETTINGS = "settings"
Record = dict[str, Any]


class ResultsFile:
    """JSON lines: the settings of the run first, then one record after the other.

    Args:
        path: of the file; made if it is not there.
        settings: what records depend on, as JSON's types.
        resume: go on with what is there.

    Raises:
        UsageError: there are results already and `resume` is not given, or they were made with
            other settings.
        HotshotError: a line is not what this class writes.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], resume: bool):
        self.path = path
        self.records: list[Record] = []
        settings = json.loads(json.dumps(settings))
        if path.exists() and path.stat().st_size:
            if not resume:
                raise UsageError(f"{path} holds results. Give --resume to go on, or another file.")
            self._read(settings)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write({_SETTINGS: settings})

    def append(self, record: Record) -> None:
        """Keeps a record, on disk before this returns."""
        self.records.append(record)
        self._write(record)

    def _write(self, line: Record) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _read(self, settings: Mapping[str, Any]) -> None:
        text = self.path.read_text()
        # What a killed run was writing has no end of line.
        whole = text[: text.rfind("\n") + 1]
        try:
            header, *self.records = map(json.loads, whole.splitlines())
            stored = header[_SETTINGS]
        except (ValueError, TypeError, KeyError) as error:
            raise HotshotError(f"{self.path} does not hold results of this program.") from error
        names = sorted({*stored, *settings})
        other = [name for name in names if stored.get(name) != settings.get(name)]
        if other:
            name = other[0]
            raise UsageError(
                f"{self.path} was made with {name} {stored.get(name)}, not {settings.get(name)}. "
                "Give the same, or another file."
            )
        if whole != text:
            self.path.write_text(whole)
