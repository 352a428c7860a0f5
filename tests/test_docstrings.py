"""Every example of a docstring runs, and prints what it says."""

import copy
import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Callable

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
    if name.startswith("hf_pmgaft.demo."):
        pytest.importorskip("gradio")
    module = importlib.import_module(name)
    docstrings = doctest.DocTestFinder(exclude_empty=True).find(module, extraglobs=names)
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    for docstring in docstrings:
        if docstring.examples:
            docstring.globs["model"] = copy.deepcopy(names["model"])  # which examples may train and change
            runner.run(docstring)
    assert runner.summarize(verbose=False).failed == 0


def handed_on() -> dict[str, Callable]:
    """The classes and functions that the package and its folders hand on, by the name of a folder and their own."""
    folders = [
        "hf_pmgaft",
        *(module.name for module in pkgutil.walk_packages(hf_pmgaft.__path__, "hf_pmgaft.") if module.ispkg),
    ]
    names = {}
    for folder in map(importlib.import_module, folders):
        for name in getattr(folder, "__all__", []):
            value = getattr(folder, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                names[f"{folder.__name__}.{name}"] = value
    return names


PUBLIC = handed_on()


def test_what_folders_hand_on_is_seen():
    names = {"hf_pmgaft.PMGAFTTrainer", "hf_pmgaft.data.check_label_column", "hf_pmgaft.evaluation.Comparison"}
    assert names <= set(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_class_and_function_has_an_example(name):
    assert doctest.DocTestParser().get_examples(PUBLIC[name].__doc__)
