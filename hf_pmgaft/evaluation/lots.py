"""`Lots`: rows in lots, which processes take from one queue, so that none waits for one that has more to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence

from ..distributed import process_share, take_ticket
from ..fingerprints import digest_of_list

# How many queues of each name this process has made. Where an error put processes out of step, those that made
# most of them share a new one, and no row is left out.
QUEUES_MADE: Counter[str] = Counter()


class Lots:
    """An iterator over lots of rows. With several processes each lot comes to one of them, the next to who asks next.

    A lot is no more than a process's part of what is left, so that all have done at about the same time. What a
    process took and did not judge, because it was killed, has no verdict and comes again when the evaluation is
    resumed.

    Args:
        name (`str`): What is done with the rows.
        rows (`list[int]`): The same in every process.
        size (`int`), least (`int`): Rows in a lot at most, and at least.
        held (`int`): Lots that a process holds at a time, if it takes some ahead.
        size_of (`Callable`, *optional*): The size of a row's image. Only images of one size make a batch, and so a
            lot; all are of one if not given.

    Example:
        >>> list(Lots("food: clean", [3, 5, 8, 9, 11], size=2))  # of the only process
        [[3, 5], [8, 9], [11]]
    """

    def __init__(
        self,
        name: str,
        rows: Sequence[int],
        size: int,
        *,
        least: int = 1,
        held: int = 1,
        size_of: Callable[[int], Hashable] | None = None,
    ):
        processes = process_share()[1]
        holders = 1 if processes == 1 else processes * held
        lots = [lot for group in by_size(rows, size_of) for lot in split(group, size, holders, least)]
        self.lots = lots if size_of is None else sorted(lots, key=len, reverse=True)
        self.own = 0  # rows that came to this process
        self._taken = 0  # lots, as far as this process knows

        queue = f"hf_pmgaft/lots/{digest_of_list([name, self.lots])}"
        self._queue = f"{queue}/{QUEUES_MADE[queue]}"
        QUEUES_MADE[queue] += 1

    def __iter__(self) -> Iterator[list[int]]:
        return self

    def __next__(self) -> list[int]:
        number = self._taken if process_share()[1] == 1 else take_ticket(self._queue)
        self._taken = min(number + 1, len(self.lots))
        if number >= len(self.lots):
            raise StopIteration
        self.own += len(self.lots[number])
        return self.lots[number]

    @property
    def elsewhere(self) -> int:
        """Rows that went to other processes, as far as this one knows."""
        return sum(map(len, self.lots[: self._taken])) - self.own


def by_size(rows: Sequence[int], size_of: Callable[[int], Hashable] | None) -> list[list[int]]:
    """Rows by the size of their images, which must be one in a batch.

    Example:
        >>> by_size([4, 5, 6], size_of=lambda row: (40, 40 + row % 2)), by_size([4, 5, 6], size_of=None)
        ([[4, 6], [5]], [[4, 5, 6]])
    """
    groups: dict[Hashable, list[int]] = {}
    for row in rows:
        groups.setdefault(None if size_of is None else size_of(row), []).append(row)
    return list(groups.values())


def split(rows: Sequence[int], size: int, holders: int, least: int = 1) -> list[list[int]]:
    """Splits rows in lots of `size`; for several holders in smaller and smaller ones, and from all over the set.

    Images that take long often stand together, such as those of one class, and would come to one process.

    Example:
        >>> split(range(5), size=2, holders=1), list(map(len, split(range(20), size=6, holders=2, least=2)))
        ([[0, 1], [2, 3], [4]], [6, 6, 4, 2, 2])
    """
    rows = list(rows)
    if holders == 1:
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    rows = _spread(rows)
    lots = []
    while rows:
        count = min(size, max(least, len(rows) // holders))
        lots.append(rows[:count])
        rows = rows[count:]
    return lots


def _spread(rows: list[int]) -> list[int]:
    """The rows in an order in which neighbours are far apart, by the golden ratio."""
    order = sorted(range(len(rows)), key=lambda place: place * 0.6180339887498949 % 1)
    return [rows[place] for place in order]
