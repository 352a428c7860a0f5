"""`Judge`: reads a set, batch by batch, attacks it and shows how it fares. It knows no task.

Each task asks it for batches of images that have no verdict yet, attacks them through it, and notes its own verdicts.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .. import progress as bars
from ..attacks.full_batches import FullBatches
from ..attacks.spec import AttackSpec
from ..attacks.usage import Usage
from ..attacks.walk import Ended, Lot, Walk
from ..distributed import process_share
from ..noise import sample_seeds
from ..zero_shot.segmenter import Segmenter
from .company import Company
from .examples import Album
from .image_progress import Classifier, Progress, WholeProgress
from .loaded import Loaded
from .lots import Lots, by_size, split
from .reader import Reader
from .verdicts import PIXELS, TOGETHER, Verdicts

# Where there are several processes:
LOTS_OF_BATCH = 8  # in how many lots one takes the images of a full batch
LEAST_PARTS = 4  # an attack on whole batches goes through at most so many that are small, since each takes its time

NOTES_INTERVAL = 2.0  # seconds for which verdicts of an attack may wait until they are noted


@dataclass(frozen=True)
class Batch:
    """Some rows of a set: their images `[B,3,H,W]` in [0,1], their labels `[B,...]`, and the bar that shows them.

    Args:
        name (`str`): Of the set.
        digests (`list[str]`, *optional*): A digest of each image with its labels, where they were asked for.
        usage (`Usage`): Where passes are counted.
    """

    name: str
    rows: list[int]
    images: torch.Tensor
    labels: torch.Tensor
    digests: list[str] | None
    progress: Progress
    usage: Usage


@dataclass
class Judge:
    """Gives images to judge that have no verdict yet, and attacks them. Processes take them from a common queue.

    Args:
        verdicts (`Verdicts`): Where they are noted. Every process knows all that were noted before.
        any_iterate (`bool`): Whether an image is fooled by any point that an attack visits.
        eight_bit (`bool`): Whether adversarial images are also judged after rounding them to 8 bits.
        batch_size (`int`): Images at once.
        seed (`int`): Of the attacks' noise.
        progress (`bool`): Whether bars are shown.
        company (`Company`): Who judges together.
        album (`Album`, *optional*): Where some of the attacked images are kept.
        whole (`WholeProgress`, *optional*): The bar of all sets and attacks, in place of one for each.

    Attributes:
        usage (`dict`): How full the batches of this process were, by set and key.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset
        >>> reader = Reader(ZeroShotDataset(dataset, processor, name="food"))
        >>> verdicts = Verdicts(None, {})
        >>> judge = Judge(verdicts, any_iterate=True, eight_bit=False, batch_size=8, seed=0, progress=False)
        >>> for batch in judge.batches(reader, "bright", range(16), range(16), share_right=bool):
        ...     judge.note(reader, "bright", batch.rows, (batch.images.mean((1, 2, 3)) > 0.5).tolist())
        >>> sum(verdicts.of("food", "bright").values())
        16
    """

    verdicts: Verdicts
    any_iterate: bool
    eight_bit: bool
    batch_size: int
    seed: int
    progress: bool
    company: Company = field(default_factory=Company)
    album: Album | None = None
    whole: WholeProgress | None = None
    usage: dict[tuple[str, str], Usage] = field(default_factory=dict)

    def check_images(self, reader: Reader, rows: Sequence[int]) -> None:
        """Raises `ValueError` if verdicts on file are of other images than the set's. Each process looks at some."""
        digests = self.verdicts.of(reader.name, PIXELS)
        rank, processes = process_share()
        on_file = [row for row in rows if row in digests][rank::processes]
        shown = self.progress and bool(on_file)
        with bars.progress_bar(f"{reader.name}: images on file", len(on_file), shown=shown) as bar:
            lots = [split(group, self.batch_size, holders=1) for group in by_size(on_file, reader.size_of)]
            for loaded in reader.stream(itertools.chain(*lots), with_digests=True):
                for row, digest in zip(loaded.rows, loaded.digests, strict=True):
                    if digest != digests[row]:
                        raise ValueError(
                            f"The verdict file holds verdicts on other images or labels of {reader.name!r}: row "
                            f"{row} differs. Pass another file, or remove it."
                        )
                bar.update(len(loaded.rows))

    def batches(
        self,
        reader: Reader,
        key: str,
        candidates: Sequence[int],
        rows: Sequence[int],
        share_right: Callable[[Any], float],
        *,
        device: torch.device | str = "cpu",
        with_digests: bool = False,
    ) -> Iterator[Batch]:
        """Batches of the candidates that have no verdict under a key yet; shows how all rows fare.

        Whoever takes a batch notes its verdicts before asking for the next one. After the last one, the verdicts of
        all processes are known. `share_right` reads from a verdict how much of its image is right: 0 or 1, or a share
        of its pixels.
        """
        with self._at_work(reader, key, candidates, rows, share_right) as work:
            processes = process_share()[1]
            part = math.ceil(len(work.todo) / processes)
            least = math.ceil(min(self.batch_size, part) / LEAST_PARTS)
            lots = Lots(f"{reader.name}: {key}", work.todo, self.batch_size, least=least, size_of=reader.size_of)
            usage = self.usage.setdefault((reader.name, key), Usage(self.batch_size))

            # A first look takes all images equally long, and reading them takes most of it.
            is_shared = processes > 1 and not with_digests
            stream = reader.stream_without_haste(lots) if is_shared else reader.stream(lots, with_digests)
            for loaded in stream:
                loaded = loaded.to(device)
                yield Batch(
                    reader.name, loaded.rows, loaded.images, loaded.labels, loaded.digests, work.progress, usage
                )
                work.show(loaded.rows, lots)

    def walks(
        self,
        reader: Reader,
        key: str,
        candidates: Sequence[int],
        rows: Sequence[int],
        share_right: Callable[[Any], float],
        *,
        spec: AttackSpec,
        walk: Walk,
        classifier: Classifier,
        device: torch.device | str = "cpu",
    ) -> Iterator[Ended]:
        """Attacks the candidates that have no verdict under a key yet by walks in full batches; else as `batches`.

        Raises:
            RuntimeError: if the attack comes to what its threat does not allow.
        """
        with self._at_work(reader, key, candidates, rows, share_right) as work:
            if not work.todo:
                return
            processes = process_share()[1]
            size = self.batch_size if processes == 1 else math.ceil(self.batch_size / LOTS_OF_BATCH)
            lots = Lots(f"{reader.name}: {key}", work.todo, size, held=1 + reader.lots_ahead)
            batches = FullBatches(
                walk,
                work.progress.watched(classifier),
                eps=spec.radius,
                norm=spec.norm,
                size=self.batch_size,
                images_at_once=self._images_at_once(len(work.todo), walk),
                in_order=self.eight_bit,
                usage=self.usage.setdefault((reader.name, key), Usage(self.batch_size)),
            )
            arriving = (self._lot(loaded.to(device)) for loaded in reader.stream(lots))
            for ended in _together(batches.run(arriving), self.batch_size):
                self._check_and_keep(spec, reader.name, ended.rows, ended.images, ended.labels, ended.points)
                yield ended
                work.show(ended.rows, lots)

    def note(self, reader: Reader, key: str, rows: Sequence[int], values: Sequence[Any]) -> None:
        """Notes a value for each of some rows."""
        self.verdicts.add(reader.name, key, rows, values)

    def attack(
        self,
        spec: AttackSpec,
        classifier: Classifier,
        batch: Batch,
        *,
        run: Callable[..., torch.Tensor] | None = None,
        **options: Any,
    ) -> torch.Tensor:
        """Adversarial images of a batch, `[B,3,H,W]`; see [`AttackSpec.run`].

        Args:
            run (`Callable`, *optional*): Runs the attack in place of [`AttackSpec.run`], which takes the same.
            options: Of that: `any_iterate`, `targeted`, `class_names`.

        Raises:
            RuntimeError: if the attack returns what its threat does not allow.
        """
        seeds = self.seeds(batch)
        watched = batch.progress.watched(classifier, batch.usage)
        adversarial = (run or spec.run)(watched, batch.images, batch.labels, seeds, **options)
        self._check_and_keep(spec, batch.name, batch.rows, batch.images, batch.labels, adversarial)
        return adversarial

    def attack_pixels(self, spec: AttackSpec, segmenter: Segmenter, batch: Batch) -> torch.Tensor:
        """As `attack`, against the classes of all pixels of a batch."""
        seeds = self.seeds(batch)
        watched = batch.progress.watched(segmenter, batch.usage)
        adversarial = spec.run_dense(watched, batch.images, batch.labels, seeds, any_iterate=self.any_iterate)
        self._check_and_keep(spec, batch.name, batch.rows, batch.images, batch.labels, adversarial)
        return adversarial

    def seeds(self, batch: Batch) -> torch.Tensor:
        """The seed of each image of a batch, `[B]`, from which all of its noise follows."""
        return self._seeds(batch.rows, batch.images.device)

    @contextlib.contextmanager
    def _at_work(
        self,
        reader: Reader,
        key: str,
        candidates: Sequence[int],
        rows: Sequence[int],
        share_right: Callable[[Any], float],
    ) -> Iterator[_Work]:
        """What is to be done under a key, and a bar over it; verdicts are exchanged when it is done."""
        values = self.verdicts.of(reader.name, key)
        todo = [row for row in candidates if row not in values]
        done = len(candidates) - len(todo)
        right = len(todo) + sum(row in values and share_right(values[row]) for row in candidates)
        counts = {"total": len(candidates), "done": done, "right": right, "images": len(rows)}
        with Progress(reader.name, key, **counts, shown=self.progress, whole=self.whole) as progress:
            work = _Work(todo, values, share_right, progress)
            yield work
            self.company.meet()
            self.verdicts.exchange(reader.name, key)
            _check_complete(todo, values, reader.name, key)
            work.show_rest()

    def _images_at_once(self, count: int, walk: Walk) -> int | None:
        """Of so many images, how many a process has on their way, so that some are left to whoever is done first.

        Walks of one image fill the batch then, or as many images if they have one walk each.
        """
        processes = process_share()[1]
        if processes == 1:
            return None
        part = math.ceil(count / processes)
        return min(part, max(math.ceil(part / LEAST_PARTS), math.ceil(self.batch_size / walk.num_walks)))

    def _lot(self, loaded: Loaded) -> Lot:
        return Lot(loaded.rows, loaded.images, loaded.labels, self._seeds(loaded.rows, loaded.images.device))

    def _seeds(self, rows: Sequence[int], device: torch.device) -> torch.Tensor:
        return sample_seeds(self.seed, 0, torch.tensor(rows, device=device))

    def _check_and_keep(
        self,
        spec: AttackSpec,
        name: str,
        rows: Sequence[int],
        images: torch.Tensor,
        labels: torch.Tensor,
        adversarial: torch.Tensor,
    ) -> None:
        """Raises `RuntimeError` for what the threat does not allow; keeps what may be shown of a set."""
        outside = ~spec.allows(images, adversarial)
        if outside.any():
            rows = [row for row, out in zip(rows, outside.tolist(), strict=True) if out]
            raise RuntimeError(f"{spec.name} left its ball or [0,1] on the images of rows {rows}.")
        if self.album is not None:
            self.album.keep(name, spec, rows, images, labels, adversarial)


@dataclass
class _Work:
    """Rows without a verdict under a key, all verdicts under it, and the bar over them."""

    todo: list[int]
    values: dict[int, Any]
    share_right: Callable[[Any], float]
    progress: Progress
    elsewhere: int = 0
    shown: int = 0
    wrong: float = 0.0

    def show(self, rows: Sequence[int], lots: Lots) -> None:
        """Shows rows that were judged, and those that other processes have taken in the meantime."""
        taken, self.elsewhere = lots.elsewhere - self.elsewhere, lots.elsewhere
        self._add(len(rows) + taken, self._count_wrong(rows))

    def show_rest(self) -> None:
        """Shows what others judged, once all is known."""
        wrong = self._count_wrong(self.todo)
        if (self.shown, self.wrong) != (len(self.todo), wrong):
            self._add(len(self.todo) - self.shown, wrong - self.wrong)

    def _count_wrong(self, rows: Sequence[int]) -> float:
        return sum(1 - self.share_right(self.values[row]) for row in rows)

    def _add(self, count: int, wrong: float) -> None:
        self.shown += count
        self.wrong += wrong
        self.progress.add(count, wrong)


def _check_complete(rows: Sequence[int], values: Mapping[int, Any], name: str, key: str) -> None:
    """Raises `RuntimeError` if some rows have no verdict although all processes are done."""
    missing = [row for row in rows if row not in values]
    if missing:
        raise RuntimeError(
            f"All processes are done with {key!r} of {name!r}, but {len(missing)} images have no verdict, such as row "
            f"{missing[0]}. {TOGETHER}"
        )


def _together(parts: Iterator[Ended], count: int) -> Iterator[Ended]:
    """Images that ended, some at a time: what was noted is on disk, which would take longer one by one.

    They are given out when there are `count` of them, when they have waited for `NOTES_INTERVAL`, and before an error.
    """
    waiting: list[Ended] = []
    since = time.monotonic()
    try:
        for ended in parts:
            waiting.append(ended)
            is_due = time.monotonic() - since > NOTES_INTERVAL
            if is_due or sum(len(part.rows) for part in waiting) >= count:
                yield Ended.join(waiting)
                waiting, since = [], time.monotonic()
    except GeneratorExit:
        raise
    except BaseException:
        if waiting:
            yield Ended.join(waiting)
        raise
    if waiting:
        yield Ended.join(waiting)


def check_finite(logits: torch.Tensor, name: str, rows: Sequence[int]) -> None:
    """Raises `ValueError` if some of the logits of these rows of a set are not finite."""
    if not torch.isfinite(logits).all():
        raise ValueError(
            f"The model's logits are NaN or infinite on images among the rows {rows[0]} to {rows[-1]} of "
            f"{name!r}, so no verdict on them means anything. Check the weights of the checkpoint."
        )
