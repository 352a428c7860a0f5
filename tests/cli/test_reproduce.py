"""`pmgaft reproduce`: what it says a recipe runs and costs, and that it runs it."""

import json

import pytest
import torch
from support.captions import captioned
from support.tiny import make_images, make_processor
from support.trainers import make_trainer

from hf_pmgaft.cli import reproduce, train
from hf_pmgaft.cli.recipes import recipe_files
from hf_pmgaft.data import training_examples
from hf_pmgaft.objectives import OBJECTIVES, make_objective

FACTS = json.loads(reproduce.FACTS.read_text(encoding="utf-8"))
RECIPES = [file.stem for file in recipe_files() if file.stem != "emoji"]


def plan(recipe: str, *flags: str) -> reproduce.Plan:
    return reproduce.make_plan(*train.parse(["--recipe", recipe, *flags]), FACTS["train_images"])


def passes(views) -> int:
    """How many passes gave what was computed; one gives embeddings and patches."""
    return len({name.partition("_")[0] for name in views.computed() if name.endswith(("_embeds", "_patches"))})


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_the_passes_of_an_objective_are_those_of_a_step(name, tmp_path):
    images, options = make_images(8), {}
    if make_objective(name).uses_captions:
        images, options = captioned(labels=True), {"caption_column": "caption"}
    data = training_examples(images, make_processor(), **options)
    trainer = make_trainer(tmp_path, data, objective=name, per_device_train_batch_size=4)

    result = trainer.step(trainer.model, next(iter(trainer.get_train_dataloader())), 0)
    assert {"student": passes(result.student), "teacher": passes(result.teacher)} == FACTS["passes"][name]


@pytest.mark.parametrize(
    "recipe, images, steps, batch",
    [
        ("pmg_aft", 100_000, 3_900, 256),
        ("tga_zsr", 100_000, 7_810, 128),
        ("agft", 1_281_167, 50_040, 256),
        ("fare", 1_281_167, 20_000, 128),
        ("apt", 16_000, 25_000, 32),
    ],
)
def test_a_plan_has_the_steps_of_the_papers(recipe, images, steps, batch):
    made = plan(recipe)
    assert (made.images, made.steps, made.batch) == (images, steps, batch)
    assert made.evaluated == 16_000


def test_flags_of_train_change_the_plan():
    made = plan("pmg_aft", "--max_steps", "10", "--limit", "8", "--suite_sets", "dtd", "stl10", "--eps", "2/255")
    assert (made.steps, made.evaluated) == (10, 16)
    assert "eps 2/255" in reproduce.what_runs(made)["attack"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_has_a_plan_and_says_whether_figures_are_published(recipe, capsys):
    reproduce.main([recipe])
    out = capsys.readouterr().out
    assert "What runs" in out and "What it costs" in out
    assert ("published (%)" in out) == (recipe in FACTS["figures"])


def test_a_recipe_without_an_attack_says_so_and_costs_none(capsys):
    made = plan("smoothing")
    assert reproduce.what_runs(made)["attack"] == "none; normal noise of sigma 0.25"
    passes = {"student": 1, "teacher": 0}
    attacked = reproduce.what_it_costs(plan("tecoa"), passes)["training"]
    assert reproduce.what_it_costs(made, passes)["training"] != attacked


def test_published_figures_are_those_of_known_recipes():
    assert set(FACTS["figures"]) <= set(RECIPES) and set(FACTS["passes"]) == set(OBJECTIVES)
    for rows in FACTS["figures"].values():
        assert all(0 < value < 100 for row in rows for key, value in row.items() if key not in ("source", "setting"))


def test_it_runs_the_recipe_with_the_flags_that_it_was_given(monkeypatch, capsys):
    lines = []
    monkeypatch.setattr(train, "main", lines.append)
    reproduce.main(["tecoa", "--max_steps", "2"])
    assert lines == []
    reproduce.main(["tecoa", "--run", "--max_steps", "2"])
    assert lines == [["--recipe", "tecoa", "--max_steps", "2"]]


@pytest.mark.parametrize("flags", [["nothing"], ["tecoa", "--tflops", "0"], []])
def test_what_cannot_be_planned_is_refused(flags, capsys):
    with pytest.raises(SystemExit):
        reproduce.main(flags)
    assert "error" in capsys.readouterr().err


def test_an_unknown_flag_of_train_is_refused_in_one_line():
    with pytest.raises(SystemExit) as end:
        reproduce.main(["tecoa", "--learningrate", "1"])
    assert "learningrate" in str(end.value) and "\n" not in str(end.value)


def test_nothing_is_computed_for_the_plan(monkeypatch):
    monkeypatch.setattr(torch.nn.Module, "__call__", lambda *args, **kwargs: pytest.fail("a model ran"))
    assert plan("caw").steps == 3_900
