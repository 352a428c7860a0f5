"""Figures in a card that is there: the same protocol's are replaced, others stay, another model's are refused."""

import json

import pytest
import yaml
from huggingface_hub import ModelCard
from support.hub_server import READER
from support.tiny import make_images, make_model, make_processor

from hf_pmgaft import PMGAFTConfig, RobustnessReport, ZeroShotDataset, evaluate_robustness
from hf_pmgaft.cli import evaluate
from hf_pmgaft.hub.card import save_model_card
from hf_pmgaft.hub.card_update import ExistingCard, update_card
from hf_pmgaft.objectives import make_objective
from hf_pmgaft.tuning import make_tuning


def report_of(model, eps: str = "4/255") -> RobustnessReport:
    sets = [ZeroShotDataset(make_images(8), make_processor(), name="shapes")]
    return evaluate_robustness(model, make_processor(), sets, [f"fgsm,eps={eps}"], probes=False, progress=False)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The folder of a run, with a card of one report."""
    monkeypatch.chdir(tmp_path)
    for part in (make_model(), make_processor()):
        part.save_pretrained("robust")
    report = report_of(make_model())
    save_model_card(
        "robust",
        base_model="clip",
        objective=make_objective("tecoa"),
        tuning=make_tuning("vision_tower"),
        config=PMGAFTConfig(output_dir="robust", use_cpu=True),
        report_after=report,
        licence="mit",
    )
    return tmp_path / "robust"


def figures(text: str) -> list[tuple[str, float]]:
    return [(result.metric_args["protocol"], result.metric_value) for result in ModelCard(text).data.eval_results]


def test_figures_of_another_protocol_stand_beside_those_there(run):
    old, new = report_of(make_model()), report_of(make_model(), "8/255")
    text = update_card("robust", new)
    assert (run / "README.md").read_text() == text
    assert {protocol for protocol, _ in figures(text)} == {old.protocol_hash, new.protocol_hash}
    assert text.count("<!-- figures of") == 2 and text.index(old.protocol_hash) < text.index(new.protocol_hash)
    assert text.index(f"end of figures of {new.protocol_hash}") < text.index("## Limits")
    assert RobustnessReport.load(run / f"robustness_{new.protocol_hash}.json").to_dict() == new.to_dict()
    assert ModelCard(text).data.license == "mit" and "hf-pmgaft" in ModelCard(text).data.tags


def test_figures_of_the_same_protocol_are_replaced_and_twice_is_once(run):
    report = report_of(make_model())
    report.sets[0].robust_accuracy = 0.123
    text = update_card("robust", report)
    assert text.count("<!-- figures of") == 1 and "12.3" in text
    assert [value for _, value in figures(text)].count(12.3) == 2 and len(figures(text)) == 4
    assert update_card("robust", report) == text


def test_a_card_without_figures_gets_its_first(run):
    card = run / "README.md"
    head, _, rest = card.read_text().partition("<!-- figures of")
    card.write_text(head + "This checkpoint was not evaluated." + rest.partition("-->\n\n")[2].partition("-->")[2])
    text = update_card("robust", report_of(make_model(), "2/255"))
    assert "was not evaluated" not in text and text.count("<!-- figures of") == 1


def test_figures_before_training_stay_beside_those_of_their_protocol(run):
    report = report_of(make_model())
    before = report_of(make_model(seed=1))
    before.save(run / "robustness_before.json")
    percent = f"{100 * before.sets[0].clean_accuracy:.1f}"
    (row,) = [line for line in update_card("robust", report).splitlines() if line.startswith("| shapes | 8 |")]
    assert row.split("|")[3].strip() == percent
    other = update_card("robust", report_of(make_model(), "1/255")).splitlines()
    assert [line.split("|")[3].strip() for line in other if line.startswith("| shapes | 8 |")] == [percent, ""]


def test_another_model_s_figures_are_refused_and_nothing_is_written(run):
    before = (run / "README.md").read_text()
    with pytest.raises(ValueError, match="they would stand in another model's card. Evaluate the model whose card"):
        update_card("robust", report_of(make_model(seed=1), "8/255"))
    assert (run / "README.md").read_text() == before and not list(run.glob("robustness_*.json"))


def test_the_command_evaluates_and_updates_or_takes_a_report(run, capsys):
    argv = ["--eps", "1/255", "--num_steps", "1", "--max_samples", "2", "--update_card", "robust"]
    make_images(4).save_to_disk("shapes")
    evaluate.main([*argv, "--eval_sets", "shapes", "--output_file", "report.json"])
    report = RobustnessReport.load("report.json")
    assert f"The card of robust has the figures of protocol {report.protocol_hash}" in capsys.readouterr().out
    assert report.protocol_hash in (run / "README.md").read_text()

    report_of(make_model(), "2/255").save("other.json")
    (run.parent / "benchmarks.yaml").write_text("shapes: {robust_accuracy: [user/shapes, linf]}")
    evaluate.main(["--update_card", "robust", "--report", "other.json", "--benchmarks", "benchmarks.yaml"])
    (entry,) = yaml.safe_load((run / ".eval_results" / "shapes_robust_accuracy.yaml").read_text())
    assert entry["dataset"] == {"id": "user/shapes", "task_id": "linf"}

    make_model(seed=1).save_pretrained("elsewhere")
    make_processor().save_pretrained("elsewhere")
    with pytest.raises(SystemExit, match="another model's card"):
        evaluate.main([*argv, "--model", "elsewhere", "--eval_sets", "nowhere"])


def test_a_card_on_the_hub_is_updated_in_one_commit_that_leaves_the_model_there(hub, run):
    repo = hub.put("user/robust", {path.name: path.read_bytes() for path in run.iterdir()})
    report = report_of(make_model(), "8/255")
    with pytest.raises(ValueError, match="without push, so nothing would be changed"):
        update_card("user/robust", report)
    with pytest.raises(ValueError, match="a folder here. Pass the model's name on the Hub"):
        update_card("robust", report, push=True)
    with pytest.raises(Exception, match="403"):
        update_card("user/robust", report, push=True, token=READER)
    assert len(repo.commits) == 1

    text = update_card("user/robust", report, push=True)
    assert repo.messages[-1] == f"Figures of protocol {report.protocol_hash}" and len(repo.commits) == 2
    changed = {path for path in repo.files if repo.files[path] != repo.commits[0].get(path)}
    assert changed == {"README.md", f"robustness_{report.protocol_hash}.json"} and repo.files.keys() > changed
    assert repo.files["README.md"].decode() == text
    assert json.loads(repo.files[f"robustness_{report.protocol_hash}.json"])["protocol_hash"] == report.protocol_hash
    with pytest.raises(ValueError, match="another model's card"):
        update_card("user/robust", report_of(make_model(seed=1)), push=True)


def test_a_name_that_is_nowhere_is_refused(hub):
    with pytest.raises(ValueError, match="user/nothing is no folder here, and no model that can be read"):
        ExistingCard.read("user/nothing")
    hub.put("user/cardless", {"config.json": b"{}"})
    with pytest.raises(ValueError, match="user/cardless has no card README.md on the Hub"):
        ExistingCard.read("user/cardless")
