"""Segmentation: mean IoU and pixel accuracy of a set, clean and attacked, in whatever company, and what is refused."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import datasets
import pytest
import torch
from accelerate import PartialState
from PIL import Image
from support.launch import torchrun
from support.masked import NAMES, make_masked
from support.sets import make_data as make_labelled
from support.tiny import make_model, make_processor

from hf_pmgaft import AttackSpec, RobustnessReport, SegmentationDataset, compare_reports, evaluate_robustness
from hf_pmgaft.attacks import sample_seeds
from hf_pmgaft.data import IGNORED
from hf_pmgaft.evaluation.heads import NearestClassMean
from hf_pmgaft.evaluation.segmentation import count_pixels
from hf_pmgaft.plots import robustness_bars, robustness_curve
from hf_pmgaft.zero_shot.segmenter import Segmenter

SIZES = ((16, 16), (20, 24), (24, 20))
PGD = "pgd,eps=8/255,num_steps=5,loss=masked_ce"
SMALLER = "pgd,eps=2/255,num_steps=3,loss=js"
SEA = "sea,eps=8/255,num_steps=10"


def make_data(processor, size: int = 8, **options) -> SegmentationDataset:
    return SegmentationDataset(make_masked(size, SIZES), processor, NAMES, ["a {}"], **{"name": "scenes", **options})


@pytest.fixture(scope="module")
def pair():
    return make_model(), make_processor()


def run(pair, data=None, attacks=(PGD,), **options) -> RobustnessReport:
    model, processor = pair
    data = make_data(processor) if data is None else data
    return evaluate_robustness(model, processor, [data], list(attacks), **{"progress": False, **options})


@pytest.fixture(scope="module")
def report(pair):
    return run(pair, attacks=[PGD, SMALLER])


def figures(report: RobustnessReport) -> dict[str, tuple[float, float]]:
    return {result.figure.title: (result.clean_accuracy, result.robust_accuracy) for result in report.sets}


def predictions(pair, images_of=None, readout: str = "sclip", **options) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Of each image the predicted classes and the mask, one by one; `images_of` makes another image of it."""
    model, processor = pair
    data = make_data(processor, **options)
    segmenter = Segmenter.from_model(model, processor, data, readout)
    pairs = []
    with torch.no_grad():
        for row in range(len(data)):
            example = data[row]
            images, masks = example["images"][None], example["labels"][None]
            if images_of is not None:
                images = images_of(segmenter, images, masks, row)
            pairs.append((segmenter.predict(segmenter(images))[0], masks[0]))
    return pairs


def transcribed(pairs) -> dict[str, float]:
    """Mean IoU and pixel accuracy from the pixels of all images side by side."""
    predicted, masks = (torch.cat([each.flatten() for each in column]) for column in zip(*pairs, strict=True))
    predicted, masks = predicted[masks != IGNORED], masks[masks != IGNORED]
    ious = []
    for number in range(len(NAMES)):
        union = ((predicted == number) | (masks == number)).sum().item()
        if union:
            ious.append(((predicted == number) & (masks == number)).sum().item() / union)
    return {"mIoU": sum(ious) / len(ious), "pixel accuracy": (predicted == masks).float().mean().item()}


# ---- Figures ----


def test_a_set_has_a_row_of_mean_iou_and_one_of_pixel_accuracy(report):
    assert [result.name for result in report.sets] == ["scenes mIoU", "scenes pixel accuracy"]
    assert [result.dataset for result in report.sets] == ["scenes"] * 2
    assert all((result.num_classes, result.num_samples) == (len(NAMES), 8) for result in report.sets)
    rows = report.rows()
    assert rows[0][:6] == ["set", "classes", "images", "clean", "robust linf 8/255", "95 %"]
    assert report.measure == "Mean IoU and pixel accuracy" and report.flags == []
    assert list(report.metrics()) == [
        "eval_scenes_mIoU_clean_mIoU",
        "eval_scenes_mIoU_robust_mIoU",
        "eval_scenes_pixel_accuracy_clean_pixel_accuracy",
        "eval_scenes_pixel_accuracy_robust_pixel_accuracy",
        "eval_mean_clean_accuracy",
        "eval_mean_robust_accuracy",
    ]


@pytest.mark.parametrize("readout", ["vanilla", "maskclip", "sclip", "clearclip"])
def test_clean_figures_are_those_of_all_pixels_at_once(pair, readout):
    clean = {title: clean for title, (clean, _) in figures(run(pair, readout=readout)).items()}
    assert clean == pytest.approx(transcribed(predictions(pair, readout=readout)))


def test_figures_of_the_last_iterate_are_those_of_what_the_attack_returns(pair):
    spec = AttackSpec.parse(PGD)

    def attacked(segmenter, images, masks, row):
        return spec.run_dense(segmenter, images, masks, sample_seeds(0, 0, torch.tensor([row])), any_iterate=False)

    report = run(pair, verdict="last_iterate")
    robust = {title: robust for title, (_, robust) in figures(report).items()}
    assert robust == pytest.approx(transcribed(predictions(pair, attacked)))


def test_an_attack_leaves_no_image_better_under_any_iterate_and_a_larger_radius_neither(report):
    for result in report.sets:
        smaller, larger = (result.attacks[AttackSpec.parse(text).name] for text in (SMALLER, PGD))
        assert larger == result.robust_accuracy < smaller <= result.clean_accuracy
    accuracy = report.sets[1].verdicts
    names = [AttackSpec.parse(text).name for text in (SMALLER, PGD)]
    for key, other in [("clean", names[0]), (names[0], names[1]), ("robust", names[1])]:
        assert all(a[0] >= b[0] and a[1] == b[1] for a, b in zip(accuracy[key], accuracy[other], strict=True))


def test_sea_leaves_no_more_of_an_image_than_each_of_its_attacks_alone_would(pair):
    report = run(pair, attacks=[SEA])
    assert figures(report)["pixel accuracy"][1] < figures(report)["pixel accuracy"][0]
    assert [spec.name for spec in report.attacks] == ["SEA-10 linf 8/255"]


def test_the_iou_of_each_class_is_told(report):
    table = report.class_rows()
    assert [rows[0] for rows in table] == [["IoU of scenes", "clean", "robust linf 8/255"]]
    of_pairs = report.sets[0].class_ious("clean")
    assert set(of_pairs) <= set(NAMES) and sum(of_pairs.values()) / len(of_pairs) == pytest.approx(
        report.sets[0].clean_accuracy
    )


def with_masks_ignored(rows: datasets.Dataset, which: Sequence[int], processor) -> SegmentationDataset:
    """The set with all pixels of some masks ignored."""
    columns = {name: list(rows[name]) for name in rows.column_names}
    for row in which:
        columns["mask"][row] = Image.new("L", columns["mask"][row].size, 255)
    changed = datasets.Dataset.from_dict(columns, features=rows.features)
    return SegmentationDataset(changed, processor, NAMES, ["a {}"], name="scenes")


def test_masks_that_are_all_ignored_change_no_figure(pair):
    rows = make_masked(8, SIZES)
    half = run(pair, data=with_masks_ignored(rows.select(range(1, 8, 2)), [], pair[1]))
    whole = run(pair, data=with_masks_ignored(rows, range(0, 8, 2), pair[1]))
    for one, other in zip(half.sets, whole.sets, strict=True):
        assert one.clean_accuracy == pytest.approx(other.clean_accuracy) and other.num_samples == 8
    with pytest.raises(ValueError, match="in whose 8 masks every pixel is ignored"):
        run(pair, data=with_masks_ignored(rows, range(8), pair[1]))


def test_rounding_to_8_bits_is_judged_too(pair):
    report = run(pair, eight_bit=True)
    for result in report.sets:
        assert result.robust_accuracy - 0.05 <= result.robust_8bit_accuracy <= result.clean_accuracy


def test_counts_of_batches_are_those_of_single_images():
    predicted = torch.randint(0, 4, (5, 6, 7), generator=torch.Generator().manual_seed(0))
    masks = torch.randint(-1, 4, (5, 6, 7), generator=torch.Generator().manual_seed(1))
    assert count_pixels(predicted, masks) == [
        count_pixels(a[None], b[None])[0] for a, b in zip(predicted, masks, strict=True)
    ]


# ---- In whatever company ----


@pytest.mark.parametrize(
    "options", [{"batch_size": 1}, {"batch_size": 3}, {"batch_size": 2, "num_workers": 1}], ids=str
)
def test_a_report_depends_on_neither_batches_nor_workers(pair, report, options):
    assert run(pair, attacks=[PGD, SMALLER], **options).to_dict() == report.to_dict()


def test_a_run_that_was_killed_goes_on_to_the_same_report(pair, report, tmp_path):
    file = tmp_path / "verdicts.jsonl"
    run(pair, attacks=[PGD, SMALLER], verdict_file=file, batch_size=2)
    lines = file.read_text().splitlines(keepends=True)
    for count in (1, 3, len(lines) - 2):
        file.write_text("".join(lines[:count]) + lines[count][:-5])
        assert run(pair, attacks=[PGD, SMALLER], verdict_file=file, batch_size=2).to_dict() == report.to_dict()


def run_shared(file: Path) -> dict:
    pair = make_model(), make_processor()
    return run(pair, attacks=[PGD, SEA], batch_size=2, verdict_file=file).to_dict()


def test_two_processes_report_what_one_reports(tmp_path):
    torchrun(2, __file__, tmp_path)
    one = json.loads(json.dumps(run_shared(tmp_path / "alone.jsonl")))
    assert [json.loads((tmp_path / f"report-{rank}.json").read_text()) for rank in (0, 1)] == [one, one]


def test_a_mixed_report_has_rows_of_both_tasks(pair):
    labelled = make_labelled(pair[1])
    model, processor = pair
    report = evaluate_robustness(
        model, processor, [make_data(processor), labelled], ["pgd,eps=4/255,num_steps=3"], progress=False
    )
    assert [result.figure.title for result in report.sets] == ["mIoU", "pixel accuracy", "accuracy"]
    assert report.mean_clean_accuracy == report.sets[0].clean_accuracy


# ---- Reports ----


def test_a_saved_report_comes_back_whole_and_a_changed_figure_is_seen(report, tmp_path):
    file = tmp_path / "robustness.json"
    report.save(file)
    loaded = RobustnessReport.load(file)
    assert loaded.sets == report.sets and loaded.protocol == report.protocol
    assert loaded.sets[0].robust_interval == report.sets[0].robust_interval

    entry = json.loads(file.read_text())
    entry["sets"][0]["robust_accuracy"] += 0.01
    file.write_text(json.dumps(entry))
    with pytest.raises(ValueError, match="robust figure of 'scenes mIoU'"):
        RobustnessReport.load(file)


def test_two_models_are_compared_image_by_image(pair, report):
    other = run((make_model(seed=1), pair[1]), attacks=[PGD, SMALLER])
    comparison = compare_reports(report, other)
    for first, second in zip(report.sets, other.sets, strict=True):
        of_set = comparison.sets[first.name]
        assert of_set["robust"].difference == pytest.approx(second.robust_accuracy - first.robust_accuracy)
        assert of_set["robust"].interval[0] <= of_set["robust"].difference <= of_set["robust"].interval[1]
        assert "linf 2/255" in of_set


def test_bars_of_both_figures_are_named_by_none_of_them(report, tmp_path):
    clean, robust = robustness_bars({"tiny": report}, tmp_path / "bars.png").axes
    assert clean.get_title() == "Clean figures" and robust.get_title().startswith("Robust figures under PGD-5")
    names = [label.get_text() for label in robust.get_xticklabels()]
    assert names == ["scenes mIoU", "scenes pixel accuracy", "mean mIoU"]
    curve = robustness_curve({"tiny": report}, tmp_path / "curve.png", figure="pixel accuracy").axes[0]
    assert [label.get_text() for label in curve.get_xticklabels()] == ["0", "2", "8"]


def test_what_figures_depend_on_stands_in_the_protocol(pair, report, tmp_path):
    entry = report.protocol["sets"]["scenes"]
    assert entry["attacked_at"] == "the size of each image"
    expected = {"readout": "sclip", "scale": 40.0, "window": 16, "window_stride": 8, "short_edge": None}
    assert expected.items() <= entry["segmentation"].items()

    run(pair, attacks=[SMALLER], verdict_file=tmp_path / "verdicts.jsonl")
    for options, key in (({"readout": "sclip,scale=20"}, "scale"), ({"readout": "clearclip"}, "readout")):
        with pytest.raises(ValueError, match=f"differs in .*protocol.sets.scenes.segmentation.{key}"):
            run(pair, attacks=[SMALLER], verdict_file=tmp_path / "verdicts.jsonl", **options)


# ---- What is refused, before anything is computed ----


REFUSED = {
    "an attack that knows no pixels": ({"attacks": ["square,eps=4/255"]}, "Square"),
    "AutoAttack": ({"attacks": ["autoattack,eps=4/255"]}, "AutoAttack standard"),
    "no such readout": ({"readout": "clip"}, "no readout 'clip'"),
    "an option twice": ({"readout": "sclip,scale=3,scale=4"}, "'scale=4' is no option"),
    "an option of something else": ({"readout": "sclip,eps=3"}, "'eps=3' is no option"),
    "a scale that is none": ({"readout": "sclip,scale=-3"}, "scale=-3"),
    "a stride beyond the window": ({"readout": "sclip,window_stride=20"}, "window_stride=20"),
    "attacks in half precision": ({"attack_precision": "bf16"}, "attack_precision='bf16' with 'scenes'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_serve_is_refused_before_an_image_is_judged(pair, case, monkeypatch):
    options, message = REFUSED[case]
    monkeypatch.setattr(Segmenter, "from_model", None)
    with pytest.raises(ValueError, match=message):
        run(pair, **options)


def test_a_head_and_images_that_no_window_fits_are_refused(pair, monkeypatch):
    monkeypatch.setattr(Segmenter, "from_model", None)
    with pytest.raises(ValueError, match="a head with 'scenes'"):
        run(pair, head=NearestClassMean([make_labelled(pair[1])]))
    small = SegmentationDataset(make_masked(3, ((16, 16), (16, 12))), pair[1], NAMES, ["a {}"], name="scenes")
    with pytest.raises(ValueError, match="row 1 of 'scenes' has 16 x 12 pixels, .* Pass short_edge=16"):
        run(pair, data=small)


def test_losses_of_pixels_are_refused_where_images_are_classified(pair):
    with pytest.raises(ValueError, match="masked_ce"):
        evaluate_robustness(*pair, [make_labelled(pair[1])], [PGD], progress=False)


if __name__ == "__main__":
    PartialState(cpu=True)
    shared = run_shared(Path(sys.argv[1]) / "verdicts.jsonl")
    (Path(sys.argv[1]) / f"report-{os.environ['RANK']}.json").write_text(json.dumps(shared))
    torch.distributed.barrier()
    os._exit(0)
