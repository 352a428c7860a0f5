"""What processes do to each other: here how they end."""

import atexit
from pathlib import Path

from support.processes import Group
from torch import distributed as dist

from hf_pmgaft.distributed import leave, process_share


def work_and_leave(folder: Path) -> None:
    rank, _ = process_share()
    atexit.register((folder / f"exit-{rank}").touch)
    gathered = [None, None]
    dist.all_gather_object(gathered, rank)
    leave()
    (folder / f"after-{rank}").touch()


def test_processes_that_gloo_joins_leave_without_its_end_and_with_their_own(tmp_path):
    Group(2, work_and_leave, tmp_path, log=tmp_path).run(60)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exit-0", "exit-1"]


def test_the_only_process_goes_on():
    leave()
