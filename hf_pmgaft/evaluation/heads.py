"""Heads that classify by labelled images instead of class names, for encoders with a text tower or without one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..data.evaluation_sets import ZeroShotDataset
from ..fingerprints import digest
from ..modes import at_least_float32
from ..registry import check_count
from ..zero_shot.classifier import ZeroShotClassifier
from .loaded import Loaded
from .reader import Reader


@dataclass
class Head:
    """Makes a classifier of an encoder's frozen features, from a support set with the classes of the evaluation set.

    Args:
        support (`ZeroShotDataset` or `dict`): Labelled images, of which none should be evaluated; a `dict` has one set
            for each evaluation set, by its name.
        batch_size (`int`): Support images at once.
        num_workers (`int`): Processes that read support images ahead; 0 reads them in this one.

    Example:
        >>> from hf_pmgaft import LinearProbe, ZeroShotDataset
        >>> support = ZeroShotDataset(dataset, processor, name="support")
        >>> head = LinearProbe({"food": support}, c=10.0)  # for the set that is called food
        >>> isinstance(head, Head), head.options()
        (True, {'c': 10.0, 'max_iter': 500})
    """

    support: ZeroShotDataset | Mapping[str, ZeroShotDataset]
    batch_size: int = 64
    num_workers: int = field(default=0, kw_only=True)
    # Of the support set that was read last: its digest and its features are of the same images.
    _reader: Reader | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self):
        check_count("batch_size", self.batch_size)
        check_count("num_workers", self.num_workers, least=0)

    def fit(self, model: nn.Module, processor: Any, data: ZeroShotDataset) -> ZeroShotClassifier:
        """The classifier for `data`: images in [0,1] `[B,3,H,W]` -> logits `[B,K]`, attacked as any other.

        Args:
            model: Image or dual encoder, in eval mode.
            processor: Its pixel statistics are used.
            data (`ZeroShotDataset`): Its name and class names are used, none of its images.

        Raises:
            ValueError: if there is no support for the set, or it has other classes or none of one.
        """
        support = self._support(data)
        num_classes = len(data.class_names)
        device = next(model.parameters()).device
        encoder = ZeroShotClassifier.from_model(model, processor, torch.zeros(0, 1, device=device))

        features, labels = [], []
        with torch.no_grad():
            for batch in self._batches(support):
                batch = batch.to(device)
                features.append(F.normalize(at_least_float32(encoder.embed(batch.images)), dim=-1))
                labels.append(batch.labels)
        targets = torch.cat(labels)

        missing = sorted(set(range(num_classes)) - set(targets.tolist()))
        if missing:
            raise ValueError(
                f"The support set {support.name!r} has no image of {len(missing)} of the {num_classes} classes, such "
                f"as {data.class_names[missing[0]]!r}. Pass at least one image of every class."
            )
        weight, scale, bias = self.solve(torch.cat(features), targets, num_classes)
        return encoder.replace(class_embeds=weight, logit_scale=scale, logit_bias=bias)

    def solve(
        self, features: torch.Tensor, labels: torch.Tensor, num_classes: int
    ) -> tuple[torch.Tensor, float, float | torch.Tensor]:
        """Unit features `[N,D]` and labels `[N]` -> `W [K,D], s, b`, for logits `s W f + b` of unit features `f`."""
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        """Further options that the protocol should name."""
        return {}

    def describe(self, sets: Sequence[ZeroShotDataset]) -> dict[str, Any]:
        """The head for the protocol of an evaluation: its name, options, and the support of each set with a digest."""
        support = {data.name: self._describe_support(self._support(data)) for data in sets}
        return {"name": type(self).__name__, **self.options(), "support": support}

    def _support(self, data: ZeroShotDataset) -> ZeroShotDataset:
        support = self.support.get(data.name) if isinstance(self.support, Mapping) else self.support
        if support is None:
            raise ValueError(
                f"The head has no support set for {data.name!r}; it has {sorted(self.support)}. Pass one for each set."
            )
        if support.class_names != data.class_names:
            raise ValueError(
                f"The support set {support.name!r} has other classes than {data.name!r}, or in another order. Pass "
                "labelled images of the same class list."
            )
        return support

    def _batches(self, support: ZeroShotDataset) -> Iterator[Loaded]:
        if self._reader is None or self._reader.data is not support:
            self._reader = Reader(support, self.num_workers)
        rows = _rows(support)
        lots = (rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size))
        with self._reader as reader:
            yield from reader.stream(lots)

    def _describe_support(self, support: ZeroShotDataset) -> dict[str, Any]:
        batches = (batch.to("cpu") for batch in self._batches(support))
        content = (batch.images.numpy().tobytes() + batch.labels.numpy().tobytes() for batch in batches)
        return {"num_samples": len(_rows(support)), "images": digest(content)}


@dataclass
class NearestClassMean(Head):
    """The class whose mean feature is nearest (iCaRL, Rebuffi et al., arXiv 1611.07725, algorithm 1).

    Features have unit norm, and so has the mean of a class after it is taken; the nearest is then the one of the
    largest cosine. Logits are 100 times the cosines, which changes no prediction.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset, evaluate_robustness
        >>> support = ZeroShotDataset(dataset.select(range(8)), processor, name="support")
        >>> food = ZeroShotDataset(dataset.select(range(8, 16)), processor, name="food")
        >>> head = NearestClassMean(support)
        >>> report = evaluate_robustness(model, processor, [food], ["fgsm,eps=1/255"], head=head, progress=False)
        >>> report.measure
        'Accuracy by NearestClassMean'
    """

    def solve(
        self, features: torch.Tensor, labels: torch.Tensor, num_classes: int
    ) -> tuple[torch.Tensor, float, float | torch.Tensor]:
        members = F.one_hot(labels, num_classes).to(features.dtype)
        return F.normalize(members.T @ features, dim=-1), 100.0, 0.0


@dataclass
class LinearProbe(Head):
    """Multinomial logistic regression on unit features (CLIP, arXiv 2103.00020, section 3.2 and appendix A.3).

    Minimises `sum_i CE(W f_i + b, y_i) + |W|^2 / (2 c)` by L-BFGS in float64, from zero, over all images at once.

    Args:
        c (`float`): Inverse strength of the penalty, as in scikit-learn. CLIP sweeps it on a validation set, around
            0.316 for features of norm 10 or so, which the default is for unit features.
        max_iter (`int`): Steps at most.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset
        >>> support = ZeroShotDataset(dataset, processor, name="support")
        >>> classifier = LinearProbe(support, c=10.0).fit(model, processor, data=support)
        >>> bool((classifier(images).argmax(1) == labels).all())
        True
    """

    c: float = 31.6
    max_iter: int = 500

    def options(self) -> dict[str, Any]:
        return {"c": self.c, "max_iter": self.max_iter}

    @torch.enable_grad()
    def solve(
        self, features: torch.Tensor, labels: torch.Tensor, num_classes: int
    ) -> tuple[torch.Tensor, float, float | torch.Tensor]:
        inputs = features.double()
        weight = inputs.new_zeros(num_classes, inputs.shape[1]).requires_grad_()
        bias = inputs.new_zeros(num_classes).requires_grad_()
        optimizer = torch.optim.LBFGS(
            [weight, bias], max_iter=self.max_iter, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
        )

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(inputs @ weight.T + bias, labels, reduction="sum")
            loss = loss + weight.square().sum() / (2 * self.c)
            loss.backward()
            return loss

        optimizer.step(closure)
        return weight.detach().to(features.dtype), 1.0, bias.detach().to(features.dtype)


HEADS: dict[str, type[Head]] = {"linear_probe": LinearProbe, "nearest_class_mean": NearestClassMean}


def make_head(
    name: str | None, support: Sequence[ZeroShotDataset], sets: Sequence[ZeroShotDataset], num_workers: int = 0
) -> Head | None:
    """The head that a command line names, with a support set for each evaluation set; `None` if it names none.

    Its images are read by `num_workers` processes.

    Raises:
        ValueError: for an unknown name, or support sets that are not one for each evaluation set.
    """
    if name is None and not support:
        return None
    if name not in HEADS or len(support) != len(sets):
        raise ValueError(
            f"You passed --head {name} with {len(support)} --support_sets for {len(sets)} evaluation sets. Pass "
            f"one of {', '.join(HEADS)}, and one set of labelled images for each of --eval_sets."
        )
    support_of = {data.name: of_set for data, of_set in zip(sets, support, strict=True)}
    return HEADS[name](support_of, num_workers=num_workers)


def _rows(support: ZeroShotDataset) -> Sequence[int]:
    """The rows of a support set that are used."""
    return range(len(support)) if support.sample_ids is None else support.sample_ids
