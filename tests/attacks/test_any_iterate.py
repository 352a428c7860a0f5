"""The first misclassified point inside the ball is kept, and ends the walk of its image."""

import pytest
import torch

from hf_pmgaft.attacks import AllFooled, AnyIterate, first_fooled, pgd


def classifier(images: torch.Tensor) -> torch.Tensor:
    """Two classes, by which of the first two pixels is brighter."""
    return images.flatten(1)[:, :2]


def image(first: float, second: float) -> torch.Tensor:
    return torch.tensor([first, second, 0.5, 0.5]).view(1, 1, 2, 2)


def test_the_first_misclassified_point_inside_the_ball_is_kept():
    images = torch.cat([image(0.6, 0.5), image(0.9, 0.1)])
    watch = AnyIterate(classifier, images, torch.tensor([0, 0]), eps=0.15, norm="linf")
    far, first, second = image(0.3, 0.5), image(0.5, 0.6), image(0.5, 0.65)
    for point in (far, first, second):
        watch(torch.cat([point, images[1:]]))
    assert watch.fooled.tolist() == [True, False]
    assert torch.equal(watch.adversarial, torch.cat([first, images[1:]]))


def test_an_image_that_is_fooled_costs_no_more_passes_and_sends_no_gradient():
    passes = []

    def counting(images):
        passes.append(len(images))
        return classifier(images)

    images = torch.cat([image(0.5, 0.6), image(0.9, 0.1)])
    watch = AnyIterate(counting, images, torch.tensor([0, 0]), eps=0.1, norm="linf")
    watch(images)
    points = images.clone().requires_grad_()
    logits = watch(points)
    assert passes == [2, 1]
    torch.testing.assert_close(logits, classifier(images))
    gradient = torch.autograd.grad(logits.sum(), points)[0]
    assert not gradient[0].any() and gradient[1].any()


def test_tries_after_the_one_that_fooled_their_image_cost_no_more_passes():
    passes = []

    def counting(images):
        passes.append(len(images))
        return classifier(images)

    right, wrong = image(0.6, 0.5), image(0.5, 0.55)
    images, tries = torch.cat([right] * 6), torch.tensor([0, 1, 0, 1, 0, 1])
    watch = AnyIterate(counting, images, torch.zeros(6, dtype=torch.long), eps=0.15, norm="linf", tries=tries)
    watch(torch.cat([right, right, wrong, right, right, right]))  # the second try fools image 0, so its third leaves
    logits = watch(
        torch.cat([wrong, right, right, right, right, wrong])
    )  # the first does, and the third fools image 1
    watch(torch.cat([wrong, right, right, right, right, wrong]))
    assert passes == [6, 4, 2]
    assert watch.fooled.tolist() == [True, False, True, False, False, True]
    torch.testing.assert_close(logits[4], classifier(right)[0])  # as it was when it left


def test_an_attack_ends_when_every_image_is_fooled():
    images = image(0.5, 0.6)
    watch = AnyIterate(classifier, images, torch.tensor([0]), eps=0.1, norm="linf")
    with pytest.raises(AllFooled):
        watch(images)


def test_no_verdict_is_given_on_logits_that_are_not_finite():
    watch = AnyIterate(lambda images: classifier(images) * torch.nan, image(0.6, 0.5), torch.tensor([0]), 0.1, "linf")
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        watch(image(0.6, 0.5))


def test_first_fooled_ends_each_walk_at_its_first_misclassified_point():
    images, labels = torch.cat([image(0.52, 0.5), image(0.9, 0.1)]), torch.tensor([0, 0])
    options = {"eps": 0.1, "norm": "linf", "num_steps": 5, "step_size": 0.02, "random_start": False, "loss": "margin"}
    last = pgd(classifier, images, labels, **options)
    kept = first_fooled(pgd, classifier, images, labels, **options)
    # One step of 0.02 turns the first image, the second is never turned.
    torch.testing.assert_close(kept[0], image(0.5, 0.52)[0])
    assert torch.equal(kept[1], last[1]) and not torch.equal(kept[0], last[0])
