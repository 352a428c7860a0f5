"""`--suite` in training and evaluation: what is missing is named, what is gated found before any download."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.hub_sets import SUITE, put_sets, small_suite
from support.tiny import make_pair_for

from hf_pmgaft.cli import evaluate, train
from hf_pmgaft.evaluation import RobustnessReport

NAMES = ["tiny_imagenet", "imagenet", "dtd"]


@pytest.fixture
def own(hub, tmp_path, monkeypatch):
    """A folder with a model and a suite of three sets, one of which is gated."""
    monkeypatch.chdir(tmp_path)
    names = [name for key in NAMES for name in SUITE[key]["class_names"]]
    for part in make_pair_for(names):
        part.save_pretrained("clip")
    small_suite(tmp_path, NAMES, most=4)
    put_sets(hub, NAMES, most=4)
    return hub


def evaluated(*options: str) -> RobustnessReport:
    argv = ["--model", "clip", "--suite", "small.yaml", "--eps", "1/255", "--num_steps", "1"]
    evaluate.main([*argv, "--output_file", "report.json", *options])
    return RobustnessReport.load("report.json")


def test_a_gated_set_does_not_cost_the_others_and_no_mean_hides_that_it_is_missing(own, capsys):
    with pytest.raises(SystemExit) as ended:
        evaluated("--limit", "2")
    assert "error: The figures are without 1 of the suite's sets: imagenet" in str(ended.value)
    assert f"accept its terms at {own.url}/datasets/ILSVRC/imagenet-1k" in str(ended.value)
    report = RobustnessReport.load("report.json")
    assert [result.name for result in report.sets] == ["tiny_imagenet", "dtd"]
    assert list(report.provenance["missing"]) == ["imagenet"] and report.mean_title == "mean of 2 of 3 sets"
    assert "mean of 2 of 3 sets" in capsys.readouterr().out
    assert not own.fetched("datasets/ILSVRC/imagenet-1k")


def test_reports_record_the_suite_and_the_commits_of_its_sets(own):
    own.repos["datasets/ILSVRC/imagenet-1k"].granted.add("user")
    report = evaluated()
    assert report.provenance["suite"] == "small" and "missing" not in report.provenance
    assert report.provenance["model"] == {"name": "clip"}
    commit = own.repos["datasets/tanganke/dtd"].sha()
    assert report.provenance["sets"]["dtd"] == {"path": "tanganke/dtd", "split": "test", "commit": commit}
    assert report.mean_title == "mean of sets"


def test_one_set_that_cannot_be_read_is_named(own):
    repo = own.repos["datasets/tanganke/dtd"]
    repo.commits[0] = {name: b"no parquet" for name in repo.files if name.endswith("parquet")}
    with pytest.raises(SystemExit, match="without 1 of the suite's sets: dtd"):
        evaluated("--suite_sets", "tiny_imagenet", "dtd")
    assert [result.name for result in RobustnessReport.load("report.json").sets] == ["tiny_imagenet"]
    with pytest.raises(SystemExit, match="No set of --suite small.yaml can be loaded"):
        evaluated("--suite_sets", "dtd")


def test_counts_and_disk_are_checked_before_any_image_is_read(own, monkeypatch):
    suite = Path("small.yaml")
    suite.write_text(suite.read_text().replace("num_images: 4", "num_images: [5, 9]"))
    with pytest.raises(SystemExit, match="'dtd' has 4 images, but 5 to 9 are stated"):
        evaluated("--suite_sets", "dtd", "--limit", "2")
    suite.write_text(suite.read_text().replace("num_images:\n  - 5\n  - 9", "num_images: 4").replace("[5, 9]", "4"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    with pytest.raises(SystemExit, match="The sets take about .* GB in .*, where 0.0 GB are free. Set HF_HOME"):
        evaluated("--suite_sets", "dtd")
    assert not own.fetched("datasets/tanganke/dtd")


def test_training_evaluates_the_suite_before_and_after_and_ends_with_what_is_asked_for(own, tmp_path, capsys):
    argv = ["--config", "recipe.yaml", "--suite", "small.yaml", "--suite_sets", "tiny_imagenet", "dtd", "--limit", "2"]
    (tmp_path / "recipe.yaml").write_text(
        "model_name_or_path: clip\ndataset_name: tiny_imagenet\noutput_dir: out\nobjective: tecoa\neps: 1/255\n"
        "num_steps: 1\nmax_steps: 1\neval_num_steps: 1\nper_device_train_batch_size: 2\nuse_cpu: true\n"
        "report_to: none\n"
    )
    train.main([*argv, "--final_attacks", "fgsm,eps=2/255"])

    before, after, final = (RobustnessReport.load(f"out/robustness{part}.json") for part in ("_before", "", "_final"))
    assert before.protocol_hash == after.protocol_hash != final.protocol_hash
    assert [attack.name for attack in final.attacks] == ["FGSM ce linf 2/255"]
    for report in (before, after, final):
        assert report.protocol["sets"]["dtd"]["prompt_templates"] == ["A surface with a {} texture."]
        assert report.protocol["sets"]["tiny_imagenet"]["resize"] == 18  # 256 before a crop of 224
        assert report.protocol["sets"]["dtd"]["num_samples"] == 2
    printed = capsys.readouterr().out
    assert "mean without tiny_imagenet*" in printed and f"protocol {final.protocol_hash}" in printed

    card = (tmp_path / "out" / "README.md").read_text()
    assert (
        f"<!-- figures of {after.protocol_hash} -->" in card and f"<!-- figures of {final.protocol_hash} -->" in card
    )
    assert "`zh-plus/tiny-imagenet@train`" in card
    config = json.loads((tmp_path / "out" / "training_config.json").read_text())
    source = {"path": "zh-plus/tiny-imagenet", "split": "train"}
    assert config["provenance"]["training_set"].items() >= source.items()
    assert config["provenance"]["training_set"]["commit"] == own.repos["datasets/zh-plus/tiny-imagenet"].sha()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--suite", "small.yaml", "--eval_sets", "dtd"], "--eval_sets with --suite, where it has no effect"),
        (["--limit", "2"], "--limit without --suite"),
        (["--suite", "paper17"], "no suite 'paper17'"),
        (["--suite", "small.yaml", "--suite_sets", "mnist"], "has no sets"),
        (["--suite", "small.yaml", "--limit", "0"], "limit=0"),
        (["--suite", "small.yaml", "--final_attacks", "autoatack"], "autoatack"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_computed(own, options, message):
    argv = ["--model_name_or_path", "clip", "--dataset_name", "tiny_imagenet", "--output_dir", "out", *options]
    with pytest.raises(SystemExit, match=message):
        train.main([*argv, "--use_cpu", "true"])
