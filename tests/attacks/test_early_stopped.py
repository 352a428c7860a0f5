"""PGD that stops early, against the iterates of PGD."""

import pytest
import torch

from hf_pmgaft.attacks import early_stopped_pgd, pgd
from hf_pmgaft.attacks.spec import AttackSpec


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_image_stops_early_at_its_iterate_and_leaves_the_batch(small, norm, momentum):
    net, images, _ = small
    labels = net(images).argmax(1)
    labels[0] = (labels[0] + 1) % 5  # misclassified from the start
    num_steps, eps = 8, {"linf": 0.02, "l2": 0.3}[norm]
    options = {"eps": eps, "norm": norm, "step_size": eps / 4, "momentum": momentum}
    iterates = [pgd(net, images, labels, num_steps=steps, **options) for steps in range(1, num_steps + 1)]
    start = pgd(net, images, labels, num_steps=1, **{**options, "step_size": 0.0})
    iterates = torch.stack([start, *iterates])
    wrong = torch.stack([net(points).argmax(1) != labels for points in iterates])[:-1]  # those that are walked on from
    seeds = torch.arange(8)
    for tau in (0, 1, 3):
        # The first iterate that is misclassified after tau others were; the last one where there is none.
        stops = (wrong & (wrong.cumsum(0) == tau + 1)).int()
        ends = torch.where(stops.any(0), stops.argmax(0), num_steps)
        assert len(ends.unique()) > 2 and (ends == num_steps).any() and (ends < num_steps).any()
        rows = []

        def counting(points, rows=rows):
            rows.append(len(points))
            return net(points)

        adversarial = early_stopped_pgd(counting, images, labels, num_steps=num_steps, tau=tau, **options)
        torch.testing.assert_close(adversarial, iterates[ends, seeds], rtol=0, atol=1e-6)
        # An image that stops at iterate t is looked at t + 1 times.
        assert sum(rows) == (ends + 1).clamp_max(num_steps).sum() < 8 * num_steps
        one = early_stopped_pgd(
            net, images[3:4], labels[3:4], num_steps=num_steps, tau=tau, seeds=seeds[3:4], **options
        )
        torch.testing.assert_close(one, adversarial[3:4], rtol=0, atol=1e-6)


def test_an_early_stop_that_no_image_reaches_is_the_plain_walk(small):
    net, images, labels = small
    options = {"eps": 0.1, "num_steps": 5}
    assert torch.equal(early_stopped_pgd(net, images, labels, tau=5, **options), pgd(net, images, labels, **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": True}, "tau=True"),
        ({"tau": 0.5}, "tau=0.5"),
        ({"tau": 0, "loss_fn": lambda x: x.sum((1, 2, 3))}, "tau with loss_fn"),
    ],
    ids=["true", "a half", "loss_fn"],
)
def test_an_early_stop_where_it_cannot_work_is_refused(small, options, message):
    net, images, labels = small
    with pytest.raises(ValueError, match=message):
        early_stopped_pgd(net, images, labels, eps=0.1, **options)


def test_an_early_stop_is_no_attack_of_several_runs_and_none_for_the_verdict_of_any_iterate(small):
    net, images, labels = small
    with pytest.raises(ValueError, match="tau with restarts"):
        AttackSpec.of({"attack": "pgd", "eps": 0.1, "tau": 0, "restarts": 2})
    spec, seeds = AttackSpec.of({"attack": "pgd", "eps": 0.1, "tau": 0}), torch.arange(8)
    with pytest.raises(ValueError, match="tau with the verdict any_iterate"):
        spec.run(net, images, labels, seeds, any_iterate=True)
    expected = early_stopped_pgd(net, images, labels, eps=0.1, tau=0, seeds=seeds)
    assert torch.equal(spec.run(net, images, labels, seeds), expected)
