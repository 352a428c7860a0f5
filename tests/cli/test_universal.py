"""One perturbation for all images from the command line, and models judged by it."""

import pytest
from support.paths import EMOJI

from hf_pmgaft import RobustnessReport
from hf_pmgaft.attacks import UniversalPerturbation
from hf_pmgaft.cli import evaluate, universal

QUICK = ["--max_samples", "12", "--epochs", "2", "--batch_size", "6", "--eps", "8/255"]


def test_what_is_made_on_one_split_judges_a_model_on_another(tmp_path, capsys):
    file, report = tmp_path / "noise.safetensors", tmp_path / "report.json"
    universal.main([*QUICK, "--output_file", str(file)])
    shown = capsys.readouterr().out
    assert "Mean loss (ce) on 12 images of food:" in shown and f"universal,file={file}" in shown
    made = UniversalPerturbation.load(file)
    assert made.eps == "8/255" and made.delta.shape == (3, 40, 40)
    assert made.protocol["set"]["source"]["split"] == "validation"

    sets = ["--eval_sets", f"{EMOJI / 'data'}:food@test", "--prompt_template", "an emoji of {}", "--max_samples", "8"]
    attacks = ["--attacks", f"universal,file={file}", "--eps", "4/255"]
    evaluate.main([*sets, *attacks, "--output_file", str(report)])
    assert RobustnessReport.load(report).protocol["headline"] == "universal linf 4/255"
    sets[1] = sets[1].replace("@test", "@validation")
    with pytest.raises(SystemExit, match="error: universal linf 4/255 noise .* was made on .* images of 'food'"):
        evaluate.main([*sets[:-2], *attacks])


def test_surrogates_and_another_loss_are_named(tmp_path, capsys):
    file = tmp_path / "noise.safetensors"
    options = ["--surrogates", str(EMOJI / "model"), "--loss", "cosine", "--momentum", "0", "--seed", "3"]
    universal.main([*QUICK, *options, "--output_file", str(file)])
    protocol = UniversalPerturbation.load(file).protocol
    assert len(protocol["models"]) == 2 and protocol["loss"] == "cosine" and protocol["seed"] == 3
    assert "Mean loss (cosine)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--eps", "4"], "write 4/255"),
        (["--max_samples", "0"], "--max_samples=0"),
        (["--output_file", "."], "which is a folder"),
        (["--momentum", "1"], "momentum=1.0, which is none"),
    ],
)
def test_what_cannot_be_made_ends_with_one_line(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        universal.main(options)
    assert not any(tmp_path.iterdir())
