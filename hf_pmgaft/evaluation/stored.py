"""`StoredReport`: what reports have in common, which go to a JSON file and come back from it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..files import write_whole

if TYPE_CHECKING:
    from typing_extensions import Self


class StoredReport:
    """A report with a protocol, whose hash its file holds, too.

    Attributes:
        protocol (`dict`): Everything that the figures depend on but the models.
        KIND (`str`), FILE (`str`), AGAIN (`str`): What errors call such a report and its file, and how one is made.
    """

    protocol: dict[str, Any]
    KIND: ClassVar[str]
    FILE: ClassVar[str]
    AGAIN: ClassVar[str]

    @property
    def protocol_hash(self) -> str:
        """Reports with equal hashes differ in the models alone."""
        text = json.dumps(self.protocol, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Everything, in types that JSON has."""
        raise NotImplementedError

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The report that `to_dict` gave; any error of a dictionary for what is none."""
        raise NotImplementedError

    def save(self, file: str | os.PathLike) -> None:
        """Writes the report as JSON, whole or not at all; its folder is made if need be."""
        write_whole(file, json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def load(cls, file: str | os.PathLike) -> Self:
        """Reads a report that `save` wrote.

        Raises:
            OSError: if it cannot be read.
            ValueError: if the file was cut off, is no such report, its protocol is not the one of its hash, or figures
                are not those of their verdicts.
        """
        if Path(file).is_dir():
            raise ValueError(f"{file} is a folder and no report. Pass the file, such as {Path(file) / cls.FILE}.")
        return cls.from_json(Path(file).read_bytes(), str(file))

    @classmethod
    def from_json(cls, content: bytes, name: str) -> Self:
        """The report of a file's content; `name` is what errors call it. Raises as [`StoredReport.load`] does."""
        # What was cut off, or never was a report
        try:
            data = json.loads(content.decode("utf-8-sig"))
            if not data["sets"]:
                raise ValueError("it has no sets")
            report = cls.from_dict(data)
            written_hash = data["protocol_hash"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{name} is no whole {cls.KIND} ({type(error).__name__}: {error}). {cls.AGAIN}."
            ) from error

        # What was changed by hand
        if written_hash != report.protocol_hash:
            raise ValueError(f"{name} was changed: its protocol is not that of its hash {written_hash}. {cls.AGAIN}.")
        return report
