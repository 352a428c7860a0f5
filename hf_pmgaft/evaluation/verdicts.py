"""Verdicts per image, in memory and on disk, so that a killed evaluation goes on where it was."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..distributed import gather
from ..files import writing_into
from ..fingerprints import differences
from .figure import Figure
from .outcomes import Outcome

# What counts as fooled.
VERDICTS = {
    "any_iterate": "any iterate: an image is fooled if it is misclassified clean or at any point that an attack of "
    "the threat, or of a smaller radius of its norm, visits inside the ball",
    "last_iterate": "last iterate, all images: every attack runs on every image, also the misclassified, and what it "
    "returns is judged alone",
    "majority": "majority: an image is fooled if no more than half of fresh draws of the defence are right, clean or "
    "at the point that an attack of the threat, or of a smaller radius of its norm, comes to",
    "prediction": "prediction: an image is fooled if the most frequent class of fresh draws of the smoothed model is "
    "wrong, or no test tells it from the next one, clean or at the point that an attack of the threat, or of a "
    "smaller radius of its norm, comes to",
}
# A verdict in the file: fooled, standing, or fooled but standing again once rounded to 8 bits.
FOOLED, STANDS, STANDS_ROUNDED = 0, 1, 2
# Under these names the file has what no attack gave: verdicts without one, and digests of images and labels.
CLEAN = "clean"
PIXELS = "pixels"
TOGETHER = (
    "Let all processes evaluate the same at the same time, and end all of them if one of them fails; with a verdict "
    "file the next ones go on from there."
)


@dataclass
class Judged:
    """One row of a report before it is summed up: what became of the images, or other queries; see `outcomes`.

    Args:
        name (`str`): Of the row in tables.
        num_candidates (`int`): Among how many answers the right one is to be found.
        ids (`list[int]`): Of the queries: rows of images, numbers of captions.
        clean (`list[Outcome]`): Without an attack.
        masks (`dict[str, list[Outcome]]`): By attack, after it and the ones before it.
        rounded (`list[Outcome]`, *optional*): Under the headline threat with images rounded to 8 bits.
        figure (`Figure`): What they are summed up to.
        class_names (`list[str]`, *optional*): Of the classes that outcomes name by number.
        drawn (`dict`, *optional*): Under a random defence what draws say of each image, clean and by attack; see
            `hf_pmgaft.evaluation.majority`.
        written (`dict`, *optional*): By typographic attack, what became of the images that it wrote on; see
            `hf_pmgaft.evaluation.written`.
    """

    name: str
    num_candidates: int
    ids: list[int]
    clean: list[Outcome]
    masks: dict[str, list[Outcome]]
    rounded: list[Outcome] | None
    figure: Figure = field(default_factory=Figure)
    class_names: list[str] | None = None
    drawn: dict[str, list] | None = None
    written: dict[str, list[list[float]]] | None = None


class Verdicts:
    """Verdicts by set, attack and image; with a file, kept there too.

    The first line of the file holds what was evaluated and how, each further one a batch. Every process appends to a
    file of its own and reads all of them; the last line of one that was killed may be cut off, and is made again.

    Args:
        file (`str`, *optional*): Where they go, such as `verdicts.jsonl`.
        header (`dict`): What a file must begin with to be gone on with: protocol and model.
        rank (`int`): Of the process.

    Raises:
        ValueError: if the file is of another evaluation, naming the keys that differ.

    Example:
        >>> verdicts = Verdicts("verdicts.jsonl", {"seed": 0})
        >>> verdicts.add("food", "clean", rows=[3, 7], values=[1, 0])
        >>> verdicts.close()
        >>> Verdicts("verdicts.jsonl", {"seed": 0}).of("food", "clean")
        {3: 1, 7: 0}
    """

    def __init__(self, file: str | os.PathLike | None, header: Mapping[str, Any], rank: int = 0):
        self._values: dict[tuple[str, str], dict[int, Any]] = {}
        self._file = None
        if file is None:
            return

        # All that was written before, by any process
        path = Path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        for written in (path, *sorted(path.parent.glob(f"{glob.escape(path.name)}-*"))):
            if written.is_file():
                self._read(written, header)

        # The file of this process, gone on with
        mine = path if rank == 0 else path.with_name(f"{path.name}-{rank}")
        if mine.exists():
            _remove_cut_off_line(mine)
        self._file = mine.open("a", encoding="utf-8")
        if mine.stat().st_size == 0:
            self._append(header)

    def of(self, name: str, attack: str) -> dict[int, Any]:
        """Verdicts of one attack on one set, by row."""
        return self._values.setdefault((name, attack), {})

    def add(self, name: str, attack: str, rows: Sequence[int], values: Sequence[Any]) -> None:
        """Notes the verdicts of one batch."""
        self.of(name, attack).update(zip(rows, values, strict=True))
        if self._file is not None:
            self._append({"set": name, "attack": attack, "rows": list(rows), "verdicts": list(values)})

    def exchange(self, name: str | None = None, attack: str | None = None) -> None:
        """Takes over the verdicts of all processes, of one attack on one set if given; all must ask together.

        Raises:
            RuntimeError: if another process asks for those of something else.
        """
        if name is None:
            mine = self._values
        else:
            mine = {(name, attack): self.of(name, attack)}
        answers = gather([((name, attack), mine)])
        asked = {of_process for of_process, _ in answers}
        if len(asked) > 1:
            places = " and ".join(sorted(f"{key!r} of {of_set!r}" if of_set else "all" for of_set, key in asked))
            raise RuntimeError(f"Processes are out of step: they exchange verdicts of {places}. {TOGETHER}")
        for _, verdicts in answers:
            for (of_set, of_attack), values in verdicts.items():
                self.of(of_set, of_attack).update(values)

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            with writing_into(Path(self._file.name).parent):
                self._file.close()

    def _append(self, line: Mapping[str, Any]) -> None:
        with writing_into(Path(self._file.name).parent):
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def _read(self, file: Path, header: Mapping[str, Any]) -> None:
        refusal = f"{file} holds no verdicts ({{}}). Pass another file, or remove it."
        try:
            *lines, cut_off = file.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(refusal.format(error)) from error
        if not lines:
            # It would be cut to nothing, and may be anything that was named by mistake.
            if not json.dumps(header).startswith(cut_off):
                raise ValueError(refusal.format("its only line is not the first one of such a file"))
            return

        try:
            first, *batches = map(json.loads, lines)
            differing = differences(dict(first), header)
        except (ValueError, AttributeError, TypeError) as error:
            raise ValueError(refusal.format(error)) from error
        if differing:
            raise ValueError(
                f"{file} holds verdicts of another evaluation: it differs in {', '.join(differing)}. Pass "
                "another file, or remove it."
            )

        for number, batch in enumerate(batches, 2):
            try:
                of_batch = dict(zip(batch["rows"], batch["verdicts"], strict=True))
                self.of(batch["set"], batch["attack"]).update(of_batch)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(refusal.format(f"line {number}: {type(error).__name__}: {error}")) from error


def _remove_cut_off_line(file: Path) -> None:
    """Removes a last line without its end."""
    content = file.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(file, whole)
