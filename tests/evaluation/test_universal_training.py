"""A universal perturbation that is made on one set and judged on another."""

import copy
import json

import pytest
import torch
from support.masked import NAMES, make_masked
from support.sets import make_data
from support.tiny import make_images, make_model

from hf_pmgaft import AttackSpec, SegmentationDataset, ZeroShotDataset, evaluate_robustness
from hf_pmgaft.attacks import UniversalPerturbation
from hf_pmgaft.evaluation import train_universal, universal_training
from hf_pmgaft.evaluation.plan import Plan, group_of
from hf_pmgaft.fingerprints import fingerprint

OPTIONS = {"eps": "24/255", "step_size": "0.1eps", "epochs": 6, "batch_size": 8, "progress": False}


@pytest.fixture(scope="module")
def train_set(fitted):
    return ZeroShotDataset(make_images(24, seed=5), fitted[1], None, "a photo of the {}", name="train")


@pytest.fixture(scope="module")
def made(fitted, train_set):
    return train_universal(*fitted, train_set, **OPTIONS)


@pytest.fixture
def file(made, tmp_path):
    made.save(tmp_path / "noise.safetensors")
    return tmp_path / "noise.safetensors"


# ---- How it is made ----


@pytest.mark.parametrize("loss", ["ce", "cosine"])
def test_the_mean_loss_grows_beyond_that_of_the_random_start(fitted, train_set, loss):
    noise = train_universal(*fitted, train_set, loss=loss, **OPTIONS)
    first, *_, last = noise.protocol["mean_loss"]
    assert last > first and len(noise.protocol["mean_loss"]) == 6
    assert noise.delta.shape == train_set.shape and noise.delta.abs().max() <= 24 / 255 + 1e-7
    assert ("cap" in noise.protocol) == (loss == "ce")


def test_it_follows_from_the_seed_and_leaves_the_model_as_it_was(fitted, train_set, made):
    model = copy.deepcopy(fitted[0]).train()
    before, state = fingerprint(model), torch.get_rng_state()
    again = train_universal(model, fitted[1], train_set, **OPTIONS)
    assert torch.equal(again.delta, made.delta) and again.protocol == made.protocol
    assert fingerprint(model) == before and model.training and torch.equal(state, torch.get_rng_state())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    other = train_universal(*fitted, train_set, seed=1, **OPTIONS)
    assert not torch.equal(other.delta, made.delta)


def test_every_epoch_has_all_images_in_an_order_of_its_own():
    rows = [3, 8, 1, 40, 5, 7, 9]
    epochs = [universal_training._batches(rows, 3, seed=0, epoch=epoch) for epoch in range(3)]
    for batches in epochs:
        assert [len(batch) for batch in batches] == [3, 3, 1] and sorted(sum(batches, [])) == sorted(rows)
    assert len({tuple(sum(batches, [])) for batches in epochs}) == 3


def test_the_protocol_says_how_it_was_made(fitted, train_set, made):
    protocol = made.protocol
    assert protocol["models"] == [fingerprint(fitted[0])] and protocol["set"] == {"name": "train"}
    assert protocol["num_images"] == 24 and protocol["size"] == [16, 16] and protocol["step_size"] == "0.1eps"
    assert made.eps == "24/255" and made.rows.tolist() == list(range(24))
    few = train_universal(*fitted, train_set, max_samples=5, **{**OPTIONS, "epochs": 1})
    assert few.protocol["num_images"] == len(few.rows) == 5 and few.rows.tolist() != list(range(5))
    json.dumps(protocol)


def test_surrogates_take_part(fitted, train_set, made):
    surrogates = [(make_model(seed=4), fitted[1])]
    both = train_universal(*fitted, train_set, surrogates=surrogates, **OPTIONS)
    assert len(both.protocol["models"]) == 2 and not torch.equal(both.delta, made.delta)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0}, "a radius or step size of 0"),
        ({"eps": 10}, "write 10/255"),
        ({"loss": "margin"}, r"no loss 'margin'"),
        ({"cap": 0}, "cap=0, up to which no image counts"),
        ({"momentum": 1}, "momentum=1, which is none"),
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 1.5}, "batch_size=1.5"),
    ],
)
def test_options_that_cannot_be_are_refused(fitted, train_set, options, message):
    with pytest.raises(ValueError, match=message):
        train_universal(*fitted, train_set, **{**OPTIONS, **options})


def test_several_processes_and_sets_with_masks_are_refused(fitted, train_set, monkeypatch):
    scenes = SegmentationDataset(make_masked(), fitted[1], NAMES, name="scenes")
    with pytest.raises(ValueError, match="'scenes' has no class per image"):
        train_universal(*fitted, scenes, **OPTIONS)
    monkeypatch.setattr(universal_training, "process_share", lambda: (0, 2))
    with pytest.raises(ValueError, match="made by one process"):
        train_universal(*fitted, train_set, **OPTIONS)


# ---- How it is judged ----


def test_it_stands_beside_attacks_that_look_at_each_image(fitted, data, file):
    attacks = ["pgd,eps=24/255,num_steps=5,loss=margin", f"universal,file={file}", f"universal,file={file},eps=1/255"]
    options = {"progress": False, "probes": False}
    reports = [evaluate_robustness(*fitted, [data], attacks, batch_size=size, **options) for size in (7, 40)]
    result = reports[0].sets[0]
    assert result == reports[1].sets[0] and reports[0].protocol_hash == reports[1].protocol_hash
    assert set(result.threats) == {"linf 24/255", "universal linf 24/255", "universal linf 1/255"}
    assert result.robust_accuracy < result.threats["universal linf 24/255"] < result.clean_accuracy
    assert result.threats["universal linf 24/255"] < result.threats["universal linf 1/255"]
    assert reports[0].protocol["attacks"][1]["file"] == "noise.safetensors"  # and no folder
    assert reports[0].attack_rows() and reports[0].rows()


def test_it_is_judged_on_all_images_whatever_came_before(data, file):
    attacks = [AttackSpec.parse(text) for text in (f"universal,file={file}", "pgd,eps=24/255")]
    plan = Plan.of(data, attacks)
    assert [group_of(spec) for spec in plan.attacks] == ["universal linf 24/255", "linf"]


def test_images_that_it_was_made_on_are_refused(fitted, train_set, file):
    spec = AttackSpec.parse(f"universal,file={file}")
    with pytest.raises(ValueError, match=r"made on 24 of the 24 images of 'train'.*such as row 0. Make it on another"):
        Plan.of(train_set, [spec])
    with pytest.raises(ValueError, match="made on 3 of the 3 images"):
        evaluate_robustness(*fitted, [train_set], [spec], max_samples=3, progress=False)


@pytest.mark.parametrize(
    ("source", "is_same"),
    [
        ({"path": "user/food", "split": "train", "commit": "b"}, True),
        ({"path": "user/food", "split": "test", "commit": "a"}, False),
        ({"path": "user/food", "config": "x", "split": "train"}, False),
    ],
)
def test_a_split_is_told_by_where_it_was_read_from(fitted, tmp_path, source, is_same):
    train, test = make_data(fitted[1], 8), make_data(fitted[1], 8)
    train.source, test.source = {"path": "user/food", "split": "train", "commit": "a"}, source
    train_universal(*fitted, train, **{**OPTIONS, "epochs": 1}).save(tmp_path / "a.safetensors")
    spec = AttackSpec.parse(f"universal,file={tmp_path / 'a.safetensors'}")
    if is_same:
        with pytest.raises(ValueError, match="made on 8 of the 8 images of 'own'"):
            Plan.of(test, [spec])
    else:
        assert Plan.of(test, [spec]).names == [spec.name]


def test_a_file_that_does_not_name_its_rows_was_made_on_all(data, tmp_path):
    UniversalPerturbation(torch.zeros(3, 16, 16), 0.1, {"set": {"name": "own"}}).save(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="made on 40 of the 40 images of 'own'"):
        Plan.of(data, [AttackSpec.parse(f"universal,file={tmp_path / 'a.safetensors'}")])


def test_rows_that_it_was_not_made_on_are_others(fitted, tmp_path):
    images = make_images(12, seed=9)
    first, rest = (
        ZeroShotDataset(images, fitted[1], None, "a photo of the {}", name="own", sample_ids=rows)
        for rows in ([0, 1, 2, 3], [4, 5, 6])
    )
    train_universal(*fitted, first, **{**OPTIONS, "epochs": 1}).save(tmp_path / "a.safetensors")
    spec = AttackSpec.parse(f"universal,file={tmp_path / 'a.safetensors'}")
    assert Plan.of(rest, [spec]).rows == [4, 5, 6]
    with pytest.raises(ValueError, match="made on 4 of the 4"):
        Plan.of(first, [spec])
