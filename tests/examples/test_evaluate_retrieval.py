"""Retrieval by the command line."""

import evaluate_robustness as script
import pytest
from support.paths import EMOJI

from hf_pmgaft import RobustnessReport


def test_the_command_line_prints_recalls_and_draws_them(tmp_path, capsys):
    losses = [spec["loss"] for spec in script.attack_specs(script.parse(["--caption_column", "auto"]), 40)]
    assert losses == ["margin", "ce"] and script.attack_specs(script.parse([]), 40)[0]["loss"] == "margin"
    data = ["--eval_sets", f"{EMOJI / 'data'}:activities", f"{EMOJI / 'data'}:food", "--max_samples", "12"]
    flags = [*data, "--caption_column", "label,tags", "--attacks", "fgsm", "--eps", "2/255", "4/255"]
    script.main([*flags, "--output_file", str(tmp_path / "a.json"), "--plots", str(tmp_path)])
    printed = capsys.readouterr().out
    report = RobustnessReport.load(tmp_path / "a.json")
    header = [line.split() for line in printed.splitlines() if line.startswith("set ")][0]
    assert header[1:4] == ["candidates", "queries", "clean"]
    for result in report.sets:
        (line,) = [line for line in printed.splitlines() if line.startswith(f"{result.name} ")]
        wanted = [result.clean_accuracy, result.robust_accuracy, *result.robust_interval, result.threats["linf 4/255"]]
        wanted = [result.num_classes, result.num_samples, *(round(100 * value, 1) for value in wanted)]
        assert [float(x) for x in line.removeprefix(result.name).replace(" to ", " ").split()] == wanted
    (line,) = [line for line in printed.splitlines() if line.startswith("mean T2I R@5 ")]
    assert float(line.split()[3]) == round(100 * report.of("T2I R@5").mean_clean_accuracy, 1)
    assert "T2I: every image of the gallery is perturbed, once," in printed
    curves = {f"curve_linf_{way}_r{k}.png" for way in ("i2t", "t2i") for k in (1, 5, 10)}
    assert {path.name for path in tmp_path.glob("*.png")} == {"bars.png", *curves}
    report.save(tmp_path / "b.json")
    script.main(["--compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--plots", str(tmp_path)])
    assert "food T2I R@10" in capsys.readouterr().out and (tmp_path / "clean_against_robust.png").exists()
    script.main([*flags, "--target", "drawn"])
    printed = capsys.readouterr().out
    assert (
        "food target@1 " in printed and "mean target@10" in printed and "target: the query image is pulled" in printed
    )
    with pytest.raises(ValueError, match="--target 'a' without --caption_column"):
        script.main([*data, "--target", "a"])
