"""Means of named values over samples and processes, for the logs; and whether every loss was finite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from ..distributed import process_share, sum_over_processes


class RunningMeans:
    """Adds up means of batches, weighted by their sizes, until the means over all samples are asked for.

    Everything stays on the device, and nothing waits for it, before [`RunningMeans.pop`] or
    [`RunningMeans.all_finite`] is called. These two exchange numbers, so all processes must call them together.

    Args:
        device (`torch.device`): Where the values are.

    Example:
        >>> means = RunningMeans(torch.device("cpu"))
        >>> means.add({"loss": torch.tensor(1.0)}, count=3)
        >>> means.add({"loss": torch.tensor(2.0)}, count=1)
        >>> means.pop()
        {'loss': 1.25}
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.clear()

    def clear(self) -> None:
        """Forgets all values, and that a loss was not finite."""
        self._sums: dict[str, torch.Tensor] = {}
        self._finite = torch.ones((), device=self.device)

    def __contains__(self, name: str) -> bool:
        return name in self._sums

    @torch.no_grad()
    def add(self, means: Mapping[str, torch.Tensor], count: int) -> None:
        """Adds the means of a batch of `count` samples, each a tensor of one number."""
        for name, mean in means.items():
            entry = torch.stack([mean * count, mean.new_full((), count)])
            self._sums[name] = self._sums[name] + entry if name in self._sums else entry

    @torch.no_grad()
    def note_finite(self, values: Iterable[torch.Tensor]) -> None:
        """Notes whether all of these values, of any shape, are finite."""
        finite = torch.stack([torch.isfinite(value).all() for value in values]).all()
        self._finite = self._finite * finite.to(self.device)

    def pop(self) -> dict[str, float]:
        """The means over all samples of all processes since the last call, by name; then they are forgotten."""
        names = sorted(self._sums)
        if not names:
            return {}
        sums = sum_over_processes(torch.stack([self._sums[name] for name in names]))
        self._sums = {}
        return {name: total / count for name, (total, count) in zip(names, sums.tolist(), strict=True)}

    def all_finite(self) -> bool:
        """Whether whatever was noted was finite, on all processes."""
        return sum_over_processes(self._finite).item() == process_share()[1]

    def tensors(self) -> list[torch.Tensor]:
        """Everything that is kept on the device."""
        return [*self._sums.values(), self._finite]
