"""Evaluation under words that are written on the images."""

import pytest
import torch
from support.captions import captioned
from support.masked import NAMES, make_masked
from support.sets import make_large

from hf_pmgaft import AttackSpec, RetrievalDataset, RobustnessReport, SegmentationDataset, evaluate_robustness
from hf_pmgaft.attacks import write_words
from hf_pmgaft.evaluation.bare_models import classifier_of
from hf_pmgaft.evaluation.plan import Plan
from hf_pmgaft.evaluation.tables import render
from hf_pmgaft.hub.card import result_block
from hf_pmgaft.noise import sample_seeds

WORD = {"attack": "typographic", "height": 0.5, "words": 2, "places": 2}
RANDOM = {**WORD, "letters": "random"}


def run(fitted, attacks=(WORD, RANDOM), **options):
    options = {"progress": False, "probes": False, **options}
    return evaluate_robustness(*fitted, [make_large(fitted[1])], list(attacks), **options).sets[0]


def test_verdicts_do_not_depend_on_batches_and_words_and_letters_stand_beside_each_other(fitted):
    one, other = run(fitted, batch_size=3), run(fitted, batch_size=40)
    assert one == other
    assert set(one.threats) == {"typographic word 50%", "typographic random 50%"}
    assert one.clean_accuracy > max(one.threats.values()) and min(one.threats.values()) > 0
    names = [AttackSpec.of(attack).name for attack in (WORD, RANDOM)]
    assert one.verdicts[names[0]] != one.verdicts[names[1]]
    assert run(fitted, seed=1).verdicts["robust"] != one.verdicts["robust"]


def test_eight_bits_hold_what_is_written(fitted):
    result = run(fitted, [WORD], eight_bit=True)
    assert abs(result.robust_8bit_accuracy - result.robust_accuracy) < 0.1


def test_reports_tell_what_is_read_and_how_much_is_covered(fitted):
    report = evaluate_robustness(*fitted, [make_large(fitted[1])], [WORD, RANDOM], progress=False, probes=False)
    data, (result,) = make_large(fitted[1]), report.sets
    classifier = classifier_of(*fitted, data)
    rows = [row for row, right in enumerate(result.verdicts["clean"]) if right]
    images = torch.stack([data[row]["images"] for row in rows])
    labels = torch.tensor([data[row]["labels"] for row in rows])
    for attack in (WORD, RANDOM):
        options = {key: value for key, value in attack.items() if key != "attack"}
        seeds = sample_seeds(0, 0, torch.tensor(rows))
        written = write_words(classifier, images, labels, class_names=data.class_names, seeds=seeds, **options)
        with torch.no_grad():
            read = (classifier(written.images).argmax(1) == written.classes).float().mean().item()
        found = result.written[AttackSpec.of(attack).name]
        assert found["images"] == len(rows) and found["read"] == pytest.approx(read)
        assert found["covered"] == pytest.approx(written.covered.mean().item(), abs=1e-5)
        assert 0 < found["covered"] < 0.5
    read, control = (each["read"] for each in result.written.values())
    assert 0 < read != control

    header, *rows = report.written_rows()
    assert header[-3:] == ["standing", "taken for it", "area covered"]
    assert [row[0] for row in rows] == list(result.written)
    assert rows[0][3:5] == [f"{100 * result.attacks[rows[0][0]]:.1f}", f"{100 * read:.1f}"]
    assert render(report.written_rows(), "markdown") in result_block(report)


def test_what_was_written_is_in_the_report_and_its_file_and_comes_back(fitted, tmp_path):
    options = {"progress": False, "probes": False, "verdict_file": tmp_path / "verdicts.jsonl", "batch_size": 7}
    report = evaluate_robustness(*fitted, [make_large(fitted[1])], [WORD], **options)
    report.save(tmp_path / "report.json")
    assert RobustnessReport.load(tmp_path / "report.json") == report and report.sets[0].written

    lines = options["verdict_file"].read_text().splitlines(keepends=True)
    options["verdict_file"].write_text("".join(lines[:-3]))  # of a run that was killed
    assert evaluate_robustness(*fitted, [make_large(fitted[1])], [WORD], **options) == report
    plain = evaluate_robustness(*fitted, [make_large(fitted[1])], ["fgsm,eps=4/255"], progress=False)
    assert plain.written_rows() == [] and "written" not in plain.sets[0].to_dict()


def test_names_that_have_no_place_are_refused_with_their_set_before_any_work(data):
    with pytest.raises(ValueError, match=r"typographic word 50% .* on the set 'own': .*no place in 16 x 8 pixels"):
        Plan.of(data, [AttackSpec.of(WORD)])


def test_captions_and_masks_are_not_written(fitted):
    captions = RetrievalDataset(captioned(), fitted[1], name="captions")
    with pytest.raises(ValueError, match="You passed typographic word 50%.*Pass one of corruption, fgsm, pgd"):
        evaluate_robustness(*fitted, [captions], [WORD], progress=False)
    masked = SegmentationDataset(make_masked(), fitted[1], NAMES, name="scenes")
    with pytest.raises(ValueError, match="typographic word 50%.*no attack on pixels of segmentation"):
        Plan.of(masked, [AttackSpec.of(WORD)])
