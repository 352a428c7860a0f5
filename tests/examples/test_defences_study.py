"""The study of defences at test time: what is measured, what is kept of it, and how figures come about."""

import importlib
import json

import pytest
from support import tiny

from hf_pmgaft import ZeroShotDataset


@pytest.fixture
def study():
    return importlib.import_module("defences")


@pytest.fixture
def tiny_study(study, monkeypatch):
    """The study on the tiny model, and two small sets of two images each."""
    pair = tiny.fit_model()
    monkeypatch.setattr("hf_pmgaft.tuning.saved.load_pair", lambda name: pair)

    def load_sets(processor, left_out):
        data = (tiny.make_images(8), processor, None, "a photo of the {}")
        return [ZeroShotDataset(*data, name=name, sample_ids=[1, 4]) for name in ("food", "flags")]

    monkeypatch.setattr(study, "load_sets", load_sets)
    for name in (study.NONE, "TTC"):
        monkeypatch.setitem(study.DEFENCES, name, study.DEFENCES[name]._replace(probes=False))
    return study


def entry(**verdicts: str) -> dict:
    """What is kept of a measurement on the first of the rows 3, 5 and 9 of one set, from verdicts such as "110"."""
    cost = {"forward": 4.0, "backward": 2.0, "milliseconds": 7.5}
    count = len(verdicts["clean"])
    return {
        "images": count,
        "eot": None,
        "draws": None,
        "rows": {"food": [3, 5, 9][:count]},
        "verdicts": {key: [f"{int('1' + text, 2):x}"] for key, text in verdicts.items()},
        "shares": [None],
        "flags": [],
        "prediction": cost,
        "evaluation": cost,
    }


NONE = entry(**{"clean": "111", "4/255 worst": "010", "8/255 worst": "000"})


def test_every_defence_is_measured_and_the_undefended_tower_under_every_attack(study):
    from hf_pmgaft.defences import DEFENCES
    from hf_pmgaft.defences.spec import DefenceSpec

    specs = [setting.spec for setting in study.DEFENCES.values() if setting.spec]
    assert {DefenceSpec.parse(spec).name for spec in specs} == set(DEFENCES)
    runs = study.wanted(study.parse([]))
    assert {study.Run(tower, study.NONE, part) for tower in study.TOWERS for part in study.PARTS} <= set(runs)
    assert runs[0].key == "none/none/pgd" and len(set(runs)) == len(runs)
    assert len({run.file_name for run in runs}) == len(runs)


def test_a_measurement_keeps_verdicts_by_attacker_and_counts_passes(tiny_study, tmp_path, monkeypatch):
    monkeypatch.setitem(tiny_study.PARTS, "pgd", ("pgd,num_steps=2,loss=margin", ["4/255"]))
    args = tiny_study.parse(["one", "--towers", "none", "--results", str(tmp_path)])
    run = tiny_study.Run("none", "TTC", "pgd")
    kept = tiny_study.measure(args, run)

    assert kept["images"] == 4 and kept["rows"] == {"food": [1, 4], "flags": [1, 4]}
    assert list(kept["verdicts"]) == ["clean", "4/255 unaware", "4/255 through", "4/255 straight_through"]
    # TTC: the image, two steps, and the result
    assert (kept["prediction"]["forward"], kept["prediction"]["backward"]) == (4.0, 2.0)
    # Two steps of the bare model, and of the defence by two attackers with four draws, of the images that are right
    right = sum(sum(map(tiny_study.board.unpacked, kept["verdicts"]["clean"]), []))
    assert right and kept["evaluation"]["backward"] >= right / 4 * (2 + 2 * 2 * 4 * 3)
    assert (kept["eot"], kept["draws"]) == (4, 5)

    shares = tiny_study.summarized({run.key: kept})["pgd"]["none"]["TTC"]["shares"]
    assert set(shares) == {"clean", "robust"} and 0 < shares["clean"]["mean_share"] <= 100

    bare = tiny_study.measure(args, tiny_study.Run("none", "none", "pgd"))
    assert list(bare["verdicts"]) == ["clean", "4/255 worst"]
    assert (bare["prediction"]["forward"], bare["prediction"]["backward"]) == (1.0, 0.0)


def test_the_worst_attacker_counts_image_by_image_and_is_compared_on_the_same_images(study):
    at_4 = {"4/255 unaware": "11", "4/255 through": "01", "4/255 straight_through": "10"}
    at_8 = {f"8/255 {attacker}": "00" for attacker in study.ATTACKERS}
    runs = {"none/none/pgd": NONE, "none/TTC/pgd": entry(**{"clean": "11", **at_4, **at_8})}
    figures = study.summarized(runs)["pgd"]["none"]["TTC"]["figures"]
    assert [figures[f"4/255 {name}"]["accuracy"] for name in study.ATTACKERS] == [100, 50, 50]
    assert figures["4/255 worst"]["accuracy"] == 0
    # The undefended tower on the rows 3 and 5: one of them is right.
    assert figures["4/255 worst"]["against undefended"]["points"] == -50
    low, high = figures["4/255 worst"]["against undefended"]["interval_95"]
    assert low < -50 < high
    assert figures["clean"]["against undefended"]["points"] == 0


def test_tables_have_a_line_per_defence_and_the_picture_a_panel_per_tower(study, tmp_path, capsys):
    at_4, at_8 = (
        {f"{eps} unaware": unaware, f"{eps} through": through}
        for eps, unaware, through in (("4/255", "111", "110"), ("8/255", "100", "000"))
    )
    runs = {"none/views/pgd": entry(**{"clean": "111", **at_4, **at_8}), "none/none/pgd": NONE}  # as they came
    (tmp_path / "defences_runs.json").write_text(json.dumps(runs))
    study.main(["--table", "--results", str(tmp_path)])
    printed = capsys.readouterr().out
    assert (
        "original, pgd 4/255 and 8/255:" in printed and "| worst | gain | worst at 8/255 | gain at 8/255 |" in printed
    )
    line = next(line for line in printed.splitlines() if line.startswith("| views | 100.0 |"))
    assert line.startswith("| views | 100.0 | 100.0 | 66.7 | = through | 66.7 (")
    assert line.count("| +33.3 (") == 1 and "| 0.0 (0.0 to 56.1) | " in line  # at 8/255
    assert "| views | 3 |  |  | 4 + 2 | 7.5 | 4 + 2 |" in printed
    written = json.loads((tmp_path / "defences.json").read_text())
    assert written["figures"]["pgd"]["none"]["views"]["figures"]["8/255 worst"]["accuracy"] == 0
    assert (tmp_path / "defences.png").stat().st_size > 5000


def test_figures_of_fewer_images_do_not_come_beside_the_others(study, capsys):
    with pytest.raises(SystemExit):
        study.parse(["--max_samples", "1"])
    assert "Pass another --results" in capsys.readouterr().err


def test_measurements_run_by_themselves_are_kept_once_and_a_failure_is_told_at_the_end(study, monkeypatch, tmp_path):
    commands = []

    def run(command, **options):
        commands.append(command)
        is_first = len(commands) == 1
        if not is_first:
            study.write_one(study.parse(command[2:]))
        return study.subprocess.CompletedProcess(command, returncode=int(is_first))

    monkeypatch.setattr(study.subprocess, "run", run)
    monkeypatch.setattr(study, "measure", lambda args, run: {"key": run.key, "most": args.max_samples})
    few = ["--jobs", "1", "--towers", "none", "--parts", "pgd", "--defences", "none", "anti-adversary, small"]
    places = ["--results", str(tmp_path / "results"), "--output_dir", str(tmp_path / "outputs"), "--max_samples", "2"]
    args = study.parse([*few, *places])

    with pytest.raises(SystemExit, match="none-none-pgd.json ended with code 1: see its log"):
        study.start(args, study.wanted(args))
    key = "none/anti-adversary, small/pgd"
    assert study.read_runs(args) == {key: {"key": key, "most": 2}}
    assert [file.name for file in args.results.iterdir()] == ["defences_runs.json"]
    assert (tmp_path / "outputs" / "defences" / "none-none-pgd.log").exists()
