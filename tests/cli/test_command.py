"""The command `pmgaft`: its parts, its help, recipes, comparisons, the environment, and how it starts processes."""

import json
import os
import subprocess
import sys
from dataclasses import fields

import pytest
import yaml
from support.paths import EXAMPLES, ROOT
from transformers import TrainingArguments

from hf_pmgaft import cli
from hf_pmgaft.cli import environment, recipes, train
from hf_pmgaft.cli.train_arguments import GROUPS_OF_CONFIG, TYPES, help_groups
from hf_pmgaft.config import PMGAFTConfig
from hf_pmgaft.evaluation.report import RobustnessReport, SetResult

ATTACK = {"attack": "pgd", "eps": "4/255", "norm": "linf", "num_steps": 3, "loss": "ce"}
NAME = "PGD-3 ce linf 4/255"


def report(robust: list[int], seed: int = 0) -> RobustnessReport:
    """Of four images of one set, all right clean."""
    verdicts = {"clean": [1, 1, 1, 1], NAME: robust, "sample_id": [0, 1, 2, 3]}
    accuracy = sum(robust) / len(robust)
    result = SetResult("food", 2, 4, 1.0, accuracy, {NAME: accuracy}, verdicts)
    return RobustnessReport({"attacks": [ATTACK], "headline": "linf 4/255", "seed": seed}, [result])


# ---- The command ----


def test_help_names_every_part_and_what_it_does(capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert done.value.code == 0
    for name, (_, meaning) in cli.COMMANDS.items():
        assert f"  {name} " in shown and meaning in shown


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_part_has_help_under_its_own_name(command, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main([command, "--help"])
    shown = capsys.readouterr().out
    assert done.value.code == 0
    assert shown.startswith(f"usage: pmgaft {command} ") and f"    pmgaft {command}" in shown


def test_a_part_that_there_is_not_ends_with_one_line():
    with pytest.raises(SystemExit, match="error: pmgaft has no command 'evaluat'. Choose one of train, evaluate"):
        cli.main(["evaluat"])


def test_help_imports_no_torch():
    code = "import sys, hf_pmgaft.cli as cli\ntry: cli.main([])\nexcept SystemExit: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_command_line_is_parsed_without_being_run(tmp_path):
    assert cli.parse(["evaluate", "--eps", "2/255", "4/255"]).eps == ["2/255", "4/255"]
    assert cli.parse(["compare", "a.json", "b.json", "--ignore", "seed"]).reports == ["a.json", "b.json"]
    assert cli.parse(["recipes", "show", "tecoa"]).name == "tecoa"
    assert cli.parse(["attack-vlm", "--towers", "x"]).towers == ["x"]
    *_, args = cli.parse(["train", "--recipe", "fare", "--num_processes", "2", "--use_cpu"])
    assert args.objective == "fare"
    with pytest.raises(ValueError, match=r"--learning_rat \(did you mean learning_rate\?\)"):
        cli.parse(["train", "--learning_rat", "1"])
    with pytest.raises(SystemExit):
        cli.parse(["evaluate", "--epsilon", "1"])


# ---- Options of training ----


def test_help_of_training_lists_this_packages_options_before_trainers(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    shown = capsys.readouterr().out
    places = [shown.index(f"\n{title}:\n") for title in help_groups()]
    assert places == sorted(places)
    assert shown.index("--eval_max_samples") < shown.index("--objective") < shown.index("--max_steps")
    assert shown.index("--no_random_start") < places[3]  # with the option that it turns off


def test_every_option_of_this_package_stands_in_a_group():
    inherited = {entry.name for entry in fields(TrainingArguments)}
    added = {entry.name for entry in fields(PMGAFTConfig)} - inherited
    read_otherwise = {"per_device_train_batch_size", "gradient_accumulation_steps"}
    assert added | read_otherwise == {name for names in GROUPS_OF_CONFIG.values() for name in names}
    listed = [name for names in help_groups().values() for name in names]
    assert sorted(listed) == sorted(entry.name for cls in TYPES for entry in fields(cls) if entry.init)


def test_without_a_model_or_set_the_embedded_default_is_meant():
    model_args, data_args, args = train.parse(["--use_cpu"])
    assert model_args.model_name_or_path == str(EXAMPLES / "emoji" / "model")
    assert data_args.in_domain_set == "animals" and args.objective_kwargs == {"alpha": 2.0}
    model_args, *_ = train.parse(["--use_cpu", "--model_name_or_path", "mine"])
    assert model_args.model_name_or_path == "mine"


# ---- Several processes ----


def test_options_of_the_launcher_are_taken_out_of_a_command_line():
    options, rest = train.split_launcher_options(["--eps", "4/255", "--num_processes", "2", "--bf16"])
    assert rest == ["--eps", "4/255", "--bf16"]
    assert options[-3:] == ["--multi_gpu", "--num_processes", "2"]
    assert "--multi_gpu" not in train.split_launcher_options(["--num_processes=1"])[0]
    assert train.split_launcher_options(["--bf16"]) == ([], ["--bf16"])


def test_a_configuration_of_accelerate_is_a_file_or_in_a_checkout_a_name(tmp_path):
    file = EXAMPLES / "accelerate_configs" / "ddp.yaml"
    assert train.split_launcher_options(["--accelerate_config", "ddp"]) == (["--config_file", str(file)], [])
    (tmp_path / "own.yaml").touch()
    options, _ = train.split_launcher_options(["--accelerate_config", str(tmp_path / "own.yaml")])
    assert options == ["--config_file", str(tmp_path / "own.yaml")]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--accelerate_config", "nowhere"], "--accelerate_config nowhere, which is no file"),
        (["--num_processes", "two"], "argument --num_processes: invalid int value: 'two'"),
    ],
)
def test_a_wrong_option_of_the_launcher_ends_with_one_line(flags, message):
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        train.main(flags)


def test_the_launcher_starts_this_command(monkeypatch):
    started = []
    monkeypatch.setattr("accelerate.commands.launch.launch_command", started.append)
    train.main(["--num_processes", "2", "--recipe", "tecoa"])
    (args,) = started
    assert args.module and args.training_script == "hf_pmgaft.cli.train" and args.num_processes == 2
    assert args.training_script_args == ["--recipe", "tecoa"]
    with pytest.raises(SystemExit) as done:
        train.main(["--num_processes", "2", "--help"])
    assert done.value.code == 0 and len(started) == 1


@pytest.mark.slow
def test_two_processes_train_together(tmp_path):
    flags = ["--num_processes", "2", "--max_steps", "2", "--do_eval", "false", "--per_device_train_batch_size", "4"]
    flags += ["--use_cpu", "--output_dir", str(tmp_path / "run"), "--report_to", "none"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "hf_pmgaft.cli", "train"]
    done = subprocess.run([*command, *flags], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    assert (tmp_path / "run" / "model.safetensors").exists()
    wrong = subprocess.run([*command, *flags, "--eps", "4"], env=environment, capture_output=True, text=True)
    assert wrong.returncode == 1
    assert wrong.stderr.splitlines()[-1].startswith("error: ") and "write 4/255" in wrong.stderr.splitlines()[-1]


# ---- Recipes ----


def test_recipes_are_listed_with_a_line_each(capsys):
    cli.main(["recipes"])
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert set(lines) == {file.stem for file in recipes.recipe_files()} >= {"emoji", "pmg_aft", "tecoa"}
    assert lines["tecoa"].startswith("TeCoA (ICLR 2023")
    assert all(line.endswith(".") for line in lines.values())


@pytest.mark.parametrize("file", recipes.recipe_files(), ids=lambda file: file.stem)
def test_a_recipe_is_shown_as_it_stands_and_names_its_command(file, capsys):
    cli.main(["recipes", "show", file.stem])
    shown = capsys.readouterr().out
    assert shown == file.read_text() and isinstance(yaml.safe_load(shown), dict)
    command = shown.splitlines()[1].removeprefix("#").split()
    recipe = [] if file.stem == "emoji" else ["--recipe", file.stem]
    assert command[: 2 + len(recipe)] == ["pmgaft", "train", *recipe]


def test_what_is_shown_can_be_trained_by(tmp_path, capsys):
    cli.main(["recipes", "show", "emoji"])
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out)
    assert train.parse(["--config", str(tmp_path / "mine.yaml"), "--use_cpu"])[:2] == train.parse(["--use_cpu"])[:2]


# ---- Comparisons ----


def test_two_reports_are_compared(tmp_path, capsys):
    files = [str(tmp_path / name) for name in ("a.json", "b.json")]
    report([0, 0, 0, 1]).save(files[0])
    report([1, 1, 0, 1]).save(files[1])
    cli.main(["compare", *files, "--format", "markdown", "--output_file", str(tmp_path / "out.json")])
    assert "+50.0" in capsys.readouterr().out
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["sets"]["food"][NAME]["difference"] == 0.5


def test_reports_of_two_protocols_are_compared_if_it_is_said_what_may_differ(tmp_path, capsys):
    files = [str(tmp_path / name) for name in ("a.json", "b.json")]
    report([0, 0, 0, 1]).save(files[0])
    report([1, 1, 0, 1], seed=1).save(files[1])
    with pytest.raises(SystemExit, match="^error: .*different protocols.*seed"):
        cli.main(["compare", *files])
    cli.main(["compare", *files, "--ignore", "seed"])
    assert "+50.0" in capsys.readouterr().out


def test_a_report_that_is_not_there_ends_with_one_line():
    with pytest.raises(SystemExit, match="^error: .*nowhere.json"):
        cli.main(["compare", "nowhere.json", "nowhere.json"])


# ---- The environment ----


def test_a_bug_report_has_versions_and_devices_and_no_secret(monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(environment, "LIBRARIES", (*environment.LIBRARIES, "nothing-of-this-name"))
    cli.main(["env"])
    lines = dict(line.removeprefix("- ").split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert {"hf_pmgaft", "python", "torch", "transformers", "accelerate", "deepspeed", "GPUs"} <= set(lines)
    assert lines["nothing-of-this-name"] == "not installed"
    assert "hf_secret" not in "".join(lines.values()) and os.path.expanduser("~") not in "".join(lines.values())
