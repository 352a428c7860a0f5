"""Lots of rows: how a set is split, and how several processes take lots from one queue."""

import random
from collections import Counter

import pytest

from hf_pmgaft.evaluation import lots as lots_of_rows
from hf_pmgaft.evaluation.lots import Lots, split

# ---- The split ----


def test_one_holder_keeps_the_order_of_the_rows():
    assert split([9, 4, 7, 1, 3], size=2, holders=1, least=5) == [[9, 4], [7, 1], [3]]


@pytest.mark.parametrize("holders", [1, 2, 3, 18])
@pytest.mark.parametrize("count", [0, 1, 5, 64, 265])
def test_each_row_is_in_one_lot(count, holders):
    rows = [3 * row for row in range(count)]
    lots = split(rows, size=16, holders=holders, least=4)
    assert sorted(row for lot in lots for row in lot) == rows
    assert all(0 < len(lot) <= 16 for lot in lots)


@pytest.mark.parametrize("holders", [2, 3, 8])
def test_lots_of_several_holders_get_smaller_as_no_more_than_the_part_of_one_is_left(holders):
    lots = split(range(265), size=64, holders=holders)
    sizes = [len(lot) for lot in lots]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == min(64, 265 // holders) and sizes[-1] == 1
    for number, size in enumerate(sizes):
        assert size <= max(1, sum(sizes[number:]) // holders)


def test_lots_are_no_smaller_than_wanted_but_for_the_last_one():
    sizes = [len(lot) for lot in split(range(266), size=64, holders=2, least=16)]
    assert sizes == [64, 64, 64, 37, 18, 16, 3]


def test_rows_that_stand_together_go_to_lots_of_all_sizes():
    slow = set(range(300))  # such as those of one class
    for lot in split(range(1000), size=32, holders=2):
        assert abs(len(slow & set(lot)) - 0.3 * len(lot)) < 2


# ---- The queue ----


class Machine:
    """Processes that take tickets from one store, one after the other in this one."""

    def __init__(self, processes: int, monkeypatch):
        self.rank, self.processes = 0, processes
        self.tickets: Counter[str] = Counter()
        self.made = [Counter() for _ in range(processes)]  # each process has its own count
        monkeypatch.setattr(lots_of_rows, "process_share", lambda: (self.rank, self.processes))
        monkeypatch.setattr(lots_of_rows, "take_ticket", self.take_ticket)
        self.monkeypatch = monkeypatch

    def take_ticket(self, queue: str) -> int:
        self.tickets[queue] += 1
        return self.tickets[queue] - 1

    def lots(self, rank: int, rows, size: int = 8, name: str = "food: pgd") -> Lots:
        self.rank = rank
        self.monkeypatch.setattr(lots_of_rows, "QUEUES_MADE", self.made[rank])
        return Lots(name, rows, size)

    def share(self, queues: list[Lots], rng: random.Random, dies: dict[int, int] | None = None) -> list[list[int]]:
        """The rows of each process, which ask in any order until nothing is left or they die, after so many lots."""
        dies = dict(dies or {})
        rows, alive = [[] for _ in queues], list(range(len(queues)))
        while alive:
            rank = rng.choice(alive)
            lot = None if dies.get(rank) == 0 else next(queues[rank], None)
            if lot is None:
                alive.remove(rank)
                continue
            rows[rank] += lot
            if rank in dies:
                dies[rank] -= 1
        return rows


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("processes", [2, 3, 5])
def test_each_lot_goes_to_one_process(monkeypatch, processes, seed):
    machine, rng = Machine(processes, monkeypatch), random.Random(seed)
    queues = [machine.lots(rank, range(101)) for rank in range(processes)]
    rows = machine.share(queues, rng)
    assert sorted(sum(rows, [])) == list(range(101))
    for rank, queue in enumerate(queues):
        assert queue.own == len(rows[rank]) and queue.own + queue.elsewhere == 101


def test_who_asks_often_gets_more(monkeypatch):
    machine = Machine(2, monkeypatch)
    fast, slow = (machine.lots(rank, range(100)) for rank in (0, 1))
    first = next(slow)
    rest = sum(fast, [])
    assert sorted(first + rest) == list(range(100)) and next(slow, None) is None
    assert (fast.own, fast.elsewhere, slow.own, slow.elsewhere) == (92, 8, 8, 92)


@pytest.mark.parametrize("seed", range(5))
def test_what_a_dead_process_took_is_handed_out_when_it_is_left_over(monkeypatch, seed):
    machine, rng = Machine(3, monkeypatch), random.Random(seed)
    rows = machine.share([machine.lots(rank, range(60)) for rank in range(3)], rng, dies={1: 2, 2: 1})
    judged = [*rows[0], *rows[1][:-3]]  # the last rows of one process had no verdict, nor had any of another
    left = [row for row in range(60) if row not in judged]
    assert left

    again = machine.share([machine.lots(rank, left) for rank in range(3)], rng)
    assert sorted(judged + sum(again, [])) == list(range(60))


def test_the_same_rows_come_again_under_another_name_and_in_another_evaluation(monkeypatch):
    machine, rng = Machine(2, monkeypatch), random.Random(0)
    for name in ("food: clean", "food: pgd", "pets: pgd", "food: clean"):
        queues = [machine.lots(rank, range(20), name=name) for rank in (0, 1)]
        assert sorted(sum(machine.share(queues, rng), [])) == list(range(20))


@pytest.mark.parametrize("seed", range(5))
def test_a_process_that_is_an_evaluation_behind_leaves_no_row_out(monkeypatch, seed):
    machine, rng = Machine(3, monkeypatch), random.Random(seed)
    alone = machine.lots(0, range(50))  # the others failed before they came so far
    for _ in range(rng.randint(0, 9)):
        next(alone, None)
    for name in ("food: pgd", "food: apgd"):
        queues = [machine.lots(rank, range(50), name=name) for rank in range(3)]
        assert set(sum(machine.share(queues, rng), [])) == set(range(50))
