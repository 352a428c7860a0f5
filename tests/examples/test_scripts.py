"""The scripts under examples/ are parts of the command under names of their own."""

import json
import os
import runpy
import subprocess
import sys

import pytest
from support.paths import EXAMPLES, ROOT
from transformers import CLIPModel

from hf_pmgaft import cli

SCRIPTS = {
    "run_pmgaft": "accelerate launch examples/run_pmgaft.py",
    "evaluate_robustness": "python examples/evaluate_robustness.py --model",
    "gallery": "python examples/gallery.py --models",
    "attack_llava": "python examples/attack_llava.py --towers",
    "convert": "python examples/convert.py --from",
}
OF_COMMAND = {
    "run_pmgaft": "train",
    "evaluate_robustness": "evaluate",
    "gallery": "gallery",
    "attack_llava": "attack-vlm",
    "convert": "convert",
}


def run(monkeypatch, name: str, *argv: str) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *argv])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


def help_of(capsys, call) -> tuple[str, str]:
    """A help's description and its options."""
    with pytest.raises(SystemExit) as done:
        call()
    assert done.value.code == 0
    description, options, rest = capsys.readouterr().out.partition("\noptions:\n")
    return description, options + rest


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_names_the_script_and_has_the_options_of_the_command(name, monkeypatch, capsys):
    description, options = help_of(capsys, lambda: run(monkeypatch, name, "--help"))
    _, of_command = help_of(capsys, lambda: cli.main([OF_COMMAND[name], "--help"]))
    assert SCRIPTS[name] in description and f"{name}.py" in description.splitlines()[0]
    assert options == of_command


@pytest.mark.parametrize(
    ("name", "argv"),
    [
        ("run_pmgaft", ["--eps", "4", "--use_cpu"]),
        ("evaluate_robustness", ["--limit", "5"]),
        ("gallery", ["--num_images", "0"]),
        ("attack_llava", ["--num_images", "0"]),
        ("convert", ["--from", "nowhere.pt", "--base", "nowhere", "--output_dir", "out"]),
    ],
)
def test_what_cannot_work_ends_with_one_line(name, argv, monkeypatch):
    with pytest.raises(SystemExit, match="^error: "):
        run(monkeypatch, name, *argv)


def test_a_script_leaves_the_number_of_processes_to_its_launcher(monkeypatch):
    with pytest.raises(SystemExit, match="no options: --num_processes"):
        run(monkeypatch, "run_pmgaft", "--num_processes", "2")


def test_the_first_line_of_the_readme_trains(tmp_path):
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", str(EXAMPLES / "run_pmgaft.py")]
    flags = ["--max_steps", "2", "--per_device_train_batch_size", "8", "--do_eval", "false"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

    done = subprocess.run([*launch, *flags], cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr[-4000:]
    output_dir = tmp_path / "outputs" / "clip-pmgaft-emoji"
    assert json.loads((output_dir / "training_config.json").read_text())["max_steps"] == 2
    assert CLIPModel.from_pretrained(output_dir).config.projection_dim > 0
