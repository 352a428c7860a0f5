"""Grids: what a YAML file and flags make of sets, methods, shots and seeds, and what they must not say."""

import pytest
import yaml
from support.grids import make_grid
from support.paths import ROOT

from hf_pmgaft.cli.few_shot import EMBEDDED
from hf_pmgaft.cli.few_shot_checks import option_names
from hf_pmgaft.few_shots.grid import PROTOCOLS, Grid, parse_shots
from hf_pmgaft.few_shots.row import rows_of

OWN = """
sets: {one: {train: one@train, test: one@test, prompt_template: "a {}"}, two: two}
methods: {tecoa: {learning_rate: 1.0e-3}, mine: {recipe: pmg_aft}, none: }
shots: [1, all]
seeds: [0, 1]
model: model
base_to_new: {shots: [all], methods: [tecoa]}
cross: {tests: {food: {test: food@test}}}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(OWN)
    return path


def test_rows_are_methods_times_shots_times_seeds_times_sets_and_one_untrained_per_set(file):
    rows = rows_of(Grid.read(file), option_names())
    trained = [row for row in rows if row.options]
    assert len(trained) == 2 * 2 * 2 * 2 and len(rows) == len(trained) + 2
    assert len({row.folder for row in rows}) == len(rows)
    seeds = [row.seed for row in rows]
    assert seeds == sorted(seeds)  # so that a grid that is stopped has whole seeds


def test_a_row_trains_the_recipe_with_the_grids_options_over_it(file):
    rows = {row.name: row for row in rows_of(Grid.read(file), option_names())}
    options = rows["one, tecoa, 1 shot, seed 1"].options
    assert options["objective"] == "tecoa" and options["optim"] == "sgd" and options["learning_rate"] == 1e-3
    assert options["dataset_name"] == "one@train" and options["prompt_template"] == "a {}"
    assert (options["shots"], options["seed"], options["model_name_or_path"]) == (1, 1, "model")
    assert options["do_eval"] is False and options["dataloader_drop_last"] is False
    assert not {"suite", "limit", "eval_sets"} & set(options)
    assert "shots" not in rows["one, mine, all shots, seed 0"].options
    assert rows["two, mine, all shots, seed 0"].options["objective"] == "pmg_aft"
    assert not rows["one, none"].options and rows["one, none"].model == "model"


def test_a_recipes_options_of_its_objective_go_with_it(tmp_path):
    methods = {"robust": {"recipe": "emoji", "objective": "tecoa"}, "guided": {"recipe": "emoji"}}
    rows = rows_of(make_grid(tmp_path, methods=methods), option_names())
    options = {row.method: row.options for row in rows}
    assert "objective_kwargs" not in options["robust"] and options["guided"]["objective_kwargs"] == {"alpha": 2.0}


def test_captions_are_read_for_objectives_that_use_them_alone(tmp_path):
    entries = {"sets": {"one": {"train": "one", "caption_column": "label,tags"}}, "methods": ["r_adapter", "tecoa"]}
    columns = {
        row.method: row.options.get("caption_column")
        for row in rows_of(make_grid(tmp_path, **entries), option_names())
    }
    assert columns == {"r_adapter": "label,tags", "tecoa": None}


def test_entries_of_a_protocol_take_the_place_of_the_others(file):
    assert Grid.read(file).shots == [1, None] and not Grid.read(file).tests
    halves = Grid.read(file, {"protocol": "base_to_new"})
    assert halves.shots == [None] and list(halves.methods) == ["tecoa"]
    cross = Grid.read(file, {"protocol": "cross"})
    assert [entry.name for entry in cross.tests_of("one")] == ["food"]


def test_across_sets_each_is_tested_on_all_others(tmp_path):
    grid = make_grid(tmp_path, sets=["one", "two", "three"], protocol="cross")
    assert [entry.name for entry in grid.tests_of("two")] == ["one", "three"]


def test_base_to_new_trains_on_base_and_tests_both_halves(tmp_path):
    rows = rows_of(make_grid(tmp_path, protocol="base_to_new"), option_names())
    assert {row.options["only_classes"] for row in rows} == {"base"}
    assert {tuple(test.half for test in row.tests) for row in rows} == {("base", "new")}
    plain = rows_of(make_grid(tmp_path), option_names())
    assert not {row.folder for row in rows} & {row.folder for row in plain}


def test_plain_and_cross_share_what_is_trained(tmp_path):
    plain, cross = (
        rows_of(make_grid(tmp_path, sets=["one", "two"], protocol=p), option_names()) for p in ("plain", "cross")
    )
    assert [row.folder for row in plain] == [row.folder for row in cross]
    assert not {row.report_file for row in plain} & {row.report_file for row in cross}


def test_flags_choose_methods_and_sets_of_the_file_or_name_others(file):
    grid = Grid.read(file, {"methods": ["mine", "fap"], "sets": ["one", "dtd"], "shots": ["4", "all"], "seeds": [7]})
    assert grid.methods == {"mine": {"recipe": "pmg_aft"}, "fap": {"recipe": "fap"}}
    assert grid.sets["one"].test == "one@test" and grid.sets["dtd"].train == "dtd"
    assert grid.shots == [4, None] and grid.seeds == [7] and grid.baseline == "mine"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_embedded_grid_has_rows_of_every_protocol(protocol):
    grid = Grid.read(EMBEDDED, {"protocol": protocol})
    rows = rows_of(grid, option_names())
    methods = {"none", "tecoa", "pmg_aft", "apt", "fap", "capt", "adv_clip_lora", "r_adapter"}
    assert set(grid.methods) == methods and grid.baseline == "tecoa"
    assert all(row.tests for row in rows if row.protocol != "backbone")
    assert [row.name for row in rows if row.after is not None and row.method != "apt"] == []


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"sets": []}, "names no sets"),
        ({"methods": {}}, "names no methods"),
        ({"methods": ["tekoa"]}, "the recipe 'tekoa', which there is not. Choose of"),
        (
            {"methods": {"tecoa": {"lerning_rate": 1}}},
            r"tecoa of the grid has options .*lerning_rate \(did you mean learning_rate",
        ),
        ({"methods": {"tecoa": {"seed": 1}}}, "tecoa of the grid has seed, which the rows of the grid set"),
        ({"settings": {"output_dir": "x"}}, "settings of the grid has output_dir"),
        (
            {"methods": {"apt": {"backbone": "robust"}}},
            "starts from 'robust', which is no backbone of the grid. It has: none",
        ),
        ({"shots": [0]}, "0 shots, which is no number of images"),
        ({"shots": ["some"]}, "'some' shots"),
        ({"shots": [1, 1]}, r"the shots \[1, 1\]. Name at least one, and each once"),
        ({"seeds": [-1]}, "seeds=-1, which is no count"),
        ({"seeds": []}, r"the seeds \[\]"),
        ({"baseline": "fap"}, "baseline 'fap' is no method of the grid. It has: tecoa, pmg_aft"),
        ({"protocol": "crosss"}, "no protocol 'crosss'"),
        ({"protocol": "cross"}, "cross tests on other sets than those of training, and the grid has none"),
        ({"sets": {"one": {}}}, "the set 'one' of the grid is {}, which names no images|The set 'one' of the grid is"),
        ({"sets": {"one": {"train": "a", "tset": "b"}}}, r"tset \(did you mean test"),
        ({"sets": {"one": {"train": "a", "new": ["x"]}}}, "names new classes and no base ones"),
    ],
)
def test_grids_that_cannot_be_computed_are_refused(entries, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        rows_of(make_grid(tmp_path, **entries), option_names())


def test_a_file_with_other_keys_is_refused(tmp_path):
    (tmp_path / "grid.yaml").write_text("set: one")
    with pytest.raises(ValueError, match=r"keys that are no options: set \(did you mean sets"):
        Grid.read(tmp_path / "grid.yaml")
    with pytest.raises(ValueError, match="You passed --grid .*none.yaml, which cannot be read"):
        Grid.read(tmp_path / "none.yaml")


def test_a_row_on_file_by_other_options_is_refused(tmp_path):
    from support.grids import compute

    for row in rows_of(make_grid(tmp_path), option_names()):
        row.folder.mkdir(parents=True)
        compute(row)
        row.check()
    changed = {"methods": {"tecoa": {"learning_rate": 0.5}}}
    with pytest.raises(ValueError, match="holds this row by other options: learning_rate was .*and is 0.5"):
        rows_of(make_grid(tmp_path, **changed), option_names())[0].check()
    with pytest.raises(ValueError, match="holds this row by other options: max_samples was None and is 20"):
        rows_of(make_grid(tmp_path, max_samples=20), option_names())[0].check()
    with pytest.raises(ValueError, match="remove that folder to have it computed anew"):
        rows_of(make_grid(tmp_path, eps="8/255"), option_names())[0].check()


def test_a_model_that_is_trained_anew_has_no_reports(tmp_path):
    from support.grids import compute

    (row, *_) = rows_of(make_grid(tmp_path), option_names())
    row.folder.mkdir(parents=True)
    compute(row)
    row.forget()
    assert not row.report_file.exists() and not row.is_done() and row.is_trained()


def test_a_folder_that_was_moved_is_still_its_own(tmp_path):
    from support.grids import compute

    (row, *_) = rows_of(make_grid(tmp_path / "there"), option_names())
    row.folder.mkdir(parents=True)
    compute(row)
    (tmp_path / "there").rename(tmp_path / "here")
    (moved, *_) = rows_of(make_grid(tmp_path / "here"), option_names())
    assert moved.is_done()
    moved.check()


def test_shots_are_numbers_or_all():
    assert [parse_shots(value) for value in (1, "16", "all", None)] == [1, 16, None, None]
    for value in (0, -1, "few", 1.5, True):
        with pytest.raises(ValueError, match="no number of images"):
            parse_shots(value)


def test_the_study_has_the_embedded_grid_with_more_shots_and_seeds():
    study = yaml.safe_load((ROOT / "examples/studies/few_shots.yaml").read_text())
    embedded = yaml.safe_load(EMBEDDED.read_text())
    differing = {key for key in study if study[key] != embedded.get(key)}
    assert set(study) == set(embedded) and differing == {"shots", "seeds", "output_dir"}
    assert study["shots"] == [1, 4, 16, "all"] and study["seeds"] == [0, 1, 2]
