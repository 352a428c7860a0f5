"""Files of defaults that `--config` names."""

import json

import pytest
from support.borders import Refused, check, outcomes

from hf_pmgaft.arguments import parse_args, recipe_names
from hf_pmgaft.cli.train_arguments import TYPES

CASES = {
    "one option": ("num_steps: 7\n", 7),
    "JSON": (json.dumps({"num_steps": 7}, indent=2), 7),
    "a byte order mark": ("\ufeffnum_steps: 7\n", 7),
    "UTF-16": ("num_steps: 7\n".encode("utf-16"), Refused("which is no YAML")),
    "an anchor": ("eval_num_steps: &seven 7\nnum_steps: *seven\n", 7),
    "a merged anchor": (
        "objective_kwargs: &it {alpha: 1}\nnum_steps: 7\ntuning_kwargs: {<<: *it, alpha: 2}\n",
        Refused("no option alpha"),
    ),
    "nothing": ("", Refused("no `option: value` lines")),
    "nothing but comments": ("# num_steps: 7\n", Refused("no `option: value` lines")),
    "a list": ("- num_steps\n- 7\n", Refused("no `option: value` lines")),
    "a word": ("num_steps", Refused("no `option: value` lines")),
    "tabs": ("objective_kwargs:\n\talpha: 1\n", Refused("cannot start any token")),
    "a key twice": ("num_steps: 7\neps: 1/255\nnum_steps: 8\n", Refused("hold num_steps twice")),
    "a key twice inside": ("num_steps: 7\nobjective_kwargs:\n  alpha: 1\n  alpha: 2\n", Refused("hold alpha twice")),
    "two documents": ("num_steps: 7\n---\nnum_steps: 8\n", Refused("expected a single document")),
    "an unknown key": ("numsteps: 7\n", Refused("numsteps (did you mean num_steps?)")),
    "a number for a key": ("7: 7\n", Refused("7. See --help")),
    "a word for a number": ("num_steps: seven\n", Refused("invalid int value: 'seven'")),
    "yes for a number": ("num_steps: yes\n", Refused("invalid int value")),
    "a date for a number": ("num_steps: 2024-01-01\n", Refused("invalid int value: '2024-01-01'")),
    "a list for a number": ("num_steps: [7, 8]\n", Refused("invalid int value")),
    "grey levels": ("num_steps: 7\neps: 4\n", Refused("write 4/255")),
    "a Python object": (
        "num_steps: !!python/object/apply:os.getpid []\n",
        Refused("could not determine a constructor"),
    ),
    "a Python name": ("num_steps: !!python/name:os.getpid\n", Refused("could not determine a constructor")),
    "an unfinished quote": ('eps: "4/255\n', Refused("which is no YAML")),
    "a control character": ("num_steps: 7\x00\n", Refused("which is no YAML")),
}


@outcomes(CASES)
def test_files_of_defaults(given, outcome, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_bytes(given if isinstance(given, bytes) else given.encode())
    check(lambda: parse_args(TYPES, ["--config", str(file), "--use_cpu"])[2].num_steps, outcome)


@pytest.mark.parametrize("name", ["tecoa", "tecoa.yaml"])
def test_a_recipe_goes_by_its_name_with_or_without_an_ending(name):
    assert parse_args(TYPES, ["--config", name, "--use_cpu"])[2].objective == "tecoa"


def test_what_is_not_there_is_refused():
    check(lambda: parse_args(TYPES, ["--config", "nowhere.yaml"]), Refused("cannot be read (No such file"))


# ---- Flags over a recipe ----

OWN = ["--optim", "adamw_torch", "--learning_rate", "1e-4", "--eps", "2/255"]
FLAGS = {
    "another method": (
        "tecoa --objective fare",
        Refused("Pass --recipe fare, or your own --optim, --learning_rate, --eps"),
    ),
    "another method in one word": ("tecoa --objective=fare", Refused("--recipe fare")),
    "a method of several recipes": ("fare --objective pmg_aft", Refused("--recipe pmg_aft or pmg_aft_released_code")),
    "a method under another name": ("tecoa --objective mpm_nce", Refused("--recipe r_adapter")),
    "a method without a recipe": ("tecoa --objective clean", Refused("--recipe emoji")),
    "some of what it needs": ("tecoa --objective fare --eps 2/255", Refused("your own --optim, --learning_rate.")),
    "all of what it needs": (" ".join(["tecoa --objective fare", *OWN]), ("fare", 2 / 255, 2 / 255)),
    "the same method": ("tecoa --objective tecoa", ("tecoa", 1 / 255, 1 / 255)),
    "any method on the embedded default": ("emoji --objective tecoa", ("tecoa", 4 / 255, 4 / 255)),
    "another radius": ("tecoa --eps 4/255", ("tecoa", 4 / 255, 4 / 255)),
    "another radius of APT": ("apt --eps 1/255", ("apt", 1 / 255, pytest.approx(2 / 765))),
    "a radius within ten absolute steps": ("fare --eps 2/255", ("fare", 2 / 255, 1 / 255)),
    "a radius beyond them": ("fare --eps 16/255", Refused("which together reach 0.62 of the radius 16/255")),
    "fewer absolute steps": ("fare --num_steps 3", Refused("Take 4 steps")),
    "a step of one's own": ("tecoa --eps 4/255 --step_size 1/255", Refused("reach 0.5")),
    "another attack": ("tecoa --attack shared", ("tecoa", 1 / 255, None)),
    "the attack that it has": ("trades --attack pgd", ("trades", 1 / 255, 1 / 255)),
}


@outcomes(FLAGS)
def test_flags_over_a_recipe(given, outcome):
    def parsed():
        *_, args = parse_args(TYPES, ["--recipe", *given.split(), "--use_cpu"])
        options = args.attack_options()
        return args.objective, options["eps"], options["step_size"]

    check(parsed, outcome)


def test_a_file_of_ones_own_is_of_any_method(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("objective: tecoa\noptim: sgd\nlearning_rate: 1e-3\neps: 4/255\n")
    *_, args = parse_args(TYPES, ["--config", str(file), "--objective", "fare", "--use_cpu"])
    assert args.objective == "fare" and args.learning_rate == 1e-3


def test_another_attack_keeps_what_is_not_its_own():
    *_, args = parse_args(TYPES, ["--recipe", "trades", "--attack", "fgsm", "--use_cpu"])
    assert args.attack_kwargs is None and args.step_size is None and args.num_steps == 2
    *_, args = parse_args(TYPES, ["--recipe", "trades", "--attack", "pgd", "--use_cpu"])
    assert args.attack_kwargs == {"start_std": 0.001} and args.step_size == "1eps"


def test_there_are_twenty_recipes():
    assert len(recipe_names()) == 20
