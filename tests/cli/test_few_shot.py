"""`pmgaft few-shot`: what it refuses before any work, and a small grid from the first row to its table and picture."""

import json
import os
import subprocess
import sys

import datasets
import pytest
import yaml
from support.paths import ROOT
from support.tiny import CLASS_NAMES, make_images, make_model, make_processor

from hf_pmgaft.cli import few_shot
from hf_pmgaft.cli.few_shot import parse, prepare

SMALL = {"eps": "4/255", "optim": "adamw_torch", "learning_rate": 1e-3, "max_steps": 3, "save_strategy": "no"}
SMALL |= {"dataloader_num_workers": 0, "total_train_batch_size": 8, "use_cpu": True}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    make_model().save_pretrained(folder / "model")
    make_processor().save_pretrained(folder / "model")
    styles = [["flat", "ink"][i // 4 % 2] for i in range(24)]
    make_images(24).add_column("style", styles).to_parquet(folder / "train.parquet")
    make_images(16, seed=9).to_parquet(folder / "test.parquet")
    make_images(16, seed=9).select([0, 1, 2, 4, 5, 6]).to_parquet(folder / "uneven.parquet")
    return folder


@pytest.fixture
def write(inputs, tmp_path):
    """Writes a grid of the small set, with some entries in place of others."""

    def write(**entries):
        one = {"train": str(inputs / "train.parquet"), "test": str(inputs / "test.parquet")}
        grid = {
            "model": str(inputs / "model"),
            "sets": {"shapes": {**one, **entries.pop("of_set", {})}},
            "methods": ["none", "tecoa", "pmg_aft"],
            "baseline": "tecoa",
            "settings": SMALL,
            "shots": [1, "all"],
            "seeds": [0],
            "attacks": ["pgd,num_steps=2"],
            "output_dir": str(tmp_path / "out"),
            **entries,
        }
        (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
        return ["--grid", str(tmp_path / "grid.yaml")]

    return write


def refused(line: list[str], message: str, tmp_path) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        prepare(parse(line))
    assert not (tmp_path / "out").exists()


def test_fewer_images_than_shots_are_refused(write, tmp_path):
    message = r"Set 'shapes': You passed shots=7, but 4 of the 4 classes have fewer images: 'red disc' \(6\)"
    refused(write(shots=[1, 7]), message, tmp_path)
    refused(write(shots=[4], of_set={"rows": "style=ink"}), r"shots=4, but 4 of the 4 .*'red disc' \(3\)", tmp_path)


def test_a_class_without_a_test_image_is_refused(write, inputs, tmp_path):
    uneven = {"test": str(inputs / "uneven.parquet")}
    message = "Test 'shapes': 1 of the 4 classes have no test image: 'yellow square'"
    refused(write(of_set=uneven), message, tmp_path)
    message = "Test 'new': 1 of the 2 classes have no test image: 'yellow square'"
    refused(write(of_set=uneven, protocol="base_to_new"), message, tmp_path)


def test_testing_on_the_images_of_training_is_refused(write, inputs, tmp_path):
    same = str(inputs / "train.parquet")
    refused(write(of_set={"test": same}), "Test 'shapes' has 24 images that its training set has, too", tmp_path)
    rows = {"test": same, "rows": "style=ink", "test_rows": "style=flat"}
    prepare(parse(write(of_set=rows, shots=[1])))


def test_base_and_new_that_overlap_are_refused(write, tmp_path):
    overlap = {"base": CLASS_NAMES[:2], "new": CLASS_NAMES[1:]}
    refused(write(protocol="base_to_new", of_set=overlap), "'green disc' as base and as new", tmp_path)


def test_a_test_of_other_classes_is_refused(write, inputs, tmp_path):
    classes = datasets.ClassLabel(names=[*CLASS_NAMES[:3], "a photo"])
    other = make_images(8).cast_column("label", classes)
    other.to_parquet(tmp_path / "other.parquet")
    refused(write(of_set={"test": str(tmp_path / "other.parquet")}), "has the class 'a photo', which its", tmp_path)


def test_options_that_cannot_work_are_refused_with_the_row(write, tmp_path):
    refused(write(methods={"tecoa": {"num_steps": 0}}), "shapes, tecoa, 1 shot, seed 0: .*num_steps", tmp_path)
    refused(write(attacks=["pdg"]), "no attack 'pdg'", tmp_path)
    refused(write(model=str(tmp_path / "nowhere")), "nowhere", tmp_path)
    refused(write(of_set={"train": "nowhere.parquet"}), "nowhere.parquet", tmp_path)


def test_contexts_of_classes_are_refused_where_others_are_tested(write, tmp_path):
    methods = {"tecoa": {"tuning": "text_context", "tuning_kwargs": {"num_tokens": 2, "class_specific": True}}}
    refused(write(methods=methods, protocol="base_to_new"), "'tecoa' learns a context for each class", tmp_path)


def test_no_process_is_none(write, tmp_path):
    refused([*write(), "--num_processes", "0"], "--num_processes=0, which is no count", tmp_path)


def test_sets_and_a_model_of_ones_own_need_no_file():
    grid = few_shot.read_grid(parse(["--model", "user/clip", "--sets", "dtd", "oxford_pets", "--shots", "2"]))
    assert list(grid.methods) == list(few_shot.METHODS) and list(grid.sets) == ["dtd", "oxford_pets"]
    assert grid.model == "user/clip" and grid.shots == [2] and grid.seeds == [0, 1, 2] and not grid.settings
    grid = few_shot.read_grid(parse(["--sets", "dtd", "--eps", "2/255", "4/255"]))
    assert grid.settings == {"eps": "2/255"} and grid.eps == ["2/255", "4/255"]


def run(line, cwd) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "hf_pmgaft.cli", "few-shot", *line]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_a_grid_goes_from_rows_to_table_json_and_picture_and_then_has_nothing_left(write, tmp_path):
    done = run(write(), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "[5/5]" in done.stdout and "left, about" in done.stdout
    everything = json.loads((tmp_path / "out/few_shots_plain.json").read_text())
    assert len(everything["rows"]) == 5 and not everything["failed"] and not everything["left"]
    images = {(row["method"], row["shots"]): row["trained"].get("images") for row in everything["rows"]}
    assert images == {("none", 0): None, **{(m, s): n for m in ("tecoa", "pmg_aft") for s, n in ((1, 4), (None, 24))}}
    assert (tmp_path / "out/shots_plain_shapes_shapes.png").stat().st_size > 5000

    # Again, and with one more method: what is done stays
    reports = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/rows").glob("*/plain.json")}
    more = run([*write(), "--methods", "none", "tecoa", "pmg_aft", "fare"], tmp_path)
    assert more.returncode == 0 and "7 rows, of which 5 are done" in more.stdout, more.stderr[-3000:]
    assert {path: path.stat().st_mtime_ns for path in reports} == reports

    # A row alone, as its folder says
    config = yaml.safe_load((tmp_path / "out/rows/shapes-tecoa-1-0/run.yaml").read_text())
    assert config["shots"] == 1 and config["objective"] == "tecoa"


def test_a_row_that_was_stopped_goes_on_from_its_checkpoint_if_its_options_are_the_same(write, tmp_path, monkeypatch):
    from hf_pmgaft.cli import few_shot_row

    def row_by(learning_rate: float):
        settings = {**SMALL, "save_strategy": "steps", "save_steps": 1, "learning_rate": learning_rate}
        _, (row, *_) = prepare(parse(write(methods=["tecoa"], settings=settings, shots=[2])))
        row.folder.mkdir(parents=True, exist_ok=True)
        return row

    def die(row, figures):
        raise RuntimeError("killed before it was written down")

    begun = []
    set_up = few_shot_row.train.set_up
    monkeypatch.setattr(few_shot_row.train, "set_up", lambda argv: begun.append(argv[2]) or set_up(argv))
    with monkeypatch.context() as patch:
        patch.setattr(few_shot_row.Row, "note_trained", die)
        for learning_rate in (1e-3, 2e-3):
            with pytest.raises(RuntimeError, match="killed"):
                few_shot_row.train_row(row_by(learning_rate))
    row = row_by(2e-3)
    few_shot_row.train_row(row)

    assert begun == ["--overwrite", "--overwrite", "--resume_from_checkpoint"]
    assert row.is_trained() and not list(row.folder.glob("checkpoint-*"))


def test_base_to_new_trains_on_half_of_the_classes(write, tmp_path):
    line = write(protocol="base_to_new", methods=["tecoa"], shots=[2], of_set={"test": str(tmp_path / "t.parquet")})
    make_images(16, seed=9).to_parquet(tmp_path / "t.parquet")
    done = run(line, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    (row,) = json.loads((tmp_path / "out/few_shots_base_to_new.json").read_text())["rows"]
    assert row["trained"]["images"] == 4
    assert {name: (test["images"], test["classes"]) for name, test in row["tests"].items()} == {
        "base": (8, 2),
        "new": (8, 2),
    }
    assert "shapes: H" in done.stdout


@pytest.mark.slow
def test_every_method_and_protocol_runs_on_the_embedded_set(tmp_path):
    grid = yaml.safe_load(few_shot.EMBEDDED.read_text())
    grid["settings"]["max_steps"] = grid["backbones"]["tecoa"]["max_steps"] = 3
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    line = ["--grid", "grid.yaml", "--max_samples", "20", "--attacks", "pgd,num_steps=2", "--output_dir", "out"]
    methods = set(grid["methods"])
    tests = {
        "plain": {"emoji"},
        "base_to_new": {"base", "new"},
        "cross": {"smileys", "food", "activities", "symbols"},
        "shift": {"twemoji", "noto_emoji", "lucide", "picon", "pinhead"},
    }
    for protocol, names in tests.items():
        shots = ["all"] if protocol != "shift" else ["3"]
        chosen = methods if protocol in ("plain", "base_to_new") else {"none", "tecoa", "apt"}
        done = run([*line, "--protocol", protocol, "--shots", *shots, "--methods", *chosen], tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr[-3000:]
        rows = json.loads((tmp_path / f"out/few_shots_{protocol}.json").read_text())["rows"]
        assert {row["method"] for row in rows} == chosen
        assert all(set(row["tests"]) == names for row in rows)
        images = {row["trained"]["images"] for row in rows if row["trained"]}
        assert images == {"plain": {704}, "base_to_new": {353}, "cross": {704}, "shift": {120}}[protocol]
