"""Segmentation: every pixel is given a class by its name, clean and under attack; mean IoU and pixel accuracy."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..attacks.dense_checks import check_dense
from ..data.segmentation_sets import IGNORED
from ..fingerprints import digest_of_list
from ..zero_shot.readout_spec import ReadoutSpec
from ..zero_shot.segmenter import Segmenter
from .figure import MEAN_IOU, PIXEL_ACCURACY, Figure
from .heads import Head
from .judge import Batch, Judge, check_finite
from .outcomes import worst_case
from .plan import Plan, group_of
from .reader import Reader
from .verdicts import CLEAN, PIXELS, Judged, Verdicts

# The end of the keys in the verdict file of images rounded to 8 bits.
_ROUNDED = " 8 bit"
Counts = list[Any]  # `[labelled, [[class, intersection, union], ...]]` of one image


def count_pixels(predicted: torch.Tensor, masks: torch.Tensor) -> list[Counts]:
    """Counts the pixels of each image, of which those that are ignored count nowhere.

    Args:
        predicted (`torch.Tensor`): Classes, `[B,H,W]`.
        masks (`torch.Tensor`): The right ones, `[B,H,W]`, `IGNORED` where nothing is.

    Returns:
        list: By image, how many pixels are labelled, and of each class that is in mask or prediction the pixels that
        are in both and in either: `[labelled, [[class, intersection, union], ...]]`.

    Example:
        >>> count_pixels(torch.tensor([[[0, 0, 2, 1]]]), torch.tensor([[[0, 1, 2, IGNORED]]]))
        [[3, [[0, 1, 2], [1, 0, 1], [2, 1, 1]]]]
    """
    counts = []
    for of_image, mask in zip(predicted.cpu(), masks.cpu(), strict=True):
        is_labelled = mask != IGNORED
        of_image, mask = of_image[is_labelled], mask[is_labelled]
        size = 1 + max(of_image.amax().item(), mask.amax().item()) if len(mask) else 0
        intersections = torch.bincount(mask[of_image == mask], minlength=size)
        unions = torch.bincount(mask, minlength=size) + torch.bincount(of_image, minlength=size) - intersections
        classes = unions.nonzero().squeeze(1).tolist()
        counts.append([len(mask), [[k, intersections[k].item(), unions[k].item()] for k in classes]])
    return counts


def judge_segmentation(judge: Judge, segmenter: Segmenter, plan: Plan, reader: Reader) -> None:
    """Notes what pixels of each image are right, clean and under each attack. Every image is attacked to the end.

    Raises:
        ValueError: if no pixel of the images is labelled.
    """
    device = segmenter.device
    judge.check_images(reader, plan.rows)

    looked_at = judge.batches(reader, CLEAN, plan.rows, plan.rows, _share_right, device=device, with_digests=True)
    for batch in looked_at:
        judge.note(reader, PIXELS, batch.rows, batch.digests)
        judge.note(reader, CLEAN, batch.rows, _counts(segmenter, batch, batch.images, plan.name))
    clean = judge.verdicts.of(plan.name, CLEAN)
    if not any(clean[row][0] for row in plan.rows):
        raise ValueError(
            f"You passed {plan.name!r}, in whose {len(plan.rows)} masks every pixel is ignored, so that there is "
            "nothing to be right or wrong. Check what its masks mean, and `ignore_index`."
        )

    for spec in plan.attacks:
        for batch in judge.batches(reader, spec.name, plan.rows, plan.rows, _share_right, device=device):
            adversarial = judge.attack_pixels(spec, segmenter, batch)
            if judge.eight_bit:
                rounded = spec.round_to_8_bits(batch.images, adversarial)
                judge.note(reader, spec.name + _ROUNDED, batch.rows, _counts(segmenter, batch, rounded, plan.name))
            judge.note(reader, spec.name, batch.rows, _counts(segmenter, batch, adversarial, plan.name))


def judged_segmentation(
    plan: Plan, verdicts: Verdicts, headline: str, any_iterate: bool, eight_bit: bool
) -> list[Judged]:
    """Mean IoU and pixel accuracy, from the counts of pixels of each image.

    Under any iterate an image counts by the attack of its norm, of this radius or a smaller one, or the clean image,
    that leaves least of its pixels right.
    """
    return [
        _judged(figure, plan, verdicts, headline, any_iterate, eight_bit)
        for figure in (Figure(MEAN_IOU), Figure(PIXEL_ACCURACY))
    ]


def _judged(
    figure: Figure, plan: Plan, verdicts: Verdicts, headline: str, any_iterate: bool, eight_bit: bool
) -> Judged:
    def noted(key: str) -> list[Any]:
        values = verdicts.of(plan.name, key)
        return [_outcome(figure, values[row]) for row in plan.rows]

    clean = noted(CLEAN)
    masks: dict[str, list[Any]] = {}
    met: dict[str, list[Any]] = {}
    for spec in plan.attacks:
        masks[spec.name] = noted(spec.name)
        if any_iterate:
            group = group_of(spec)
            met[group] = worst_case(met.get(group, clean), masks[spec.name])
            masks[spec.name] = met[group]

    rounded = None
    if eight_bit:
        columns = [clean] if any_iterate else []
        rounded = worst_case(*columns, *(noted(name + _ROUNDED) for name in plan.leading_to(headline)))

    names = plan.texts if figure.kind == MEAN_IOU else None
    name = f"{plan.name} {figure.title}"
    return Judged(name, len(plan.texts), list(plan.rows), clean, masks, rounded, figure, names)


def _outcome(figure: Figure, counts: Counts) -> list[Any]:
    """What a figure is summed up from: the counts of each class, or those of all pixels."""
    labelled, by_class = counts
    if figure.kind == MEAN_IOU:
        return by_class
    return [sum(intersection for _, intersection, _ in by_class), labelled]


@torch.no_grad()
def _counts(segmenter: Segmenter, batch: Batch, images: torch.Tensor, name: str) -> list[Counts]:
    logits = segmenter(images)
    check_finite(logits, name, batch.rows)
    return count_pixels(segmenter.predict(logits), batch.labels)


def _share_right(counts: Counts) -> float:
    """Which share of the labelled pixels of an image is right; all of none."""
    labelled, by_class = counts
    return sum(intersection for _, intersection, _ in by_class) / labelled if labelled else 1.0


# ---- Checks and protocol ----


def check_segmentation(
    plan: Plan, model: nn.Module, readout: ReadoutSpec, head: Head | None, attack_precision: str, compile: str | None
) -> None:
    """Raises `ValueError` for what cannot serve where pixels are segmented, before any of them is.

    These are a model without the readout, attacks that know no pixels, images smaller than a window, masks that cannot
    be used, and options of evaluation that are for whole images.
    """
    options = {
        "a head": head is not None,
        f"attack_precision={attack_precision!r}": attack_precision != "fp32",
        f"compile={compile!r}": compile is not None,
    }
    for option, is_passed in options.items():
        if is_passed:
            raise ValueError(
                f"You passed {option} with {plan.name!r}, whose pixels are segmented, where it cannot serve. Leave it "
                "out."
            )
    for spec in plan.attacks:
        check_dense(spec)

    window = readout.describe(model)["window"]
    for row in plan.rows:
        height, width = plan.data.size_of(row)
        if min(height, width) < window:
            raise ValueError(
                f"The image in row {row} of {plan.name!r} has {height} x {width} pixels, but the windows of the model "
                f"{window} x {window}. Pass short_edge={window} or more, to which images are resized."
            )
    plan.data.check_masks(plan.rows)


def describe_segmentation(plan: Plan, model: nn.Module, readout: ReadoutSpec) -> dict[str, Any]:
    """What the protocol says of a segmented set, beside what stands there of any."""
    data = plan.data
    return {
        **readout.describe(model),
        "names": digest_of_list([[name for name in names] for names in data.synonyms]),
        "background_threshold": data.background_threshold,
        "short_edge": data.short_edge,
    }
