"""What processes tell each other: their share of the work, sums, means and lists."""

from __future__ import annotations

import functools

import torch
import torch.distributed as dist
from torch.distributed.nn.functional import all_gather


def process_share() -> tuple[int, int]:
    """Returns this process's number and how many there are.

    Example:
        >>> rank, count = process_share()
        >>> list(range(10))[rank::count]  # the share of the only process
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def gather(values: list) -> list:
    """Joins the lists of all processes, on every process."""
    count = process_share()[1]
    if count == 1:
        return values
    lists: list = [None] * count
    dist.all_gather_object(lists, values)
    return [value for one in lists for value in one]


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """Joins the rows `[B,...]` of all processes to `[P*B,...]`.

    Gradients find their way back to the process of each row.
    """
    if process_share()[1] == 1:
        return rows
    return torch.cat(all_gather(rows.contiguous()))


def sum_over_processes(value: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over processes; all must ask together."""
    if process_share()[1] == 1:
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value


def mean_over_processes(value: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over processes; all must ask together."""
    return sum_over_processes(value) / process_share()[1]


def any_process(flag: bool) -> bool:
    """Whether the flag is set on any process; all processes must ask together. No accelerator waits for it."""
    if process_share()[1] == 1:
        return flag
    value = torch.tensor(int(flag))
    dist.all_reduce(value, group=_cpu_group(dist.group.WORLD))
    return bool(value)


@functools.cache
def _cpu_group(world: dist.ProcessGroup) -> dist.ProcessGroup:
    return world if dist.get_backend(world) == "gloo" else dist.new_group(backend="gloo")
