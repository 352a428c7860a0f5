"""Prompt templates: what is passed as `prompt_templates`, and what becomes of names in them."""

import pytest
from support.borders import Refused, check, outcomes

from hf_pmgaft import ZeroShotDataset, encode_class_names, evaluate_robustness
from hf_pmgaft.prompts import check_prompt_templates
from hf_pmgaft.zero_shot import ClassPrompts

NOT_ONE = "cannot take a class name"

CASES = {
    "a text": ("a photo of a {}", ["a photo of a {}"]),
    "several": (("a {}", "the {}"), ["a {}", "the {}"]),
    "the place alone": ("{}", ["{}"]),
    "no place": ("a photo", Refused(NOT_ONE)),
    "two places": ("{} and {}", Refused(NOT_ONE)),
    "a doubled brace": ("a photo of a {{}}", Refused(NOT_ONE)),
    "a doubled brace beside the place": ("a {{x}} of a {}", ["a {{x}} of a {}"]),
    "a named place": ("a photo of a {name}", Refused(NOT_ONE)),
    "a named place beside one": ("a {} in {style}", Refused(NOT_ONE)),
    "a numbered place": ("a photo of a {0}", Refused(NOT_ONE)),
    "a single brace": ("a photo of a {} }", Refused(NOT_ONE)),
    "a place of old style": ("a photo of a %s", Refused(NOT_ONE)),
    "another language's place": ("a photo of a <class>", Refused(NOT_ONE)),
    "a file": ("templates.txt", Refused(NOT_ONE)),
    "an empty list": ([], Refused(NOT_ONE)),
    "an empty text": ("", Refused(NOT_ONE)),
    "none": (None, Refused("is no list of texts")),
    "a number": (7, Refused("is no list of texts")),
    "a dict": ({"photo": "a photo of a {}"}, Refused("is no list of texts")),
    "a set": ({"a {}"}, Refused("is no list of texts")),
    "no text in the list": (["a {}", None], Refused(NOT_ONE)),
    "functions, as CLIP's notebook has them": ([lambda name: f"a {name}"], Refused(NOT_ONE)),
    "a zero-width space": ("a photo of a \u200b{}", Refused("The prompt template, 'a photo of a \\u200b{}', holds")),
}


@outcomes(CASES)
def test_templates(given, outcome):
    check(lambda: check_prompt_templates(given), outcome)


LONG = "a thing of which there is so much to say that no text tower hears the end of it " * 4

TEXTS = {
    "names that differ": (["red disc", "red square"], "a {}", 2),
    "names that differ at the end of what is read": ([f"{LONG}disc", f"{LONG}square"], "{}", None),
    "a long template": (["disc", "square"], f"{LONG}{{}}", None),
    "a long template beside a short one": (["disc", "square"], [f"{LONG}{{}}", "a {}"], 4),
    "names that differ at the beginning of a long text": ([f"red {LONG}", f"blue {LONG}"], "a {}", 2),
}


@pytest.mark.parametrize(("names", "templates", "count"), TEXTS.values(), ids=list(TEXTS))
def test_classes_with_the_same_tokens_are_refused(model, processor, names, templates, count):
    if count is None:
        with pytest.raises(ValueError, match=r"Classes 0 \(.*\) and 1 \(.*\) are the same \d+ tokens"):
            encode_class_names(model, processor, names, templates)
    else:
        assert len(ClassPrompts.of(model, processor, names, templates).input_ids) == count


def test_an_evaluation_looks_at_all_texts_before_it_judges(model, processor, images, monkeypatch):
    good = ZeroShotDataset(images, processor, name="good")
    bad = ZeroShotDataset(images, processor, prompt_templates=f"{LONG}{{}}", name="bad")
    monkeypatch.setattr(ZeroShotDataset, "__getitem__", lambda *_: pytest.fail("An image was read."))
    with pytest.raises(ValueError, match="are the same .* tokens"):
        evaluate_robustness(model, processor, [good, bad], progress=False)
