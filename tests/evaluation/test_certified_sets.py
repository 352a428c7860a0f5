"""Certificates of sets: those of single images, noise encoded once for all lists, attacks beside, and resuming."""

import json

import pytest
import torch
from support.tiny import make_images

from hf_pmgaft import ZeroShotDataset, load_model
from hf_pmgaft.defences import Smoothing
from hf_pmgaft.evaluation import CertificateReport, RobustnessReport, certify, certify_sets, evaluate_robustness
from hf_pmgaft.evaluation import certified_sets as module
from hf_pmgaft.evaluation.bare_models import classifier_of
from hf_pmgaft.noise import sample_seeds

SIGMA = 0.4
QUICK = {"sigma": SIGMA, "draws": 60, "selection": 20, "attacks": [], "progress": False}
RADII = [0, 0.2, 6]
ATTACKED = {
    **QUICK,
    "radii": RADII,
    "attacks": ["pgd,num_steps=4,attacker=through"],
    "eot": 2,
    "verdict_draws": 20,
}


@pytest.fixture(scope="module")
def data(fitted):
    return of_names(fitted[1])


@pytest.fixture(scope="module")
def attacked(fitted, data) -> CertificateReport:
    return certify_sets(*fitted, [data], **ATTACKED)


def of_names(processor, name: str = "own", seed: int = 9, **options) -> ZeroShotDataset:
    options = {"prompt_templates": "a photo of the {}", **options}
    return ZeroShotDataset(make_images(8, seed=seed), processor, name=name, **options)


def watched(monkeypatch, fail_at: int | None = None) -> list[int]:
    """The rows' seeds whose noise is encoded, in their order; one of them may fail."""
    seeds, encode = [], module.noise_embeds

    def noise_embeds(defence, image, seed, **options):
        if len(seeds) == fail_at:
            raise OSError("out of power")
        seeds.append(seed.item())
        return encode(defence, image, seed, **options)

    monkeypatch.setattr(module, "noise_embeds", noise_embeds)
    return seeds


def test_images_of_sets_have_the_certificates_that_they_have_alone(fitted, data):
    (found,) = certify_sets(*fitted, [data], seed=3, max_samples=6, batch_size=16, **QUICK).sets
    defence = Smoothing(classifier_of(*fitted, data), sigma=SIGMA)
    images = torch.stack([data[row]["images"] for row in found.sample_ids])
    seeds = sample_seeds(3, 0, torch.tensor(found.sample_ids))
    alone = certify(defence, images, seeds, draws=60, selection=20)
    assert found.certificates == alone
    assert 1 < len(set(alone)) and len(found.sample_ids) == 6
    assert found.labels == [data[row]["labels"] for row in found.sample_ids]
    with torch.no_grad():
        right = defence.classifier(images).argmax(1) == torch.tensor(found.labels)
    assert found.clean == right.int().tolist()


def test_sets_of_the_same_images_share_the_noise_and_others_do_not(fitted, data, monkeypatch):
    lists = [
        data,
        of_names(fitted[1], "bare", prompt_templates="{}"),
        of_names(fitted[1], "more", class_names=[*data.class_names, "emoji", "photo"]),
    ]
    alone = [certify_sets(*fitted, [each], **QUICK).sets[0] for each in lists]
    encoded = watched(monkeypatch)
    assert certify_sets(*fitted, lists, **QUICK).sets == alone
    assert len(encoded) == len(set(encoded)) == 8
    assert len({tuple(each.predictions) for each in alone}) > 1

    others = of_names(fitted[1], "others", seed=4)
    certify_sets(*fitted, [data, others], **QUICK)
    assert len(encoded) == 8 + 16


@pytest.mark.parametrize("batch_size", [7, 500])
def test_nothing_depends_on_batches(fitted, data, batch_size):
    assert certify_sets(*fitted, [data], **QUICK, batch_size=batch_size) == certify_sets(*fitted, [data], **QUICK)


def test_each_sigma_is_certified_by_itself(fitted, data):
    two = certify_sets(*fitted, [data], **{**QUICK, "sigma": ["0.1", SIGMA]})
    assert [each.sigma for each in two.sets] == ["0.1", SIGMA]
    assert two.sets[1] == certify_sets(*fitted, [data], **QUICK).sets[0]
    assert two.sets[0].radii != two.sets[1].radii and max(two.sets[0].radii) < 0.25
    assert two.radii == [0, 0.05, 0.1, 0.15, 0.2]  # of the smallest


def test_no_certified_image_is_fooled_inside_its_radius(attacked):
    (found,) = attacked.sets
    assert list(found.empirical) == ["0", "0.2", "6"]
    for radius in RADII:
        assert found.fooled_inside(radius) == []
        assert found.certified_accuracy(radius) <= found.empirical_accuracy(radius)
    assert 0.5 < found.certified_accuracy(0.2) < 1  # there is something to fool,
    assert found.certified_accuracy(6) == 0 and found.empirical_accuracy(6) < 0.5  # and something that fools
    assert attacked.warnings == []


def test_the_attacks_are_those_of_an_evaluation_of_the_smoothed_model(fitted, data, attacked):
    attacks = [f"pgd,num_steps=4,attacker=through,norm=l2,eps={radius}" for radius in RADII[1:]]
    options = {"defence": f"smoothing,sigma={SIGMA},alpha=0.999999", "eot": 2, "draws": 20, "progress": False}
    (expected,) = evaluate_robustness(*fitted, [data], attacks, **options).sets
    (found,) = attacked.sets
    assert found.empirical["0"] == [int(value) for value in expected.verdicts["clean"]]
    for radius in RADII[1:]:
        assert found.empirical_accuracy(radius) == expected.threats[f"l2 {radius}"]


def test_the_protocol_holds_all_that_the_figures_depend_on(fitted, data, attacked):
    protocol = attacked.protocol
    assert (protocol["draws"], protocol["selection"], protocol["alpha"]) == (60, 20, 0.001)
    assert protocol["sigma"] == [SIGMA] and protocol["radii"] == RADII
    assert protocol["empirical"]["draws"] == 20 and protocol["empirical"]["eot"] == 2
    assert protocol["empirical"]["verdict"] == "the most frequent class of the draws, a tie is wrong"
    assert protocol["sets"]["own"]["num_samples"] == 8 and protocol["sets"]["own"]["images"]
    text = " ".join(attacked.statement)
    assert "confidence of 99.9 %" in text and "60 draws" in text and "PGD-4 ce" in text and "20 other draws" in text

    hashes = {certify_sets(*fitted, [data], **QUICK).protocol_hash}
    for change in ({"draws": 61}, {"selection": 21}, {"alpha": 0.01}, {"seed": 1}, {"sigma": 0.41}, {"radii": [0]}):
        hashes.add(certify_sets(*fitted, [data], **{**QUICK, "max_samples": 2, **change}).protocol_hash)
    assert len(hashes) == 7


def test_a_run_that_was_killed_goes_on_image_by_image_and_ends_with_the_same_report(
    fitted, data, monkeypatch, tmp_path
):
    lists = [data, of_names(fitted[1], "bare", prompt_templates="{}")]
    options = {
        **QUICK,
        "attacks": ["fgsm,attacker=through"],
        "radii": [0.2],
        "verdict_draws": 3,
        "draws": 20,
        "max_samples": 4,
    }
    expected = certify_sets(*fitted, lists, **options)
    file = tmp_path / "found.jsonl"
    with monkeypatch.context() as patch:
        begun = watched(patch, fail_at=2)
        with pytest.raises(OSError, match="out of power"):
            certify_sets(*fitted, lists, **options, verdict_file=file)
    gone_on = watched(monkeypatch)
    assert certify_sets(*fitted, lists, **options, verdict_file=file) == expected
    assert len(begun) == 2 and len(gone_on) == 4 - 2
    assert (tmp_path / "found.sigma_0.4.jsonl").exists()
    assert certify_sets(*fitted, lists, **options, verdict_file=file) == expected and len(gone_on) == 4 - 2

    with pytest.raises(ValueError, match="differs in protocol.alpha"):
        certify_sets(*fitted, lists, **{**options, "alpha": 0.01}, verdict_file=file)


def test_a_report_comes_back_from_its_file_and_one_that_was_changed_does_not(attacked, tmp_path):
    file = tmp_path / "certificates.json"
    attacked.save(file)
    assert CertificateReport.load(file) == attacked
    entry = json.loads(file.read_text())
    assert entry["sets"][0]["certified_accuracy"]["0.2"] == attacked.sets[0].certified_accuracy(0.2)
    entry["protocol"]["alpha"] = 0.1
    file.write_text(json.dumps(entry))
    with pytest.raises(ValueError, match="was changed"):
        CertificateReport.load(file)
    RobustnessReport({"attacks": [], "headline": ""}, []).save(file)
    with pytest.raises(ValueError, match="was changed|no whole report of certificates"):
        CertificateReport.load(file)


def test_tables_have_a_row_for_each_set_and_sigma_and_the_bounds_of_each_radius(attacked):
    (found,) = attacked.sets
    header, row = attacked.rows()
    assert header[-3:] == ["certified 0", "certified 0.2", "certified 6"]
    assert row[:3] == ["own", "0.4", "8"] and row[4] == f"{100 * found.abstained:.1f}"
    assert row[-3:] == [f"{100 * found.certified_accuracy(radius):.1f}" for radius in RADII]
    header, *rows = attacked.bound_rows()
    assert header == ["set", "sigma", "radius", "at least", "95 %", "at most", "95 %"]
    assert [row[2] for row in rows] == ["0", "0.2", "6"]
    assert rows[2][3] == "0.0" and rows[2][5] == f"{100 * found.empirical_accuracy(6):.1f}"
    low, high = found.interval(found.empirical_accuracy(6))
    assert rows[2][6] == f"{100 * low:.1f} to {100 * high:.1f}"


def test_a_certified_image_that_is_fooled_is_warned_of(attacked):
    (found,) = CertificateReport(attacked.protocol, [module.CertifiedSet(**vars(attacked.sets[0]))]).sets
    kept = found.radii.index(max(found.radii))
    found.empirical = {**found.empirical, "0.2": [int(i != kept) for i in range(8)]}
    (warning,) = CertificateReport(attacked.protocol, [found]).warnings
    assert f"fooled inside the radius 0.2, such as row {found.sample_ids[kept]}" in warning


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 9}, "draws=9 and alpha=0.001.* Pass draws from 10"),
        ({"alpha": 0}, "alpha=0"),
        ({"sigma": 0}, "factor 0"),
        ({"sigma": 64}, "write 64/255"),
        ({"sigma": []}, "no sigma"),
        ({"sigma": [0.25, "1/4"]}, "sigma twice"),
        ({"radii": []}, "no radii"),
        ({"radii": [0.1, "0.10"]}, "radius twice"),
        ({"radii": [-1]}, "radius -1"),
        ({"selection": 0}, "selection=0"),
        ({"verdict_draws": 0}, "verdict_draws=0"),
        ({"attacks": ["pgd,eps=1"]}, "pgd with eps=1.* Leave that out"),
        ({"attacks": ["pgd,norm=linf"]}, "norm=linf"),
        ({"attacks": ["corruption,kind=jpeg"]}, "knows no ball"),
        ({"attacks": ["patch,size=2"]}, "knows no ball"),
        ({"attacks": ["pgd"], "radii": [0]}, "none is above 0"),
        ({"attacks": ["fgsm"], "eot": 0}, "eot=0"),
    ],
)
def test_what_cannot_be_certified_is_refused_before_anything_is_computed(fitted, data, options, message, monkeypatch):
    monkeypatch.setattr(module, "classifier_of", None)
    with pytest.raises(ValueError, match=message):
        certify_sets(*fitted, [data], **{**QUICK, **options})


def test_sets_that_cannot_be_certified_are_refused(fitted, data, tmp_path):
    with pytest.raises(ValueError, match="no sets"):
        certify_sets(*fitted, [], **QUICK)
    with pytest.raises(ValueError, match="share a name"):
        certify_sets(*fitted, [data, data], **QUICK)
    fitted[0].save_pretrained(tmp_path)
    half = load_model(tmp_path).bfloat16()
    assert certify_sets(half, fitted[1], [data], **QUICK).protocol["dtype"] == "float32"
