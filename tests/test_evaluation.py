"""The report: verdicts, protocol, and what must not change them."""

import copy
import json

import pytest
import torch
from conftest import fit_model, make_images, make_model

from hf_pmgaft.attacks import sample_seeds
from hf_pmgaft.data import ZeroShotDataset
from hf_pmgaft.evaluation import evaluate_robustness, sample_ids
from hf_pmgaft.intervals import wilson_interval
from hf_pmgaft.report import RobustnessReport, SetResult
from hf_pmgaft.threats import attack_name, check_attack, run_attack

PGD = {"attack": "pgd", "eps": "20/255", "num_steps": 5, "loss": "margin"}


@pytest.fixture(scope="module")
def fitted():
    return fit_model()


@pytest.fixture(scope="module")
def data(fitted):
    return ZeroShotDataset(make_images(40, seed=9), fitted[1], None, "a photo of the {}", name="own")


def run(fitted, data, attacks=(PGD,), **options) -> RobustnessReport:
    return evaluate_robustness(*fitted, [data], list(attacks), progress=False, **options)


def test_attack_lowers_accuracy_and_the_verdict_is_the_worst_case(fitted, data):
    weak = {**PGD, "eps": "2/255", "num_steps": 1}
    result = run(fitted, data, [PGD, weak]).sets[0]
    assert result.clean_accuracy > 0.9
    assert result.robust_accuracy < result.clean_accuracy - 0.1
    assert result.attacks[attack_name(PGD)] <= result.attacks[attack_name(weak)]
    assert result.robust_accuracy <= min(result.attacks.values())
    assert result.robust_accuracy == sum(result.verdicts["robust"]) / 40


def test_larger_radii_attack_only_what_smaller_ones_left(fitted, data, monkeypatch):
    from hf_pmgaft import evaluation

    attacked = []

    def count(spec, classifier, images, *rest):
        attacked.append((spec["eps"], len(images)))
        return run_attack(spec, classifier, images, *rest)

    monkeypatch.setattr(evaluation, "run_attack", count)
    result = run(fitted, data, [{**PGD, "eps": "30/255"}, PGD], batch_size=40).sets[0]
    small, large = (result.attacks[attack_name({**PGD, "eps": eps})] for eps in ("20/255", "30/255"))
    assert attacked == [("20/255", 40 * result.clean_accuracy), ("30/255", 40 * small)]
    assert large < small < result.clean_accuracy
    alone = run(fitted, data, [{**PGD, "eps": "30/255"}]).sets[0]
    assert large <= alone.robust_accuracy


def test_verdicts_depend_neither_on_the_batch_size_nor_on_the_other_images(fitted, data):
    reports = [run(fitted, data, batch_size=size) for size in (3, 8, 40)]
    assert len({json.dumps(report.sets[0].verdicts) for report in reports}) == 1
    assert 0 < reports[0].mean_robust_accuracy < reports[0].mean_clean_accuracy  # there is something to depend on
    part = run(fitted, data, max_samples=10)
    ids = part.sets[0].verdicts["sample_id"]
    whole = dict(zip(range(40), reports[0].sets[0].verdicts["robust"], strict=True))
    assert ids == sample_ids(40, 10, 0) and part.sets[0].verdicts["robust"] == [whole[i] for i in ids]


def test_texts_are_encoded_once(fitted, monkeypatch):
    from hf_pmgaft import evaluation

    encoded, plain = [], evaluation.encode_class_names

    def count(model, processor, class_names, prompt_templates):
        encoded.append(prompt_templates)
        return plain(model, processor, class_names, prompt_templates)

    monkeypatch.setattr(evaluation, "encode_class_names", count)
    one, other = ["a photo of the {}"], ["an image of the {}"]
    sets = [
        ZeroShotDataset(make_images(8, seed=seed), fitted[1], None, template, name=str(seed))
        for seed, template in enumerate((one, other, one))
    ]
    evaluate_robustness(*fitted, sets, [PGD], batch_size=2, progress=False)
    assert encoded == [one, other]


def test_every_attacked_image_keeps_the_noise_of_its_row(fitted, data, monkeypatch):
    from hf_pmgaft import evaluation

    attacked = {}

    def note(spec, classifier, images, labels, seeds, *rest):
        attacked.update(zip(seeds.tolist(), images, strict=True))
        return run_attack(spec, classifier, images, labels, seeds, *rest)

    monkeypatch.setattr(evaluation, "run_attack", note)
    # The larger radius attacks only some of a batch, so that an image's place there is not its row.
    result = run(fitted, data, [PGD, {**PGD, "eps": "30/255"}], batch_size=7, seed=3).sets[0]
    assert 0 < result.attacks[attack_name(PGD)] < 1
    rows = [row for row, right in enumerate(result.verdicts["clean"]) if right]
    for row, seed in zip(rows, sample_seeds(3, 0, torch.tensor(rows)).tolist(), strict=True):
        assert torch.equal(attacked[seed], data[row]["images"])


def test_model_is_left_as_it_was(fitted, data):
    model, _ = fitted
    model.train()
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    random = torch.get_rng_state()
    model.zero_grad(set_to_none=True)
    run(fitted, data, max_samples=4)
    assert model.training and model.vision_model.training
    assert flags == {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(random, torch.get_rng_state())
    model.eval()


def test_a_model_left_in_train_mode_with_dropout_is_evaluated_without_it(fitted, data):
    dropping = copy.deepcopy(fitted[0])
    for tower in (dropping.vision_model, dropping.text_model):
        for layer in tower.encoder.layers:
            layer.self_attn.dropout = 0.8
    dropping.train()
    for verdict in ("any_iterate", "last_iterate"):
        report, plain = (run((model, fitted[1]), data, verdict=verdict) for model in (dropping, fitted[0]))
        assert report.sets[0].verdicts == plain.sets[0].verdicts
    assert dropping.training


@pytest.mark.parametrize("verdict", ["any_iterate", "last_iterate"])
def test_a_collapsed_model_is_right_on_no_image_for_its_classes_tie(fitted, data, verdict):
    collapsed = copy.deepcopy(fitted[0])
    torch.nn.init.zeros_(collapsed.visual_projection.weight)  # every class has the logit 0
    (result,) = run((collapsed, fitted[1]), data, verdict=verdict, eight_bit=True).sets
    assert result.clean_accuracy == result.robust_accuracy == result.robust_8bit_accuracy == 0


def test_an_image_that_an_earlier_attack_fooled_until_rounded_stays_so(fitted, data):
    torch.manual_seed(0)
    unsure = copy.deepcopy(fitted[0])
    with torch.no_grad():
        unsure.visual_projection.weight.add_(3 * torch.randn_like(unsure.visual_projection.weight))
    # A ball that holds no other grey level leaves nothing once rounded; then a larger ball, in which nobody walks.
    fine = {**PGD, "eps": 0.9 / 255, "num_steps": 10}
    idle = {**PGD, "num_steps": 1, "step_size": 0.0, "random_start": False}
    (result,) = run((unsure, fitted[1]), data, [idle, fine], eight_bit=True).sets
    fooled, after = (result.verdicts[attack_name(check_attack(spec))] for spec in (fine, idle))
    assert after == fooled and sum(fooled) < sum(result.verdicts["clean"])
    assert result.robust_accuracy == sum(fooled) / 40 < result.robust_8bit_accuracy == result.clean_accuracy


def test_half_precision_weights_are_evaluated_in_float32(fitted, data):
    model, processor = fitted
    half = make_model().to(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    report = evaluate_robustness(half, processor, [data], [PGD], max_samples=8, progress=False)
    full = evaluate_robustness(half.float(), processor, [data], [PGD], max_samples=8, progress=False)
    assert report.sets[0].verdicts == full.sets[0].verdicts
    assert report.protocol["dtype"] == "float32"


def test_report_survives_saving_and_names_its_protocol(fitted, data, tmp_path):
    report = run(fitted, data, max_samples=6)
    report.save(tmp_path / "robustness.json")
    loaded = RobustnessReport.load(tmp_path / "robustness.json")
    assert loaded.protocol_hash == report.protocol_hash
    assert loaded.sets[0] == report.sets[0]
    written = json.loads((tmp_path / "robustness.json").read_text())
    assert written["mean_robust_accuracy"] == report.mean_robust_accuracy
    assert PGD.items() <= written["protocol"]["attacks"][0].items()
    assert run(fitted, data, [{**PGD, "num_steps": 6}], max_samples=6).protocol_hash != report.protocol_hash
    assert run(fitted, data, max_samples=6, batch_size=2).protocol_hash == report.protocol_hash
    assert run(fitted, data, max_samples=6, seed=1).protocol_hash != report.protocol_hash


def test_the_seed_chooses_which_images_are_evaluated():
    chosen = [sample_ids(40, 10, seed) for seed in range(30)]
    assert all(rows == sorted(set(rows)) and len(rows) == 10 for rows in chosen)
    assert len({tuple(rows) for rows in chosen}) == 30 and set().union(*chosen) == set(range(40))
    assert sample_ids(40, 10, 7) == chosen[7]
    assert sample_ids(40, None, 7) == sample_ids(40, 40, 7) == list(range(40))


def test_means_count_every_set_the_same():
    sets = [SetResult("a", 2, 10, 1.0, 0.5, {}), SetResult("b", 2, 1000, 0.5, 0.0, {})]
    report = RobustnessReport({}, sets)
    assert report.mean_clean_accuracy == 0.75 and report.mean_robust_accuracy == 0.25
    assert report.mean("clean_accuracy", leave_out="b") == 1.0
    metrics = report.metrics()
    assert metrics["eval_a_robust_accuracy"] == 0.5 and metrics["eval_mean_robust_accuracy"] == 0.25


def test_an_attack_that_leaves_its_ball_is_found_out(fitted, data, monkeypatch):
    from hf_pmgaft import evaluation

    def cheat(*args):
        return (run_attack(*args) + 0.1).clamp(0, 1)

    monkeypatch.setattr(evaluation, "run_attack", cheat)
    with pytest.raises(RuntimeError, match="left its ball"):
        run(fitted, data, max_samples=4)


def test_wilson_interval_has_the_textbook_values():
    low, high = wilson_interval(0.5, 100)
    assert (round(low, 4), round(high, 4)) == (0.4038, 0.5962)
    assert wilson_interval(0.0, 10)[0] == 0.0 and wilson_interval(1.0, 10)[1] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("sets", "attacks", "message"),
    [
        ([], [PGD], "no evaluation sets"),
        (["own", "own"], [PGD], "share a name"),
        (["own"], [{"attack": "pdg", "eps": "1/255"}], "no attack 'pdg'.*pgd"),
        (["own"], [{"attack": "pgd"}], "has no radius"),
        (["own"], [{"attack": "pgd", "eps": 4}], "4/255"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(fitted, data, sets, attacks, message):
    with pytest.raises(ValueError, match=message):
        evaluate_robustness(*fitted, [data for _ in sets], attacks, progress=False)


def test_a_model_of_nan_weights_is_no_model_of_zero_accuracy(fitted, data):
    broken = copy.deepcopy(fitted[0])
    with torch.no_grad():
        broken.visual_projection.weight[0, 0] = torch.nan
    with pytest.raises(
        ValueError, match="NaN or infinite on images among the rows 0 to 39 of 'own'.*Check the weights"
    ):
        run((broken, fitted[1]), data)
