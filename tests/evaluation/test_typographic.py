"""Evaluation under words that are written on the images."""

import pytest
from support.captions import captioned
from support.masked import NAMES, make_masked
from support.sets import make_large

from hf_pmgaft import AttackSpec, RetrievalDataset, SegmentationDataset, evaluate_robustness
from hf_pmgaft.evaluation.plan import Plan

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
