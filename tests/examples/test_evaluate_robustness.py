"""The evaluation as a user runs it: tables, files, comparisons, and what it says to wrong arguments."""

import json
import subprocess
import sys

import pytest
from support.paths import EXAMPLES
from support.tiny import make_images

from hf_pmgaft.attacks import CORRUPTIONS
from hf_pmgaft.attacks.spec import AttackSpec
from hf_pmgaft.evaluation.report import RobustnessReport

DATA = EXAMPLES / "emoji" / "data"
QUICK = ["--eval_sets", f"{DATA}:activities", "--prompt_template", "an emoji of {}", "--max_samples", "12"]
FGSM = [*QUICK, "--attacks", "fgsm"]


@pytest.fixture(scope="module")
def script():
    import evaluate_robustness

    yield evaluate_robustness


def test_table_file_and_pictures_hold_what_was_found(script, tmp_path, capsys):
    file = tmp_path / "report.json"
    attacks = ["--attacks", "fgsm", "pgd,num_steps=3,loss=margin", "corruption,kind=jpeg,severity=2", "--eight_bit"]
    script.main([*QUICK, *attacks, "--eps", "4/255", "8/255", "--output_file", str(file), "--plots", str(tmp_path)])
    printed = capsys.readouterr().out
    report = RobustnessReport.load(file)
    result = report.sets[0]
    assert report.protocol["headline"] == "linf 4/255" and report.protocol_hash in printed
    assert list(result.attacks) == [
        *("FGSM ce linf 4/255", "PGD-3 margin linf 4/255", "FGSM ce linf 8/255", "PGD-3 margin linf 8/255", "jpeg 2")
    ]
    (line,) = [line for line in printed.splitlines() if line.startswith("activities")]
    low, high = result.robust_interval
    wanted = [12, result.clean_accuracy, result.robust_accuracy, low, high, result.robust_8bit_accuracy]
    wanted += [result.threats["linf 8/255"]]
    numbers = [float(word) for word in line.replace(" to ", " ").split()[2:]]
    assert numbers == [12, *(round(100 * value, 1) for value in wanted[1:])]
    (line,) = [line for line in printed.splitlines() if line.startswith("jpeg")]
    assert float(line.split()[-1]) == round(100 * result.threats["jpeg 2"], 1)
    (line,) = [line for line in printed.splitlines() if line.startswith("FGSM ce linf 8/255")]
    assert float(line.split()[-1]) == round(100 * result.attacks["FGSM ce linf 8/255"], 1)
    assert {path.name for path in tmp_path.glob("*.png")} == {"bars.png", "curve_linf.png"}


@pytest.mark.parametrize(("style", "sign"), [("markdown", "| activities |"), ("latex", r"activities & ")])
def test_tables_in_other_formats(script, capsys, style, sign):
    script.main([*FGSM, "--format", style])
    printed = capsys.readouterr().out
    assert sign in printed and ("|---|" in printed) == (style == "markdown")
    assert (r"95 \%" in printed) == (style == "latex")


def test_reports_are_compared_image_by_image(script, tmp_path, capsys):
    files = [str(tmp_path / name) for name in ("a.json", "b.json", "c.json")]
    for file, seed in zip(files, ("0", "0", "1"), strict=True):
        script.main([*FGSM, "--seed", seed, "--output_file", file])
    capsys.readouterr()
    script.main(["--compare", *files[:2], "--output_file", str(tmp_path / "out.json"), "--plots", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "FGSM ce linf 4/255" in printed and "+0.0" in printed
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["sets"]["activities"]["robust"]["p_value"] == 1.0
    assert (tmp_path / "clean_against_robust.png").exists()
    with pytest.raises(ValueError, match="different protocols.*seed"):
        script.main(["--compare", files[0], files[2]])
    with pytest.raises(ValueError, match="no verdicts of the same images"):  # the seed chose others
        script.main(["--compare", files[0], files[2], "--ignore", "seed", "sets"])


def test_a_killed_run_goes_on(script, tmp_path, capsys):
    file = tmp_path / "verdicts.jsonl"
    script.main([*FGSM, "--verdict_file", str(file), "--output_file", str(tmp_path / "a.json")])
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) - 30])
    script.main([*FGSM, "--verdict_file", str(file), "--output_file", str(tmp_path / "b.json")])
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    with pytest.raises(ValueError, match="another evaluation.*protocol.seed"):
        script.main([*FGSM, "--verdict_file", str(file), "--seed", "3"])


def test_pictures_of_threats_without_a_radius_have_no_curve(script, tmp_path):
    script.main([*QUICK, "--attacks", "corruption,kind=jpeg,severity=1", "--plots", str(tmp_path)])
    assert {path.name for path in tmp_path.glob("*.png")} == {"bars.png"}


def test_rows_can_be_named(script, tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps({"activities": [5, 2, 9]}))
    out = tmp_path / "a.json"
    script.main(
        [*QUICK[:4], "--attacks", "fgsm", "--sample_ids", str(tmp_path / "rows.json"), "--output_file", str(out)]
    )
    assert RobustnessReport.load(out).sets[0].verdicts["sample_id"] == [5, 2, 9]
    (tmp_path / "rows.json").write_text(json.dumps({"food": [5]}))
    with pytest.raises(ValueError, match=r"rows of \['food'\] and none of the sets \['activities'\]"):
        script.main([*QUICK[:4], "--attacks", "fgsm", "--sample_ids", str(tmp_path / "rows.json")])


def test_unseen_threats_stand_beside_the_headline(script):
    args = script.parse(["--eps", "4/255", "--unseen"])
    first, *others = script.attack_specs(args, 64)
    assert first["attack"] == "pgd" and first["eps"] == "4/255"
    assert {spec.get("norm") for spec in others if spec["attack"] == "apgd"} == {"l1", "l2"}
    assert [spec["eps"] for spec in others if spec["attack"] == "pgd"] == ["8/255"]
    assert [spec["eps"] for spec in others if spec.get("norm") == "l2"] == [1.0, 1.0]
    assert sum(spec["attack"] == "corruption" for spec in others) == 5 * len(CORRUPTIONS)
    assert [spec["size"] for spec in others if spec["attack"] == "patch"] == [12]


def test_unseen_threats_to_a_headline_in_l1_are_attacked_by_what_knows_l1(script):
    args = script.parse(["--eps", "12", "--norm", "l1", "--attacks", "apgd", "--unseen"])
    specs = [AttackSpec.of(spec) for spec in script.attack_specs(args, 64)]
    balls = [(spec.attack, spec.norm, spec.options["eps"]) for spec in specs if spec.norm]
    assert balls == [("apgd", "l1", "12"), *[("apgd", "l1", "24")] * 2, *[("apgd", "l2", 1.0)] * 2]
    with pytest.raises(ValueError, match="'four/255', which is no number"):
        script.attack_specs(script.parse(["--eps", "four/255", "--unseen"]), 64)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--limit", "5"], "--limit without --suite, where it has no effect"),
        (
            ["--suite", "paper16", "--eval_sets", "a", "--prompt_template", "a {}"],
            "--eval_sets, --prompt_template with",
        ),
    ],
)
def test_flags_that_would_be_ignored_are_refused(script, flags, message):
    with pytest.raises(ValueError, match=message):
        script.main(flags)


def test_attacks_are_read_from_the_command_line(script):
    spec = script.parse_attack("pgd,num_steps=100,loss=ce,random_start=false,step_size=1/255")
    assert spec == {"attack": "pgd", "num_steps": 100, "loss": "ce", "random_start": False, "step_size": "1/255"}
    with pytest.raises(ValueError, match="no option=value"):
        script.parse_attack("pgd,100")


def test_without_pyautoattack_one_line_says_what_to_install(tmp_path):
    (tmp_path / "pyautoattack.py").write_text("raise ImportError")
    command = [sys.executable, str(EXAMPLES / "evaluate_robustness.py"), *QUICK, "--attacks", "autoattack"]
    environment = {"PYTHONPATH": f"{tmp_path}:{EXAMPLES.parent}", "PATH": "/usr/bin", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and done.stderr.strip().splitlines()[-1].startswith("error: You asked for an attack")


def test_a_set_without_labels_is_refused(script, tmp_path):
    make_images(4).remove_columns("label").to_parquet(str(tmp_path / "own.parquet"))
    with pytest.raises(ValueError, match="none of the usual label columns"):
        script.main(["--eval_sets", str(tmp_path / "own.parquet"), "--attacks", "fgsm"])


def test_a_suite_of_ones_own_is_a_few_lines_of_yaml(script, tmp_path):
    make_images(12).save_to_disk(str(tmp_path / "data" / "shapes"))
    suite, out = tmp_path / "own.yaml", tmp_path / "a.json"
    suite.write_text(
        "shapes:\n  path: user/shapes\n  class_names: [red disc, green disc, blue square, yellow square]\n"
        "  prompt_template: an emoji of a {}\n"
    )
    options = ["--suite", str(suite), "--data_root", str(tmp_path / "data"), "--limit", "5", "--attacks", "fgsm"]
    script.main([*options, "--output_file", str(out)])
    report = RobustnessReport.load(out)
    assert report.sets[0].num_samples == 5 and report.sets[0].num_classes == 4
    assert report.protocol["sets"]["shapes"]["prompt_templates"] == ["an emoji of a {}"]


def test_labelled_images_can_classify_instead_of_names_and_at_another_resolution(script, tmp_path):
    options = ["--eval_sets", f"{DATA}:animals@test", "--max_samples", "6", "--attacks", "fgsm", "--image_size", "48"]
    options += ["--output_file", str(tmp_path / "a.json"), "--head", "nearest_class_mean"]
    script.main([*options, "--support_sets", f"{DATA}:finetune@train"])
    protocol = RobustnessReport.load(tmp_path / "a.json").protocol
    assert protocol["head"]["name"] == "NearestClassMean"
    assert protocol["head"]["support"]["animals"]["num_samples"] == 716
    assert protocol["sets"]["animals"]["attacked_at"] == 48
    with pytest.raises(ValueError, match="--head nearest_class_mean with 0 --support_sets for 1 evaluation sets"):
        script.main(options)
