"""The card of a tower takes the figures of the model that looks through it."""

import json
import shutil

import pytest
from huggingface_hub import ModelCard
from support.paths import EMOJI
from transformers import CLIPModel

from hf_pmgaft import PMGAFTConfig
from hf_pmgaft.cli import attack_vlm
from hf_pmgaft.downstream.vlm import VisionLanguageModel
from hf_pmgaft.hub.card import save_model_card
from hf_pmgaft.objectives import make_objective
from hf_pmgaft.tuning import make_tuning

SMALL = ["--num_images", "2", "--num_steps", "1", "--eps", "4/255", "--tasks", "targeted", "--targets", "warning"]


@pytest.fixture
def tower(tmp_path, monkeypatch) -> str:
    """The folder of a run, with a card."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(EMOJI / "model", "robust")
    save_model_card(
        "robust",
        base_model="clip",
        objective=make_objective("fare"),
        tuning=make_tuning("vision_tower"),
        config=PMGAFTConfig(output_dir="robust", use_cpu=True),
        licence="mit",
    )
    return "robust"


def test_figures_stand_in_the_card_once_and_the_report_beside_it(tower, tmp_path, capsys):
    argv = [*SMALL, "--towers", tower, "--update_card", tower, "--output_file", "report.json"]
    before = ModelCard((tmp_path / tower / "README.md").read_text())
    attack_vlm.main(argv)

    report = json.loads((tmp_path / "report.json").read_text())
    protocol, figure = report["protocol_hash"], report["towers"]["robust"]["target 'warning'"]["4/255"]["success"]
    text = (tmp_path / tower / "README.md").read_text()
    assert text.count(f"<!-- figures of {protocol} -->") == 1 and f"| {100 * figure:.1f} (" in text
    assert "own tower" in text and "the embedded LLaVA" in text and "was not evaluated" not in text
    assert ModelCard(text).data.to_dict() == before.data.to_dict()
    beside = json.loads((tmp_path / tower / f"answers_{protocol}.json").read_text())
    assert beside["towers"] == report["towers"]
    assert f"has the figures of protocol {protocol}" in capsys.readouterr().out

    attack_vlm.main(argv)
    assert (tmp_path / tower / "README.md").read_text() == text


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--update_card", "robust"], "which is none of --towers"),
        (["--towers", "robust", "--push"], "--push without --update_card"),
        (["--towers", "bare", "--update_card", "bare"], "has no card README.md"),
        (["--towers", "robust", "--update_card", "robust", "--push"], "a folder here"),
    ],
)
def test_cards_that_cannot_take_figures_are_refused_before_any_work(flags, message, tower, monkeypatch):
    def working(*args, **kwargs):
        raise AssertionError("it began to work")

    monkeypatch.setattr(VisionLanguageModel, "write", working)
    CLIPModel.from_pretrained(tower).save_pretrained("bare")
    with pytest.raises(SystemExit) as ended:
        attack_vlm.main([*SMALL, *flags])
    assert message in str(ended.value)
