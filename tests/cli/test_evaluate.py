"""The evaluation as a user runs it: tables, files, comparisons, and what it says to wrong arguments."""

import json
import signal
import subprocess
import sys

import datasets
import pytest
import torch
from PIL import Image
from support.hub_server import READER
from support.paths import EXAMPLES
from support.stops import at_call
from support.tiny import make_images

from hf_pmgaft import ZeroShotDataset
from hf_pmgaft.attacks import CORRUPTIONS
from hf_pmgaft.attacks.spec import AttackSpec
from hf_pmgaft.cli import evaluate
from hf_pmgaft.evaluation.compiled import CompiledEncoder
from hf_pmgaft.evaluation.plan import Plan
from hf_pmgaft.evaluation.reader import Reader
from hf_pmgaft.evaluation.report import RobustnessReport
from hf_pmgaft.evaluation.verdicts import Verdicts

DATA = EXAMPLES / "emoji" / "data"
QUICK = ["--eval_sets", f"{DATA}:activities", "--prompt_template", "an emoji of {}", "--max_samples", "12"]
FGSM = [*QUICK, "--attacks", "fgsm"]


def test_table_file_and_pictures_hold_what_was_found(tmp_path, capsys):
    file = tmp_path / "report.json"
    attacks = ["--attacks", "fgsm", "pgd,num_steps=3,loss=margin", "corruption,kind=jpeg,severity=2", "--eight_bit"]
    evaluate.main([*QUICK, *attacks, "--eps", "4/255", "8/255", "--output_file", str(file), "--plots", str(tmp_path)])
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


def test_a_defended_model_is_attacked_three_ways(tmp_path, capsys):
    file = tmp_path / "report.json"
    defence = ["--defence", "random_noise,eps=8/255", "--eot", "2", "--draws", "3"]
    evaluate.main([*FGSM, *defence, "--output_file", str(file)])
    printed = capsys.readouterr().out
    report = RobustnessReport.load(file)
    assert report.protocol["defence"] == {"defence": "random_noise", "eps": "8/255", "draws": 3, "eot": 2}
    rows = {line.split("  ")[0]: line.split()[-3:] for line in printed.splitlines() if "linf 4/255" in line}
    known = "(attacker={}, eot=2)"
    names = ["(attacker=unaware)", known.format("through"), known.format("straight_through")]
    assert list(rows)[1:] == [*(f"FGSM ce linf 4/255 {name}" for name in names), "worst of all attackers, linf 4/255"]
    result = report.sets[0]
    for name, share in result.attacks.items():
        draws = result.draws[name]
        assert rows[name] == [f"{100 * value:.1f}" for value in (share, draws["mean_share"], draws["every_draw"])]
    assert rows["worst of all attackers, linf 4/255"][0] == f"{100 * report.mean_robust_accuracy:.1f}"
    assert all(line in printed for line in report.defence) and "majority" in printed
    with pytest.raises(SystemExit, match="eot=2 without a defence"):
        evaluate.main([*FGSM, "--eot", "2"])
    with pytest.raises(SystemExit, match="verdict='any_iterate' with random noise"):
        evaluate.main([*FGSM, *defence, "--verdict", "any_iterate"])


@pytest.mark.parametrize(("style", "sign"), [("markdown", "| activities |"), ("latex", r"activities & ")])
def test_tables_in_other_formats(capsys, style, sign):
    evaluate.main([*FGSM, "--format", style])
    printed = capsys.readouterr().out
    assert sign in printed and ("|---|" in printed) == (style == "markdown")
    assert (r"95 \%" in printed) == (style == "latex")


def test_reports_are_compared_image_by_image(tmp_path, capsys):
    files = [str(tmp_path / name) for name in ("a.json", "b.json", "c.json")]
    for file, seed in zip(files, ("0", "0", "1"), strict=True):
        evaluate.main([*FGSM, "--seed", seed, "--output_file", file])
    capsys.readouterr()
    evaluate.main(["--compare", *files[:2], "--output_file", str(tmp_path / "out.json"), "--plots", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "FGSM ce linf 4/255" in printed and "+0.0" in printed
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["sets"]["activities"]["robust"]["p_value"] == 1.0
    assert (tmp_path / "clean_against_robust.png").exists()
    with pytest.raises(SystemExit, match="different protocols.*seed"):
        evaluate.main(["--compare", files[0], files[2]])
    with pytest.raises(SystemExit, match="no verdicts of the same images"):  # the seed chose others
        evaluate.main(["--compare", files[0], files[2], "--ignore", "seed", "sets"])


def test_a_killed_run_goes_on(tmp_path, capsys):
    file = tmp_path / "verdicts.jsonl"
    evaluate.main([*FGSM, "--verdict_file", str(file), "--output_file", str(tmp_path / "a.json")])
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) - 30])
    evaluate.main([*FGSM, "--verdict_file", str(file), "--output_file", str(tmp_path / "b.json")])
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    with pytest.raises(SystemExit, match="another evaluation.*protocol.seed"):
        evaluate.main([*FGSM, "--verdict_file", str(file), "--seed", "3"])


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_stopped_run_says_how_to_go_on_and_ends_with_the_same_report(tmp_path, capsys, monkeypatch, number, name):
    def command(stem: str) -> list[str]:
        files = ["--verdict_file", str(tmp_path / f"{stem}.jsonl"), "--output_file", str(tmp_path / f"{stem}.json")]
        return [*FGSM, "--batch_size", "4", *files]

    evaluate.main(command("whole"))
    with monkeypatch.context() as patch:
        patch.setattr(Verdicts, "add", at_call(3, Verdicts.add, number))
        with pytest.raises(SystemExit) as ended:
            evaluate.main(command("stopped"))
    assert ended.value.code == 128 + number
    said = f"Stopped by {name}. What was judged is in {tmp_path}/stopped.jsonl: the same command goes on from there."
    assert capsys.readouterr().err.endswith(f"{said}\n")
    kept = (tmp_path / "stopped.jsonl").read_text()
    assert len(kept.splitlines()) == 3 and not (tmp_path / "stopped.json").exists()

    evaluate.main(command("stopped"))
    assert (tmp_path / "stopped.jsonl").read_text().startswith(kept)
    assert (tmp_path / "stopped.json").read_bytes() == (tmp_path / "whole.json").read_bytes()


def test_a_stopped_run_without_a_file_says_what_would_have_kept_its_verdicts(capsys, monkeypatch):
    monkeypatch.setattr(Verdicts, "add", at_call(2, Verdicts.add, signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        evaluate.main(FGSM)
    assert ended.value.code == 143 and "is lost: with --verdict_file FILE" in capsys.readouterr().err


def test_the_precision_of_gradients_is_printed_and_stored(tmp_path, capsys):
    file = tmp_path / "report.json"
    evaluate.main([*FGSM, "--attack_precision", "bf16", "--output_file", str(file)])
    assert RobustnessReport.load(file).protocol["attack_precision"] == "bf16"
    assert "; gradients of the attacks in bf16; seed 0." in capsys.readouterr().out
    with pytest.raises(SystemExit):
        evaluate.main([*FGSM, "--attack_precision", "follow"])
    assert "argument --attack_precision: invalid choice: 'follow'" in capsys.readouterr().err


def test_workers_read_images_and_support_sets_and_change_nothing(tmp_path, monkeypatch):
    reports, workers = [], []
    init = Reader.__init__
    monkeypatch.setattr(
        Reader, "__init__", lambda reader, data, count=0: workers.append(count) or init(reader, data, count)
    )
    flags = [*FGSM, "--head", "nearest_class_mean", "--support_sets", f"{DATA}:activities@test"]
    for count in ("0", "1"):
        file = tmp_path / f"{count}.json"
        evaluate.main([*flags, "--num_workers", count, "--output_file", str(file)])
        reports.append(RobustnessReport.load(file))
    assert reports[0].protocol == reports[1].protocol and reports[0].sets == reports[1].sets
    assert workers == [0, 0, 1, 1]
    with pytest.raises(SystemExit, match="--num_workers=-1.*integer from 0"):
        evaluate.main([*FGSM, "--num_workers", "-1"])


def test_the_encoder_is_compiled_in_the_mode_that_is_named(monkeypatch):
    modes = []
    monkeypatch.setattr(CompiledEncoder, "__init__", lambda encoder, model, mode, size: modes.append((mode, size)))
    monkeypatch.setattr(CompiledEncoder, "__call__", lambda encoder, pixel_values: torch.ones(len(pixel_values), 128))
    for flags in (["--compile"], ["--compile", "reduce-overhead"]):
        evaluate.main([*FGSM, "--batch_size", "5", "--attacks", "corruption,kind=jpeg,severity=1", *flags])
    assert modes == [("default", 5), ("reduce-overhead", 5)]


def test_pictures_of_threats_without_a_radius_have_no_curve(tmp_path):
    evaluate.main([*QUICK, "--attacks", "corruption,kind=jpeg,severity=1", "--plots", str(tmp_path)])
    assert {path.name for path in tmp_path.glob("*.png")} == {"bars.png"}


def test_rows_can_be_named(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps({"activities": [5, 2, 9]}))
    out = tmp_path / "a.json"
    evaluate.main(
        [*QUICK[:4], "--attacks", "fgsm", "--sample_ids", str(tmp_path / "rows.json"), "--output_file", str(out)]
    )
    assert RobustnessReport.load(out).sets[0].verdicts["sample_id"] == [5, 2, 9]
    (tmp_path / "rows.json").write_text(json.dumps({"food": [5]}))
    with pytest.raises(SystemExit, match=r"rows of \['food'\] and none of the sets \['activities'\]"):
        evaluate.main([*QUICK[:4], "--attacks", "fgsm", "--sample_ids", str(tmp_path / "rows.json")])


def test_unseen_threats_stand_beside_the_headline():
    args = evaluate.parse(["--eps", "4/255", "--unseen"])
    first, *others = evaluate.attacks_of(args, 64)
    assert first["attack"] == "pgd" and first["eps"] == "4/255"
    assert {spec.get("norm") for spec in others if spec["attack"] == "apgd"} == {"l1", "l2"}
    assert [spec["eps"] for spec in others if spec["attack"] == "pgd"] == ["8/255"]
    assert [spec["eps"] for spec in others if spec.get("norm") == "l2"] == [1.0, 1.0]
    assert sum(spec["attack"] == "corruption" for spec in others) == 5 * len(CORRUPTIONS)
    assert [spec["size"] for spec in others if spec["attack"] == "patch"] == [12]


def test_words_are_unseen_threats_where_they_are_asked_for_and_all_others_are_as_without_them():
    attacks = [evaluate.attacks_of(evaluate.parse(["--unseen", *words]), 64) for words in ([], ["pixels"], ["words"])]
    assert attacks[0] == attacks[1] == attacks[2][:-2]
    assert [AttackSpec.of(spec).name for spec in attacks[2][-2:]] == ["typographic word 20%", "typographic random 20%"]
    named = evaluate.attacks_of(evaluate.parse(["--attacks", "typographic,height=0.5"]), 64)
    assert AttackSpec.of(named[0]).threat == "typographic word 50%"


def test_words_are_as_high_as_the_names_of_all_sets_need(processor):
    def set_of(names, edge):
        pixels = datasets.Dataset.from_dict(
            {"image": [Image.new("RGB", (edge, edge))], "label": [0]},
            features=datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}),
        )
        return ZeroShotDataset(pixels, processor, prompt_templates="{}", name=names[0], native_size=True)

    short, long, never = (
        set_of(["newt", "frog"], 64),
        set_of(["a tree frog", "newt"], 32),
        set_of(["hippopotamus", "newt"], 40),
    )
    assert evaluate.height_of_words([short]) == {}
    of_words = evaluate.height_of_words([short, long, never])
    args = evaluate.parse(["--unseen", "words"])
    words = [AttackSpec.of(spec) for spec in evaluate.attacks_of(args, 64, of_words)[-2:]]
    assert [spec.threat for spec in words] == ["typographic word 30%", "typographic random 30%"]
    Plan.of(long, words)
    with pytest.raises(ValueError, match="on the set 'hippopotamus'.*pixels wide, or leave the set out"):
        Plan.of(never, words)


def test_unseen_threats_to_a_headline_in_l1_are_attacked_by_what_knows_l1():
    args = evaluate.parse(["--eps", "12", "--norm", "l1", "--attacks", "apgd", "--unseen"])
    specs = [AttackSpec.of(spec).to_dict() for spec in evaluate.attacks_of(args, 64)]
    balls = [(spec["attack"], spec["norm"], spec["eps"]) for spec in specs if "norm" in spec]
    assert balls == [("apgd", "l1", "12"), *[("apgd", "l1", "24")] * 2, *[("apgd", "l2", 1.0)] * 2]
    with pytest.raises(ValueError, match="'four/255', which is no number"):
        evaluate.attacks_of(evaluate.parse(["--eps", "four/255", "--unseen"]), 64)


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
def test_flags_that_would_be_ignored_are_refused(flags, message):
    with pytest.raises(SystemExit, match=message):
        evaluate.main(flags)


def test_without_pyautoattack_one_line_says_what_to_install(tmp_path):
    (tmp_path / "pyautoattack.py").write_text("raise ImportError")
    command = [sys.executable, "-m", "hf_pmgaft.cli.evaluate", *QUICK, "--attacks", "autoattack"]
    environment = {"PYTHONPATH": f"{tmp_path}:{EXAMPLES.parent}", "PATH": "/usr/bin", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and done.stderr.strip().splitlines()[-1].startswith("error: You asked for an attack")


def test_a_set_without_labels_is_refused(tmp_path):
    make_images(4).remove_columns("label").to_parquet(str(tmp_path / "own.parquet"))
    with pytest.raises(SystemExit, match="none of the usual label columns"):
        evaluate.main(["--eval_sets", str(tmp_path / "own.parquet"), "--attacks", "fgsm"])


def test_a_suite_of_ones_own_is_a_few_lines_of_yaml(tmp_path):
    make_images(12).save_to_disk(str(tmp_path / "data" / "shapes"))
    suite, out = tmp_path / "own.yaml", tmp_path / "a.json"
    suite.write_text(
        "shapes:\n  path: user/shapes\n  class_names: [red disc, green disc, blue square, yellow square]\n"
        "  prompt_template: an emoji of a {}\n"
    )
    options = ["--suite", str(suite), "--data_root", str(tmp_path / "data"), "--limit", "5", "--attacks", "fgsm"]
    evaluate.main([*options, "--output_file", str(out)])
    report = RobustnessReport.load(out)
    assert report.sets[0].num_samples == 5 and report.sets[0].num_classes == 4
    assert report.protocol["sets"]["shapes"]["prompt_templates"] == ["an emoji of a {}"]


def test_labelled_images_can_classify_instead_of_names_and_at_another_resolution(tmp_path):
    options = ["--eval_sets", f"{DATA}:animals@test", "--max_samples", "6", "--attacks", "fgsm", "--image_size", "48"]
    options += ["--output_file", str(tmp_path / "a.json"), "--head", "nearest_class_mean"]
    evaluate.main([*options, "--support_sets", f"{DATA}:finetune@train"])
    protocol = RobustnessReport.load(tmp_path / "a.json").protocol
    assert protocol["head"]["name"] == "NearestClassMean"
    assert protocol["head"]["support"]["animals"]["num_samples"] == 716
    assert protocol["sets"]["animals"]["attacked_at"] == 48
    with pytest.raises(SystemExit, match="--head nearest_class_mean with 0 --support_sets for 1 evaluation sets"):
        evaluate.main(options)


def test_the_command_line_prints_recalls_and_draws_them(tmp_path, capsys):
    losses = [spec["loss"] for spec in evaluate.attacks_of(evaluate.parse(["--caption_column", "auto"]), 40)]
    assert losses == ["margin", "ce"] and evaluate.attacks_of(evaluate.parse([]), 40)[0]["loss"] == "margin"

    data = ["--eval_sets", f"{DATA}:activities", f"{DATA}:food", "--max_samples", "12"]
    flags = [*data, "--caption_column", "label,tags", "--attacks", "fgsm", "--eps", "2/255", "4/255"]
    evaluate.main([*flags, "--output_file", str(tmp_path / "a.json"), "--plots", str(tmp_path)])
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
    evaluate.main(["--compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--plots", str(tmp_path)])
    assert "food T2I R@10" in capsys.readouterr().out and (tmp_path / "clean_against_robust.png").exists()

    evaluate.main([*flags, "--target", "drawn"])
    printed = capsys.readouterr().out
    assert (
        "food target@1 " in printed and "mean target@10" in printed and "target: the query image is pulled" in printed
    )
    with pytest.raises(SystemExit, match="--target 'a' without --caption_column"):
        evaluate.main([*data, "--target", "a"])


def test_a_card_that_cannot_be_pushed_is_found_before_anything_is_loaded(hub, monkeypatch):
    hub.put("user/clip", {})
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(SystemExit, match="--push for the card of 'user/clip', but the token has no right to write"):
        evaluate.main(["--model", "no/model", "--update_card", "user/clip", "--push"])
    assert not hub.served


def test_the_table_is_printed_before_the_report_is_saved(tmp_path, capsys, monkeypatch):
    def full(self, file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RobustnessReport, "save", full)
    with pytest.raises(SystemExit, match="No space left"):
        evaluate.main([*FGSM, "--output_file", str(tmp_path / "new" / "report.json")])
    assert "activities" in capsys.readouterr().out
