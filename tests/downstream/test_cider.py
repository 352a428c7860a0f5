"""CIDEr-D: the golden values of the reference scorer, and what our tokenizer splits otherwise."""

import pytest
from support.vlm_golden import GOLDEN

from hf_pmgaft.downstream.cider import CiderD, caption_tokens

CASES = GOLDEN["cider"]
REFERENCES = [[text.split() for text in of_image] for of_image in CASES["references"]]
CAPTIONS = [text.split() for text in CASES["hypotheses"]]


def scores(references, captions) -> list[float]:
    cider = CiderD(references)
    return [cider.score(tokens, place) for place, tokens in enumerate(captions)]


def test_values_are_those_of_the_reference_scorer():
    assert scores(REFERENCES, CAPTIONS) == pytest.approx(CASES["per_image"], abs=1e-9)
    assert sum(scores(REFERENCES, CAPTIONS)) / 6 == pytest.approx(CASES["mean"], abs=1e-9)


@pytest.mark.parametrize(
    "case, references, captions",
    [
        ("empty_hypothesis_for_image_3", REFERENCES, [*CAPTIONS[:3], [], *CAPTIONS[4:]]),
        ("only_images_0_1_2", REFERENCES[:3], CAPTIONS[:3]),
        ("first_three_references", [of_image[:3] for of_image in REFERENCES], CAPTIONS),
    ],
)
def test_an_empty_caption_another_set_and_fewer_references_give_the_golden_values(case, references, captions):
    assert scores(references, captions) == pytest.approx(CASES[case]["per_image"], abs=1e-9)


def test_a_single_image_scores_nothing():
    assert scores(REFERENCES[:1], CAPTIONS[:1]) == [CASES["only_image_0_in_the_corpus"]] == [0.0]


def test_the_tokenizer_agrees_but_for_the_captions_that_are_listed():
    pairs = GOLDEN["tokenizer"]["pairs"]
    differing = [raw for raw, tokens in pairs if " ".join(caption_tokens(raw)) != tokens]
    assert differing == GOLDEN["tokenizer"]["plain_rule_differs"] and len(pairs) - len(differing) == 41
    assert [[" ".join(caption_tokens(raw)) for raw in of_image] for of_image in CASES["references_raw"]] == CASES[
        "references"
    ]
    assert [" ".join(caption_tokens(raw)) for raw in CASES["hypotheses_raw"]] == CASES["hypotheses"]


def test_no_punctuation_is_left_of_a_caption():
    assert not {token for raw, _ in GOLDEN["tokenizer"]["pairs"] for token in caption_tokens(raw)} & set(
        GOLDEN["tokenizer"]["dropped_tokens"]
    )


def test_an_image_without_references_is_refused():
    with pytest.raises(ValueError, match="no reference for 1 of 2 images, such as image 1"):
        CiderD([[["a", "cat"]], []])
