"""What processes tell each other: their share of the work, sums, means and lists."""

from __future__ import annotations

import functools

import torch
import torch.distributed as dist
from torch.distributed.nn.functional import all_gather


def process_share() -> tuple[int, int]:
    """This process's number and how many there are."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def gather(values: list) -> list:
    """The lists of all processes joined, on every process."""
    rank, count = process_share()
    if count == 1:
        return values
    parts: list = [None] * count
    dist.all_gather_object(parts, values)
    return [value for part in parts for value in part]


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """The rows `[B,...]` of all processes, `[P*B,...]`; gradients find their way back to the process of each row."""
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
