"""What processes tell each other: their share of the work, sums, means and lists."""

from __future__ import annotations

import atexit
import functools
import os
import sys

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


def take_ticket(queue: str) -> int:
    """Returns the next number of a queue of several processes: 0, 1, 2, ..., each of which one process gets.

    Args:
        queue (`str`): Its name. Nobody waits for anybody.
    """
    return count_together(queue, 1) - 1


def count_together(name: str, more: int) -> int:
    """Adds to a number that several processes have in common, at first 0, and returns what it is now.

    Args:
        name (`str`): What is counted. Nobody waits for anybody.
        more (`int`): What to add, 0 to look.

    Raises:
        RuntimeError: if the process is gone that the others ask.
    """
    try:
        return dist.distributed_c10d._get_default_store().add(name, more)
    except dist.DistError as error:
        raise RuntimeError("Another process is gone, of which this one asked what is left to do.") from error


def gather(values: list) -> list:
    """Joins the lists of all processes, on every process.

    Example:
        >>> gather(["a list", "of the only process"])
        ['a list', 'of the only process']
    """
    count = process_share()[1]
    if count == 1:
        return values
    lists: list = [None] * count
    dist.all_gather_object(lists, values)
    return [value for one in lists for value in one]


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """Joins the rows `[B,...]` of all processes to `[P*B,...]`.

    Gradients find their way back to the process of each row.

    Example:
        >>> gather_rows(torch.ones(2, 3)).shape  # of the only process
        torch.Size([2, 3])
    """
    if process_share()[1] == 1:
        return rows
    return torch.cat(all_gather(rows.contiguous()))


def sum_over_processes(value: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over processes; all must ask together.

    Example:
        >>> sum_over_processes(torch.tensor(2.0)).item()  # of the only process
        2.0
    """
    if process_share()[1] == 1:
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value


def mean_over_processes(value: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over processes; all must ask together.

    Example:
        >>> mean_over_processes(torch.tensor(2.0)).item()  # of the only process
        2.0
    """
    return sum_over_processes(value) / process_share()[1]


def max_over_processes(number: int) -> int:
    """The largest number that a process has; all processes must ask together. No accelerator waits for it.

    Example:
        >>> max_over_processes(15)  # of the only process
        15
    """
    if process_share()[1] == 1:
        return number
    value = torch.tensor(number)
    dist.all_reduce(value, op=dist.ReduceOp.MAX, group=_cpu_group(dist.group.WORLD))
    return int(value)


@functools.cache
def _cpu_group(world: dist.ProcessGroup) -> dist.ProcessGroup:
    return world if dist.get_backend(world) == "gloo" else dist.new_group(backend="gloo")


def split_batch(
    total: int | None, per_device: int | None, accumulation: int | None, *, processes: int
) -> tuple[int, int]:
    """Splits the images of an optimizer step over processes, and over time where a process takes fewer at once.

    Args:
        total (`int`, *optional*): Images per optimizer step; it grows with the number of processes if not given.
        per_device (`int`, *optional*), accumulation (`int`, *optional*): Images per process at a time, and how often.
            What is not given follows from the total; without one they are 8 and 1.

    Returns:
        `tuple[int, int]`: Images per process at a time, and how often.

    Raises:
        ValueError: for a total that cannot be split so; the message has numbers that can.

    Example:
        >>> split_batch(256, None, None, processes=8), split_batch(256, 16, None, processes=8)
        ((32, 1), (16, 2))
    """
    if total is None:
        return per_device or 8, accumulation or 1

    unit = (per_device or 1) * (accumulation or 1) * processes  # what the total has to be a multiple of
    is_settled = per_device is not None and accumulation is not None
    if total % unit or (is_settled and total != unit):
        below, above = total // unit * unit, -(-total // unit) * unit
        totals = [unit] if is_settled else sorted({below or above, above})
        sizes = f"{processes} processes with {per_device or 'any number of'} images at a time"
        if accumulation is not None:
            sizes += f", {accumulation} times"
        fitting = [size for size in range(1, total + 1) if total % (size * processes) == 0]
        nearest = min(fitting, key=lambda size: abs(size - (per_device or size)), default=None)
        advice = f" or per_device_train_batch_size={nearest} alone" if per_device and nearest else ""
        raise ValueError(
            f"You passed total_train_batch_size={total}, which does not come out of {sizes}. Pass "
            f"total_train_batch_size={' or '.join(map(str, totals))},{advice}".rstrip(",")
            + "."
        )

    if per_device is None:
        return total // unit, accumulation or 1
    return per_device, total // (per_device * processes)


def leave() -> None:
    """Ends this process, whose work is done, where it is one of several that gloo joins; else does nothing.

    Gloo's own end, at exit or by `destroy_process_group`, aborts or hangs now and then, and a run that went well would
    be reported as failed. What is to be done at exit, such as the last words of trackers, is done.
    """
    if process_share()[1] == 1 or dist.get_backend() != "gloo":
        return
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
