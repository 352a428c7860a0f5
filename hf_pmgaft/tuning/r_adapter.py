"""R-Adapter: linear adapters in both towers, which fold into the layers that they follow."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from ..noise import sample_seeds, uniform_noise
from .base import Attachment, Tuning, detach

# The modules of a block that an adapter follows, and the linear layer that each ends in.
FOLLOWED = {"self_attn": "out_proj", "mlp": "fc2"}
DROP_STREAM = 700


@dataclass
class RAdapter(Tuning):
    """R-Adapter: linear adapters after attention and MLP of each block of both towers (arXiv 2408.05749, second-hand).

    Equation: `h(X) = X W + X`, before the residual is added *(inferred)*, W square and without bias, zero at the start
    *(inferred)*. In training an adapter is dropped with probability `drop`: `m / (1 - drop) X W + X`, m Bernoulli; one
    draw per adapter and step, from the run's seed. At test W is multiplied by `rescale`, and `y = x A^T + b` before it
    takes it in exactly: `A <- (rescale W + I)^T A`, `b <- (rescale W + I)^T b`.

    Authors' settings: `ema_decay=0.999`, AdamW 5e-4, no weight decay.

    Args:
        drop (`float`): Probability of dropping an adapter in training.
        rescale (`float`): Factor of W at test. Authors: 0.5 for classification, 0.8 for retrieval.

    Example:
        >>> from hf_pmgaft import fold_into_clip
        >>> tuned = RAdapter(drop=0.2).prepare(model)
        >>> len(tuned.tuning.adapters)  # two in each of three blocks
        6
        >>> "tuning" in fold_into_clip(tuned)._modules
        False
    """

    drop: float = 0.2
    rescale: float = 0.5

    def __post_init__(self):
        if not 0 <= self.drop < 1:
            raise ValueError(f"You passed drop={self.drop}, which is no probability below 1. Pass one from 0 to 1.")

    def prepare(self, model: nn.Module) -> nn.Module:
        return LinearAdapters(self, model).attach(model)

    def describe(self) -> str:
        return "R-Adapter in both towers"


class LinearAdapters(Attachment):
    """The adapters of a model, by the path of the module whose output they change; dots become dashes.

    Attributes:
        drop_factors (`dict[str, float]`): What each adapter is multiplied by in this step of training: 0 if it is
            dropped, else `1 / (1 - drop)`.

    Example:
        >>> adapters = LinearAdapters(RAdapter(drop=0.5), model)
        >>> adapters.draw(seed=0, step=1)
        >>> set(adapters.drop_factors.values()) <= {0.0, 2.0}
        True
    """

    folds = True

    def __init__(self, options: RAdapter, model: nn.Module):
        super().__init__(options)
        adapters = {}
        for tower in ("text_model", "vision_model"):
            for block, layer in enumerate(getattr(model, tower).encoder.layers):
                for module in FOLLOWED:
                    adapters[f"{tower}-encoder-layers-{block}-{module}"] = LinearAdapter(layer.embed_dim)
        self.adapters = nn.ModuleDict(adapters)
        self.drop_factors = dict.fromkeys(adapters, 1.0)

    def add_hooks(self, model: nn.Module) -> None:
        for name in self.adapters:
            model.get_submodule(_path(name)).register_forward_hook(partial(self._adapt, name))

    def draw(self, seed: int, step: int) -> None:
        seeds = sample_seeds(seed, step, torch.arange(len(self.adapters)))
        stays = uniform_noise(seeds, (1,), DROP_STREAM).flatten() >= self.options.drop
        factors = [stay / (1 - self.options.drop) for stay in stays.tolist()]
        self.drop_factors = dict(zip(self.adapters, factors, strict=True))

    def _adapt(self, name: str, module: nn.Module, args, output):
        if not self.enabled:
            return output
        adapter = self.adapters[name]
        factor = self._factor(name)
        if isinstance(output, tuple):  # attention gives its weights too
            return adapter(output[0], factor), *output[1:]
        return adapter(output, factor)

    def _factor(self, name: str) -> float:
        if self.at_test:
            return self.options.rescale
        return self.drop_factors[name] if self.training else 1.0

    @torch.no_grad()
    def fold(self, model: nn.Module) -> nn.Module:
        plain = copy.deepcopy(model)
        for name, adapter in plain.tuning.adapters.items():
            path = _path(name)
            linear = plain.get_submodule(f"{path}.{FOLLOWED[path.rpartition('.')[2]]}")
            change = self.options.rescale * adapter.weight
            change += torch.eye(len(change), dtype=change.dtype, device=change.device)
            linear.weight.copy_(change.T @ linear.weight)
            linear.bias.copy_(change.T @ linear.bias)
        return detach(plain)


class LinearAdapter(nn.Module):
    """Computes `h(X) = factor X W + X`."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, width))

    def forward(self, hidden: torch.Tensor, factor: float) -> torch.Tensor:
        return factor * (hidden @ self.weight.to(hidden.dtype)) + hidden


def _path(name: str) -> str:
    """The path of the module that an adapter follows; names in a `ModuleDict` may hold no dots."""
    return name.replace("-", ".")
