"""Examples beside a report: images as its own attacks left them, and what the model says of them."""

import pytest
import torch
from support.emoji import PGD
from support.emoji import make_data as make_captioned
from support.masked import NAMES, make_masked
from support.sets import CE, MARGIN, make_data
from support.tiny import CLASS_NAMES

from hf_pmgaft import AttackSpec, RobustnessReport, SegmentationDataset, evaluate_robustness
from hf_pmgaft.evaluation.examples import Album, Example
from hf_pmgaft.evaluation.plan import Plan
from hf_pmgaft.zero_shot import ZeroShotClassifier, encode_class_names

SMALL = {**MARGIN, "eps": "14/255"}


def run(fitted, data, attacks=(MARGIN,), **options) -> RobustnessReport:
    options = {"progress": False, "probes": False, "examples": 8, **options}
    return evaluate_robustness(*fitted, [data], list(attacks), **options)


def classes_of(fitted, images: torch.Tensor) -> list[str]:
    model, processor = fitted
    embeds = encode_class_names(model, processor, CLASS_NAMES, "a photo of the {}")
    with torch.no_grad():
        logits = ZeroShotClassifier.from_model(model, processor, embeds)(images)
    return [CLASS_NAMES[number] for number in logits.argmax(1).tolist()]


@pytest.mark.parametrize("verdict", ["any_iterate", "last_iterate"])
def test_examples_are_the_images_that_the_verdicts_are_of(fitted, data, verdict):
    report = run(fitted, data, [SMALL, CE], verdict=verdict)
    result = report.sets[0]
    assert len(report.examples) == 8 and {example.fell for example in report.examples} == {True, False}
    for example in report.examples:
        place = result.verdicts["sample_id"].index(example.row)
        assert (result.verdicts["clean"][place], result.verdicts["robust"][place]) == (1, not example.fell)

        clean, adversarial = example.images
        assert torch.equal(clean, data[example.row]["images"])
        assert 0 < (adversarial - clean).abs().max() <= 14 / 255 + 1e-6
        assert list(example.said) == classes_of(fitted, example.images)
        assert example.truth == CLASS_NAMES[data[example.row]["labels"]] == example.said[0]
        assert example.fell == (example.said[1] != example.truth)


def test_an_image_is_shown_as_the_attack_that_fooled_it_left_it(fitted, data):
    idle = {**CE, "num_steps": 1, "step_size": 0.0, "random_start": False}
    examples = run(fitted, data, [idle, MARGIN], verdict="last_iterate").examples
    fell = [example for example in examples if example.fell]
    assert fell and {example.attack for example in fell} == {AttackSpec.of(MARGIN).name}


def test_an_image_that_an_earlier_run_fooled_is_not_shown_as_one_that_stood(fitted, data, tmp_path):
    file = tmp_path / "verdicts.jsonl"
    idle = {**CE, "num_steps": 1, "step_size": 0.0, "random_start": False}
    result = run(fitted, data, [MARGIN, idle], verdict="last_iterate", verdict_file=file, examples=0).sets[0]

    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if AttackSpec.of(idle).name not in line or '"protocol"' in line))
    examples = run(fitted, data, [MARGIN, idle], verdict="last_iterate", verdict_file=file).examples
    rows = [example.row for example in examples]
    robust = dict(zip(result.verdicts["sample_id"], result.verdicts["robust"], strict=True))
    assert rows and not any(example.fell for example in examples) and all(robust[row] for row in rows)


def test_nothing_is_attacked_twice_and_figures_are_the_same(fitted, data, attacked):
    plain = run(fitted, data, [SMALL], examples=0)
    count = len(attacked)
    report = run(fitted, data, [SMALL])
    assert len(attacked) == 2 * count
    assert report.to_dict() == plain.to_dict() and plain.examples == []


def test_examples_are_those_of_the_seed_whatever_the_batches(fitted, data):
    first, second = (run(fitted, data, [SMALL], batch_size=size).examples for size in (7, 64))
    assert [example.row for example in first] == [example.row for example in second]
    other = run(fitted, data, [SMALL], seed=1).examples
    assert [example.row for example in first] != [example.row for example in other]


def test_every_set_has_one_and_together_they_are_no_more_than_asked_for(fitted):
    sets = {}
    for name in ("one", "two", "three"):
        sets[name] = make_data(fitted[1])
        sets[name].name = name
    for most, each in ((7, 2), (2, 1)):
        report = evaluate_robustness(*fitted, sets, [SMALL], progress=False, probes=False, examples=most)
        names = [example.dataset for example in report.examples]
        assert {name: names.count(name) for name in sets} == dict.fromkeys(sets, each)


def test_what_two_processes_kept_of_one_image_is_shown_once(data):
    album = Album([Plan.of(data, [AttackSpec.of(SMALL)])], "linf 14/255", most=4, seed=0)
    images = torch.rand(2, 3, 4, 4)
    kept = [Example("own", row, attack, False, images, "disc") for attack in ("ce", "margin") for row in (3, 1)]
    assert [example.row for example in album.choose(kept)] == [1, 3]


def test_what_a_verdict_file_holds_is_not_shown(fitted, data, tmp_path):
    file = tmp_path / "verdicts.jsonl"
    assert len(run(fitted, data, [SMALL], verdict_file=file).examples) == 8
    assert run(fitted, data, [SMALL], verdict_file=file).examples == []


def test_a_random_defence_says_nothing_of_one_draw(fitted, data):
    report = run(fitted, data, [SMALL], defence="random_noise,eps=2/255", draws=3, eot=1, max_samples=12)
    assert report.examples and all(example.said is None for example in report.examples)


def test_segmented_images_come_with_their_masks(fitted):
    data = SegmentationDataset(make_masked(6), fitted[1], NAMES, ["a {}"], name="scenes")
    report = run(fitted, data, ["pgd,eps=8/255,num_steps=5,loss=masked_ce"])
    accuracy = report.sets[1]
    assert len(report.examples) == 6
    for example in report.examples:
        place = accuracy.verdicts["sample_id"].index(example.row)
        mask, clean, attacked = example.masks
        assert torch.equal(mask, data[example.row]["labels"])
        for seen, key in ((clean, "clean"), (attacked, example.attack)):
            right, labelled = accuracy.verdicts[key][place]
            assert (seen == mask).sum() == right
            assert f"{right / labelled:.1%} of the pixels right" in example.said
        assert set(example.class_names) == set(example.masks.unique().tolist())


def test_captioned_images_come_with_the_first_text(emoji):
    data = make_captioned(emoji[1])
    report = run(emoji, data, [PGD])
    recall = report.sets[0]
    assert recall.figure.title == "I2T R@1" and len(report.examples) == 8
    for example in report.examples:
        place = recall.verdicts["sample_id"].index(example.row)
        assert example.fell == (not recall.verdicts["robust"][place])
        assert example.truth in data.texts([example.row])[example.row]
        assert example.said[0] in data.texts([example.row])[example.row]


def test_a_number_below_zero_is_refused(fitted, data):
    with pytest.raises(ValueError, match="examples"):
        run(fitted, data, examples=-1)
