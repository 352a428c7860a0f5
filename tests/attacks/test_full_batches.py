"""Walks in full batches: an image fares as it does alone, and no place stays empty while something waits for it."""

import pytest
import torch

from hf_pmgaft.attacks import correct, first_fooled, pgd
from hf_pmgaft.attacks.apgd import apgd_t_walk
from hf_pmgaft.attacks.full_batches import FullBatches, walk_all
from hf_pmgaft.attacks.pgd import pgd_walk
from hf_pmgaft.attacks.usage import Usage
from hf_pmgaft.attacks.walk import Ended, Lot

EPS = 8 / 255
COUNT = 23
CLASSES = 5


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(COUNT, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2


@pytest.fixture
def classifier(images):
    """Logits that bend, by sums over each row alone, so that neighbours cannot change its rounding.

    The first class leads by more and more from image to image: some fall at once, some late, some never.
    """
    weights = torch.randn(CLASSES, 48, generator=torch.Generator().manual_seed(1))

    def logits(points: torch.Tensor) -> torch.Tensor:
        flat = points.flatten(1)
        return torch.stack([(torch.sin(3 * flat + weight) * weight).sum(1) for weight in weights], dim=1)

    clean = logits(images)
    lead = clean[:, 1:].amax(1) - clean[:, 0] + torch.linspace(0.05, 12.0, COUNT)

    def classify(points: torch.Tensor) -> torch.Tensor:
        # An image tells by its first pixel which one it is.
        row = (points[:, None, 0, 0, 0] - images[:, 0, 0, 0]).abs().argmin(1)
        return logits(points) + torch.nn.functional.one_hot(torch.zeros_like(row), CLASSES) * lead[row, None]

    return classify


@pytest.fixture(autouse=True)
def known_rows(images):
    """The first pixels are so far apart that no ball mixes them up, without a gradient of their own."""
    images[:, 0, 0, 0] = torch.linspace(0, 1, COUNT)


class Counted:
    """A classifier that notes how many images each pass had, and whether it was made for a gradient."""

    def __init__(self, classifier):
        self.classifier = classifier
        self.passes: list[tuple[int, bool]] = []

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        self.passes.append((len(points), points.requires_grad))
        return self.classifier(points)

    @property
    def sizes(self) -> list[int]:
        return [size for size, _ in self.passes]


def lots_of(images: torch.Tensor, size: int) -> list[Lot]:
    labels, seeds = torch.zeros(len(images), dtype=torch.long), torch.arange(len(images))
    rows = torch.arange(len(images)).split(size)
    return [Lot(part.tolist(), images[part], labels[part], seeds[part]) for part in rows]


def run(walk, classifier, images, size: int, lot: int = 4, **options) -> Ended:
    """All images, in the order of their rows."""
    batches = FullBatches(walk, classifier, eps=EPS, norm="linf", size=size, **options)
    ended = Ended.join(list(batches.run(lots_of(images, lot))))
    order = torch.tensor(ended.rows).argsort()
    names = ("images", "labels", "points", "fooled")
    return Ended(sorted(ended.rows), *(getattr(ended, name)[order] for name in names))


OPTIONS = [
    {"num_steps": 12},
    {"num_steps": 12, "loss": "margin", "momentum": 0.9},
    {"num_steps": 5, "restarts": 3},
    {"num_steps": 6, "random_start": False, "loss": "dlr"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("size", [1, 3, 64])
def test_an_image_fares_as_it_does_alone(classifier, images, options, size):
    labels, seeds = torch.zeros(COUNT, dtype=torch.long), torch.arange(COUNT)
    adversarial = first_fooled(pgd, classifier, images, labels, eps=EPS, norm="linf", seeds=seeds, **options)
    fooled = ~correct(classifier(adversarial), labels)
    assert 0 < fooled.sum() < COUNT

    walk = pgd_walk(eps=EPS, **options)
    ended = run(walk, classifier, images, size, in_order=True)
    assert ended.rows == list(range(COUNT)) and torch.equal(ended.images, images)
    assert torch.equal(ended.fooled, fooled)
    assert torch.equal(ended.points[fooled], adversarial[fooled])
    if "restarts" not in options:  # of which `pgd` returns the strongest
        assert torch.equal(ended.points, adversarial)


def test_no_place_is_empty_while_something_waits(classifier, images):
    counted, usage = Counted(classifier), Usage(size=4)
    run(pgd_walk(eps=EPS, num_steps=12), counted, images, size=4, usage=usage)
    sizes = counted.sizes
    assert (usage.passes, usage.images) == (len(sizes), sum(sizes))
    assert usage.waiting_fill == 1 and usage.waiting_passes > 20
    assert max(sizes) == 4 and sizes.index(3) >= usage.waiting_passes - 1  # only the end drains


@pytest.mark.parametrize(("count", "waiting"), [(3, (0, 0)), (7, (1, 4))], ids=["the only lot", "one of two"])
def test_places_of_a_first_look_are_empty_only_if_more_images_come(classifier, images, count, waiting):
    """Lots of four images, which are looked at before they are attacked, in a batch of eight."""
    usage, counted = Usage(size=8), Counted(classifier)
    run(pgd_walk(eps=EPS, num_steps=2), counted, images[-count:], size=8, lot=4, looks_at_images=True, usage=usage)
    assert (usage.passes, usage.images) == (len(counted.sizes), sum(counted.sizes))
    assert (usage.waiting_passes, usage.waiting_images) == waiting


def test_walks_of_an_image_fill_places_that_would_be_empty(classifier, images):
    walk = apgd_t_walk(eps=EPS, num_steps=10, num_classes=CLASSES)
    beside, after = Counted(classifier), Counted(classifier)
    one = run(walk, beside, images[-3:], size=12)
    other = run(walk, after, images[-3:], size=12, side_by_side=False)
    assert torch.equal(one.fooled, other.fooled) and not one.fooled.any()
    assert sum(beside.sizes) == sum(after.sizes)
    assert len(beside.sizes) < len(after.sizes) / 3 and max(beside.sizes) == 12


def test_the_point_is_that_of_the_earliest_walk_if_it_is_asked_for(classifier, images):
    walk = pgd_walk(eps=EPS, num_steps=5, restarts=4)
    one_by_one = run(walk, classifier, images, size=3, side_by_side=False)
    beside = run(walk, classifier, images, size=64, in_order=True)
    whatever = run(walk, classifier, images, size=64)
    assert torch.equal(beside.fooled, one_by_one.fooled) and torch.equal(whatever.fooled, one_by_one.fooled)
    fooled = one_by_one.fooled
    assert torch.equal(beside.points[fooled], one_by_one.points[fooled])
    assert not torch.equal(whatever.points[fooled], one_by_one.points[fooled])
    assert not correct(classifier(whatever.points[fooled]), whatever.labels[fooled]).any()


def test_the_walks_of_a_fooled_image_leave_with_it(classifier, images):
    walk = pgd_walk(eps=EPS, num_steps=50, step_size="1/255", restarts=8)
    counted = Counted(classifier)
    ended = run(walk, counted, images[:1], size=8)
    assert ended.fooled.all() and max(counted.sizes) == 8 and len(counted.sizes) < 50


def test_last_points_are_looked_at_together_and_without_a_gradient(classifier, images):
    counted = Counted(classifier)
    run(pgd_walk(eps=EPS, num_steps=3), counted, images[-8:], size=4)
    without = [size for size, has_gradient in counted.passes if not has_gradient]
    assert without == [4, 4] and counted.sizes.count(4) == len(counted.sizes) == 8


def test_a_lot_is_taken_when_a_place_is_free(classifier, images):
    taken, passes = [], Counted(classifier)

    def lots():
        for lot in lots_of(images[-6:], 2):
            taken.append(len(passes.passes))
            yield lot

    batches = FullBatches(pgd_walk(eps=EPS, num_steps=4), passes, eps=EPS, norm="linf", size=2)
    assert [ended.rows for ended in batches.run(lots())] == [[0, 1], [2, 3], [4, 5]]
    assert taken == [0, 4, 9]  # after four steps and, the second time, the last points of the ones before


def test_an_image_goes_on_with_its_next_walk_before_others_come(classifier, images):
    taken, passes = [], Counted(classifier)

    def lots():
        for lot in lots_of(images[-4:], 2):
            taken.append(len(passes.passes))
            yield lot

    walk = pgd_walk(eps=EPS, num_steps=4, restarts=2)
    assert len(list(FullBatches(walk, passes, eps=EPS, norm="linf", size=2).run(lots()))) == 2
    assert taken == [0, 9]  # after two walks, and the last points of the first ones


def test_no_more_images_are_on_their_way_than_wanted(classifier, images):
    counted = Counted(classifier)
    run(pgd_walk(eps=EPS, num_steps=4), counted, images, size=8, images_at_once=2)
    assert max(counted.sizes) == 2


def test_more_last_points_may_wait_than_a_batch_holds_while_no_walk_has_a_place(classifier, images):
    walk = pgd_walk(eps=EPS, num_steps=3, step_size="2/255", restarts=2)

    def fooled(images: torch.Tensor, passes: Counted, size: int) -> list[bool]:
        labels = torch.zeros(len(images), dtype=torch.long)
        lot = Lot(list(range(len(images))), images, labels, seeds=labels)  # equal draws whatever the company
        batches = FullBatches(walk, passes, eps=EPS, norm="linf", size=size, side_by_side=False)
        ended = Ended.join(list(batches.run([lot])))
        return ended.fooled[torch.tensor(ended.rows).argsort()].tolist()

    cases: dict[tuple[bool, int], list[int]] = {}
    for row in range(COUNT):
        passes = Counted(classifier)
        case = (*fooled(images[row : row + 1], passes, size=1), len(passes.passes))
        cases.setdefault(case, []).append(row)
    before, at_last, never = cases[True, 3], cases[True, 4], cases[False, 8]

    # Six last points wait. The four that are looked at first are fooled, and the others begin again.
    chosen = at_last[:3] + before[:1] + at_last[3:4] + never[:2]
    assert fooled(images[chosen], Counted(classifier), size=4) == [True] * 5 + [False] * 2


def test_a_batch_comes_back_with_its_misclassified_images_as_they_are(classifier, images):
    labels = torch.zeros(COUNT, dtype=torch.long)
    labels[4] = 2
    walk = pgd_walk(eps=EPS, num_steps=8)
    adversarial = walk_all(walk, classifier, images, labels, torch.arange(COUNT), EPS, "linf")
    changed = (adversarial != images).flatten(1).any(1)
    assert not changed[4] and 0 < changed.sum() < COUNT
    assert torch.equal(changed, ~correct(classifier(adversarial), labels) & (labels == 0))
    assert (adversarial - images).abs().amax() <= EPS + 1e-6


# ---- What cannot be ----


def test_logits_that_are_not_numbers_give_no_verdict(classifier, images):
    passes = Counted(classifier)

    def breaks_later(points):
        logits = passes(points)
        return logits.where(torch.tensor(len(passes.passes) < 3), torch.nan)

    for broken in (lambda points: classifier(points) * torch.nan, breaks_later):
        with pytest.raises(FloatingPointError, match="NaN or infinite"):
            run(pgd_walk(eps=EPS), broken, images, size=4)


def test_logits_without_a_gradient_are_refused(classifier, images):
    with pytest.raises(ValueError, match="without a gradient"):
        run(pgd_walk(eps=EPS), lambda points: classifier(points).detach(), images, size=4)
    with pytest.raises(ValueError, match="no gradient at the images"):
        leaf = torch.zeros(1, requires_grad=True)
        run(pgd_walk(eps=EPS), lambda points: classifier(points.detach()) + leaf, images, size=4)


def test_labels_outside_the_classes_are_refused(images, classifier):
    lot = Lot([0], images[:1], torch.tensor([CLASSES]), torch.tensor([0]))
    batches = FullBatches(pgd_walk(eps=EPS), classifier, eps=EPS, norm="linf", size=4)
    with pytest.raises(ValueError, match=f"labels up to {CLASSES}, but the classifier has {CLASSES} classes"):
        list(batches.run([lot]))


def test_parameters_and_modes_are_as_before(images):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(), torch.nn.Linear(48, CLASSES)).train()
    labels = model.eval()(images).argmax(1)
    model.train()
    lot = Lot(list(range(COUNT)), images, labels, torch.arange(COUNT))
    list(FullBatches(pgd_walk(eps=EPS), model, eps=EPS, norm="linf", size=4).run([lot]))
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
