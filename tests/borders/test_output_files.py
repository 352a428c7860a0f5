"""Places that results are to be written to: each is checked before anything is computed."""

import importlib

import pytest
from support.borders import Refused, check, outcomes
from support.paths import EMOJI

from hf_pmgaft.cli import attack, attack_vlm, compare, convert, evaluate, gallery, train
from hf_pmgaft.files import check_output_file, check_output_folder, write_whole

# `file` is a file, `folder` a folder, `linked` a link to nothing in a folder that there is.
FILES = {
    "a plain name": ("report.json", "report.json"),
    "a file that is there": ("file", "file"),
    "a folder that is missing": ("new/report.json", "new/report.json"),
    "several folders that are missing": ("a/b/c/report.json", "a/b/c/report.json"),
    "spaces and other letters": ("Prüfung 1/测试.json", "Prüfung 1/测试.json"),
    "no ending": ("new/report", "new/report"),
    "a way back": ("folder/../report.json", "report.json"),
    "a link to a file that is not there yet": ("linked", "linked"),
    "nothing asked for": (None, None),
    "a folder": ("folder", Refused("which is a folder")),
    "a folder that is missing, with its slash": ("new/", Refused("which is a folder")),
    "this folder": (".", Refused("which is a folder")),
    "an empty name": ("", Refused("which is a folder")),
    "below a file": ("file/report.json", Refused("Not a directory")),
    "far below a file": ("file/new/report.json", Refused("Not a directory")),
    "where the system lets nobody write": ("/proc/report.json", Refused("cannot be written")),
    "a name that is too long": ("x" * 300 + "/report.json", Refused("File name too long")),
}


@outcomes(FILES)
def test_files_that_results_go_to(given, outcome, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "target.json")

    def written():
        check_output_file("--output_file", given)
        if given is None:
            return None
        assert sorted(tmp_path.iterdir()) == before, "The check leaves something behind."
        write_whole(given, "{}")
        return outcome if (tmp_path / outcome).exists() else None

    before = sorted(tmp_path.iterdir())
    check(written, outcome)
    assert (tmp_path / "file").read_text() == ("{}" if given == "file" else "kept") and not list(
        (tmp_path / "folder").iterdir()
    )


FOLDERS = {
    "one that is there": ("folder", True),
    "one that is missing": ("new", True),
    "one far down": ("a/b/c", True),
    "with its slash": ("folder/", True),
    "this one": (".", True),
    "the empty name, which is this one": ("", True),
    "nothing asked for": (None, True),
    "a link to a folder": ("linked", True),
    "a file": ("file", Refused("Not a directory")),
    "below a file": ("file/new", Refused("Not a directory")),
    "where the system lets nobody write": ("/proc/new", Refused("cannot be written to")),
    "a link to nothing": ("broken", Refused("Not a directory")),
}


@outcomes(FOLDERS)
def test_folders_that_results_go_to(given, outcome, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "folder")
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    check(lambda: check_output_folder("--plots", given) or True, outcome)


# What fails, in a folder with a config.json of another model, is seen in what is there afterwards.
FAILURES = {
    "convert": (convert, ["--from", "nothing", "--output_dir", "new"]),
    "convert, far down": (convert, ["--from", "nothing", "--output_dir", "a/b/c"]),
    "convert into one that is there": (convert, ["--from", "nothing", "--output_dir", "folder"]),
    "convert a folder of notes": (convert, ["--from", "folder", "--output_dir", "new"]),
    "train": (train, ["--model_name_or_path", "nothing", "--output_dir", "new", "--eps", "1/255"]),
    "train without a model": (train, ["--dataset_name", "nothing", "--output_dir", "a/b/c"]),
    "evaluate": (evaluate, ["--model", "nothing", "--output_file", "new/report.json", "--plots", "pictures"]),
    "evaluate with verdicts": (evaluate, ["--model", "nothing", "--verdict_file", "new/verdicts.jsonl"]),
    "compare": (compare, ["a.json", "b.json", "--output_file", "new/report.json", "--plots", "pictures"]),
    "gallery": (gallery, ["--models", "nothing", "--output_file", "new/gallery.png"]),
    "attack": (attack, ["--models", "nothing", "--output_folder", "new/pictures"]),
    "attack-vlm": (attack_vlm, ["--towers", "nothing", "--output_file", "new/a.json", "--gallery", "new/b.png"]),
}


@outcomes({name: (case, []) for name, case in FAILURES.items()})
def test_a_command_that_fails_leaves_nothing_behind(given, outcome, tmp_path, monkeypatch):
    command, argv = given
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.md").write_text("kept")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit, match="error: "):
        command.main(argv)
    assert [path for path in tmp_path.rglob("*") if path not in before] == outcome


def test_a_conversion_that_fails_half_way_leaves_nothing_behind(tmp_path, monkeypatch):
    def disk_full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("hf_pmgaft.models.processors.save_processor", disk_full)
    with pytest.raises(SystemExit, match="error: No space left"):
        convert.main(["--from", str(EMOJI / "model"), "--output_dir", str(tmp_path / "out")])
    assert not list(tmp_path.iterdir())


COMMANDS = [
    (evaluate, ["--output_file"]),
    (evaluate, ["--verdict_file"]),
    (evaluate, ["--compare", "a.json", "b.json", "--output_file"]),
    (compare, ["a.json", "b.json", "--output_file"]),
    (gallery, ["--output_file"]),
    (attack_vlm, ["--output_file"]),
    (attack_vlm, ["--verdict_file"]),
    (attack_vlm, ["--gallery"]),
]


@pytest.mark.parametrize(("command", "flags"), COMMANDS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_every_command_checks_its_files_before_it_loads_anything(command, flags, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "load_model", None, raising=False)
    with pytest.raises(SystemExit, match=f"error: You passed {flags[-1]} {tmp_path}, which is a folder"):
        command.main([*flags, str(tmp_path)])


@pytest.mark.parametrize(("command", "flags"), [(evaluate, ["--plots"]), (compare, ["a.json", "b.json", "--plots"])])
def test_folders_of_pictures_are_checked_too(command, flags, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match=r"error: You passed --plots .*file, which cannot be written to"):
        command.main([*flags, str(tmp_path / "file")])


def test_a_converted_model_is_not_written_over_what_it_is_made_of(tmp_path):
    with pytest.raises(SystemExit, match="which is read and would be written over"):
        convert.main(["--from", str(tmp_path), "--base", "base", "--output_dir", f"{tmp_path}/new/.."])
    with pytest.raises(SystemExit, match="--output_dir .* cannot be written to"):
        convert.main(["--from", str(tmp_path), "--base", "base", "--output_dir", "/proc/model"])


def test_a_comparison_is_not_written_over_a_report(tmp_path):
    report = tmp_path / "a.json"
    report.write_text("{}")
    with pytest.raises(SystemExit, match="one of the reports and would be written over"):
        compare.main([str(report), "b.json", "--output_file", f"{tmp_path}/new/../a.json"])
    assert report.read_text() == "{}"


@pytest.mark.parametrize("script", ["benchmark", "compare", "costs", "leaderboard"])
def test_scripts_of_studies_and_speed_check_theirs(script, tmp_path, monkeypatch):
    module = importlib.import_module(script)
    (tmp_path / "figures.json").mkdir()
    flags = {
        "benchmark": ["data", "--output_file", str(tmp_path)],
        "compare": ["--file", str(tmp_path)],
        "costs": ["--file", str(tmp_path / "figures"), "--output_dir", str(tmp_path / "runs")],
        "leaderboard": ["--file", str(tmp_path / "figures"), "--output_dir", str(tmp_path / "runs")],
    }[script]
    monkeypatch.setattr("sys.argv", [script, *flags])
    with pytest.raises(ValueError, match="which is a folder"):
        if script == "leaderboard":
            module.rank(module.parse())
        else:
            module.main()
