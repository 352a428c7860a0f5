"""Every example of a docstring runs, and prints what it says."""

import copy
import doctest
import importlib
import inspect
import pkgutil

import pytest
import torch
from support.tiny import CLASS_NAMES, fit_model, make_images

import hf_pmgaft
from hf_pmgaft.models import unwrap

MODULES = sorted(module.name for module in pkgutil.walk_packages(hf_pmgaft.__path__, "hf_pmgaft."))
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture(scope="module")
def names() -> dict:
    """What examples may use without making it: a tiny CLIP that has learned four classes, and images of them."""
    model, processor = fit_model()
    unwrap(model)  # DeepSpeed, where it is installed, prints a line when it is first asked
    dataset = make_images(16)
    pixel_values = processor.image_processor(list(dataset["image"]), return_tensors="pt", do_normalize=False)
    return {
        "torch": torch,
        "model": model,
        "processor": processor,
        "dataset": dataset,
        "class_names": CLASS_NAMES,
        "images": pixel_values["pixel_values"],
        "labels": torch.tensor(dataset["label"]),
    }


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    docstrings = doctest.DocTestFinder(exclude_empty=True).find(module, extraglobs=names)
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    for docstring in docstrings:
        if docstring.examples:
            docstring.globs["model"] = copy.deepcopy(names["model"])  # which examples may train and change
            runner.run(docstring)
    assert runner.summarize(verbose=False).failed == 0


PUBLIC = [getattr(hf_pmgaft, name) for name in hf_pmgaft.__all__]


@pytest.mark.parametrize("public", [one for one in PUBLIC if inspect.isclass(one) or inspect.isfunction(one)])
def test_every_public_class_and_function_has_an_example(public):
    assert doctest.DocTestParser().get_examples(public.__doc__)
