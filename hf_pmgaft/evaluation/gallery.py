"""`Gallery`: the images of some rows and their captions, which one retrieval ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..data.evaluation_sets import RetrievalDataset
from ..noise import sample_seeds, uniform_noise

RECALL_AT = (1, 5, 10)
DRAWN = "drawn"  # the target of a set whose images have one each, by chance
THREATS = {
    "I2T": "the query image is perturbed against its own captions: the attack's loss is over all captions of the "
    "gallery, those of the image being right (margin: its best wrong caption minus its best own). Its rank is that of "
    "its best own caption, under any iterate the worst that the attack met",
    "T2I": "every image of the gallery is perturbed, once, against its own captions: it is the image that the same "
    "attack returned. Each caption is a query, and none of the images was made against that query, so this recall is "
    "an upper bound of what an attacker who knows the query leaves",
    "target": "the query image is pulled to a chosen caption that is not its own: the attack's loss is over all "
    "captions of the gallery, the target being the one to reach (margin: the target minus the best other). Right at k "
    "is who keeps the target out of the first k captions, under any iterate at every point that the attack met",
}
TIES = "a query's own that ties with another stands behind it, a target before it"
_TARGET_STREAM = 810  # of the numbers that draw targets


class Gallery:
    """Some rows of a retrieval set with their captions numbered.

    A caption that several images have is one caption of all of them. By row the gallery gives `{"images": [3,H,W],
    "labels": ..., "sample_id": int}`. The labels are the numbers of the image's own captions, as many for each image:
    who has fewer has the first again. If the threat is a pull, the label is the number of the image's target.

    Args:
        data (`RetrievalDataset`), rows (`list[int]`): The set, and which of its rows are ranked.
        seed (`int`): Draws the targets.

    Attributes:
        captions (`list[str]`): The different captions, by number.
        rows (`list[int]`): Rows of the images that are queries.
        own (`dict[int, list[int]]`): By row of the gallery the numbers of its captions.
        targets (`dict[int, int]`): By row the number of its target, if the threat is a pull.

    Raises:
        ValueError: for a row without a caption, a gallery in which nobody can miss, or a target that is not there.

    Example:
        >>> from hf_pmgaft import RetrievalDataset
        >>> captioned = dataset.add_column("caption", [f"image {i}" for i in range(16)])
        >>> gallery = Gallery(RetrievalDataset(captioned, processor, name="images"), rows=range(12), seed=0)
        >>> gallery.num_candidates, gallery.captions[3], gallery[3]["labels"]
        (12, 'image 3', [3])
    """

    def __init__(self, data: RetrievalDataset, rows: Sequence[int], seed: int):
        self.data = data
        self.name = data.name

        # Captions get their numbers in the order of the rows.
        texts = data.texts(rows)
        numbers: dict[str, int] = {}
        for of_image in texts.values():
            for text in of_image:
                numbers.setdefault(text, len(numbers))
        self.captions = list(numbers)
        self.own = {row: [numbers[text] for text in texts[row]] for row in rows}
        self._check_size()

        # An image that has the target as its own caption is no query.
        self.targets = self._make_targets(numbers, seed)
        self.rows = list(self.targets) if self.targets else list(rows)
        self._width = max(len(own) for own in self.own.values())

    @property
    def num_candidates(self) -> int:
        """Number of captions that an image is ranked against."""
        return len(self.captions)

    def __getitem__(self, row: int) -> dict[str, Any]:
        labels = self.targets[row] if self.targets else filled_up([self.own[row]], self._width)[0]
        return {"images": self.data[row]["images"], "labels": labels, "sample_id": row}

    def images_of_captions(self) -> list[list[int]]:
        """By caption the places, among the rows, of the images that have it."""
        places: list[list[int]] = [[] for _ in self.captions]
        for place, row in enumerate(self.rows):
            for caption in self.own[row]:
                places[caption].append(place)
        return places

    def describe(self) -> dict[str, Any]:
        """The gallery for the protocol, beside what stands there of any set."""
        threats = ("target",) if self.targets else ("I2T", "T2I")
        entry = {
            "caption_columns": list(self.data.captions.paths),
            "num_images": len(self.own),
            "num_pairs": sum(len(own) for own in self.own.values()),
            "recall_at": list(RECALL_AT),
            "ties": TIES,
            "threats": {name: THREATS[name] for name in threats},
        }
        if self.targets:
            entry["target"] = self.data.target
        return entry

    def _check_size(self) -> None:
        most = max(RECALL_AT)
        if min(len(self.own), self.num_candidates) <= most:
            raise ValueError(
                f"The gallery of {self.name!r} has {len(self.own)} images and {self.num_candidates} different "
                f"captions, where recall at {most} would be 1 whatever the model does. Evaluate more than {most} of "
                "each."
            )

    def _make_targets(self, numbers: Mapping[str, int], seed: int) -> dict[int, int]:
        if self.data.target is None:
            return {}
        if self.data.target == DRAWN:
            return self._drawn_targets(seed)
        return self._one_target(numbers)

    def _one_target(self, numbers: Mapping[str, int]) -> dict[int, int]:
        """The named caption, for each image that does not have it."""
        target = numbers.get(self.data.target)
        if target is None:
            raise ValueError(
                f"You passed the target {self.data.target!r}, which is no caption of the gallery of "
                f"{self.name!r}. Pass one of its {self.num_candidates:,} captions, such as {self.captions[0]!r}, or "
                f"{DRAWN!r}."
            )
        targets = {row: target for row, own in self.own.items() if target not in own}
        if not targets:
            raise ValueError(f"Every image of {self.name!r} has the target as its own caption. Pass another one.")
        return targets

    def _drawn_targets(self, seed: int) -> dict[int, int]:
        """For each image one of the captions that it does not have, by the seed and its row."""
        rows = list(self.own)
        chances = uniform_noise(sample_seeds(seed, 0, torch.tensor(rows)), (), _TARGET_STREAM).tolist()
        targets = {}
        for row, chance in zip(rows, chances, strict=True):
            others = self.num_candidates - len(self.own[row])
            if not others:
                raise ValueError(f"The image in row {row} of {self.name!r} has every caption. Remove the row.")

            # The number among the others, and then among all.
            target = int(chance * others)
            for own in sorted(self.own[row]):
                if target >= own:
                    target += 1
            targets[row] = target
        return targets


def filled_up(lists: Sequence[Sequence[int]], width: int) -> list[list[int]]:
    """Lists of one length: the shorter ones have their first entry again."""
    return [[*entries, *[entries[0]] * (width - len(entries))] for entries in lists]
