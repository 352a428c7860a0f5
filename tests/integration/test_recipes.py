"""Every recipe does what it says, over a Hub that serves models and sets by their names: data, budget, sets, card."""

import math

import pytest
from support.hub_server import own_hub
from support.hub_sets import SUITE
from support.recipe_table import HEADER, stored_rows, write_page
from support.recipes import COLOURS, caption, put_all, recipe, train_by, write_captioned

from hf_pmgaft.arguments import recipe_names
from hf_pmgaft.fingerprints import digest_of_list
from hf_pmgaft.suites.known import find_known_set

PUSHED = ["--push_to_hub", "--hub_model_id", "user/clip-pmgaft"]
FEW = ["tiny_imagenet", "dtd"]
FIRST = {"apt": ("tecoa", "--eps", "4/255")}  # what a recipe builds on
# What their headers say beside the class names of a known set: captions, learned context, or no text.
CAPTIONED = ("advflyp", "qt_aft", "r_adapter")
LEARNED = ("apt", "capt", "fap")
WITHOUT_TEXT = ("fare", "sim_clip")


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub with all that recipes name, in a folder with what two of them have there."""
    folder = tmp_path_factory.mktemp("recipes")
    write_captioned(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with own_hub(patch, folder) as server:
            put_all(server)
            yield server


@pytest.fixture(scope="module")
def rows(request):
    """The rows of the table, which `--write` puts in the place of those on the page."""
    rows = {}
    yield rows
    if request.config.getoption("write"):
        write_page({**stored_rows(), **rows})


def test_a_recipe_trains_measures_and_pushes_what_it_says(hub):
    run = train_by("pmg_aft", *PUSHED, "--suite_sets", *FEW)
    check_run(run, FEW)
    pushed = hub.repos["user/clip-pmgaft"].files
    for name in (
        "README.md",
        "model.safetensors",
        "robustness.json",
        "robustness_before.json",
        "training_config.json",
    ):
        assert pushed[name] == (run.folder / name).read_bytes(), name


def test_a_recipe_of_captions_trains_on_them(hub):
    check_run(train_by("advflyp", "--suite_sets", *FEW), FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_does_its_whole_job(hub, rows, request, name):
    if name in FIRST:
        train_by(*FIRST[name], "--overwrite", "true")
    run = train_by(name, "--overwrite", "true")
    check_run(run, list(SUITE))
    rows[name] = run.row()
    if not request.config.getoption("write"):
        assert rows[name][:-1] == stored_rows()[name][:-1]


def test_the_table_of_recipes_has_all_of_them():
    assert sorted(stored_rows()) == recipe_names()
    assert {len(row) for row in stored_rows().values()} == {len(HEADER)}


def check_run(run, sets) -> None:
    stated = recipe(run.recipe)
    config = run.read("training_config.json")
    check_texts(run, stated, config)

    # Budget
    batch = stated.get("total_train_batch_size") or stated["per_device_train_batch_size"]
    assert run.images_per_step == batch == config["training"]["images_per_step"]
    assert run.clipped_to == ([stated["max_grad_norm"]] * 2 if stated["max_grad_norm"] else [])
    assert config["max_grad_norm"] == stated["max_grad_norm"]
    assert config["training"]["max_grad_norm"] == (stated["max_grad_norm"] or None)
    assert run.trainer.args.get_warmup_steps(1000) == math.ceil(stated["warmup_steps"] * 1000) or run.recipe == "emoji"
    assert f"{batch:g} = " in run.card.text

    # Figures, before and after in one protocol
    before, after = run.trainer.first_report, run.report
    assert before.protocol_hash == after.protocol_hash
    assert after.provenance["training"] == config["training"] and "training" not in before.provenance
    if run.recipe == "emoji":
        sets = [place.split(":")[-1] for place in stated["eval_sets"]]
    else:
        assert after.provenance["suite"] == config["provenance"]["suite"] == "paper16"
        assert f"Suite: `paper16`, {len(sets)} sets." in run.card.text
    assert [result.name for result in after.sets] == sets
    assert {result.num_samples for result in after.sets} == {2}
    figures = run.figures()
    for result in after.sets:
        assert figures[result.name, "clean_accuracy"] == pytest.approx(100 * result.clean_accuracy)
        assert figures[result.name, "robust_accuracy"] == pytest.approx(100 * result.robust_accuracy)
    assert len(figures) == 2 * (len(sets) + 1)

    # Where it is all from
    if run.recipe != "emoji":
        assert len(config["provenance"]["base_model"].get("commit", "")) == 40 or run.recipe == "apt"
        assert all(len(source["commit"]) == 40 for source in after.provenance["sets"].values())
    statistics = run.trainer.processing_class.image_processor
    assert config["training"]["image_mean"] == list(statistics.image_mean) == list(after.model["image_mean"])
    if "image_mean" in stated:
        assert after.model["image_mean"] == stated["image_mean"] != before.model["image_mean"]
        assert "The figures before are of the model as it came, with mean 0.4815" in run.card.text


def check_texts(run, stated, config) -> None:
    """What images were compared with, and that it is told."""
    known = find_known_set(stated["dataset_name"])
    if known is not None:
        names = known.entry["class_names"]
        told = config["training"]["class_names"]
        assert told == {"count": len(names), "digest": digest_of_list(names), "first": names[:3]}
        assert config["training"]["prompt_templates"] == [stated["prompt_template"]]
        assert config["provenance"]["training_set"]["path"] == known.entry["path"]
        assert len(config["provenance"]["training_set"]["commit"]) == 40
        assert f"`{names[0]}`, `{names[1]}`" in run.card.text

    texts = run.texts()
    if run.recipe in CAPTIONED:
        assert set(texts) <= {caption(row) for row in range(len(COLOURS))} and texts
        assert config["training"]["captions"]
    elif run.recipe in WITHOUT_TEXT:
        assert texts == []
    elif run.recipe in LEARNED:
        assert texts[0] == f"{names[0]} ." and config["training"]["learned_context"] > 0
    elif known is not None:
        assert texts[0].rstrip(" .") == stated["prompt_template"].format(names[0]).rstrip(".")
        assert names[0] in ("goldfish", "tench")
