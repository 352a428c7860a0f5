"""The protocol: everything that figures depend on, and nothing else."""

import pytest
from support.sets import MARGIN
from support.tiny import make_images

from hf_pmgaft import AttackSpec, ZeroShotDataset, evaluate_robustness


def run(fitted, data, attacks=(MARGIN,), **options):
    return evaluate_robustness(*fitted, [data], list(attacks), progress=False, probes=False, **options)


def test_the_protocol_holds_what_the_figures_depend_on(fitted, data):
    report = run(fitted, data)
    protocol = report.protocol
    assert protocol["headline"] == "linf 20/255" and protocol["dtype"] == "float32" and protocol["device"] == "cpu"
    assert protocol["attacks"][0] == AttackSpec.of(MARGIN).to_dict()
    assert {"num_steps", "step_size", "random_start", "restarts", "momentum"} < set(protocol["attacks"][0])
    assert {"torch", "transformers", "datasets", "pillow", "python", "hf_pmgaft"} <= set(protocol["versions"])
    own = protocol["sets"]["own"]
    assert own["attacked_at"] == 16 and own["prompt_templates"] == ["a photo of the {}"] and own["num_classes"] == 4
    assert len(own["images"]) == len(own["class_names"]) == len(own["sample_ids"]) == 12
    assert report.model["logit_scale"] == pytest.approx(fitted[0].logit_scale.exp().item(), rel=1e-4)
    other = ZeroShotDataset(make_images(40, seed=10), fitted[1], None, "a photo of the {}", name="own")
    assert run(fitted, other).protocol["sets"]["own"]["images"] != own["images"]


def test_specs_dicts_and_texts_of_one_attack_are_one_protocol(fitted, data):
    text = "pgd,eps=20/255,num_steps=10,loss=margin"
    reports = [run(fitted, data, [attack], max_samples=6) for attack in (MARGIN, text, AttackSpec.parse(text))]
    assert len({report.protocol_hash for report in reports}) == 1
    assert [report.sets for report in reports[1:]] == [reports[0].sets] * 2


def test_the_hash_follows_attack_and_seed_and_not_the_batch_size(fitted, data):
    report = run(fitted, data, max_samples=6)
    assert run(fitted, data, [{**MARGIN, "num_steps": 6}], max_samples=6).protocol_hash != report.protocol_hash
    assert run(fitted, data, max_samples=6, batch_size=2).protocol_hash == report.protocol_hash
    assert run(fitted, data, max_samples=6, seed=1).protocol_hash != report.protocol_hash


def test_only_a_set_with_a_border_or_another_resize_names_it(fitted, data):
    cut = ZeroShotDataset(make_images(12), fitted[1], name="cut", border=1, resize=18)
    plain, changed = (run(fitted, each).protocol["sets"] for each in (data, cut))
    assert not {"border", "resize", "retrieval"} & set(plain["own"])
    assert changed["cut"]["border"] == 1 and changed["cut"]["resize"] == 18


def test_a_version_of_pyautoattack_is_named_where_it_runs(fitted, data):
    pytest.importorskip("pyautoattack")
    square = {"attack": "square", "eps": "4/255", "num_queries": 5}
    assert "pyautoattack" in run(fitted, data, [square], max_samples=4).protocol["versions"]
    assert "pyautoattack" not in run(fitted, data, max_samples=4).protocol["versions"]
