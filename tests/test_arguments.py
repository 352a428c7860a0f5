"""Command lines: YAML defaults and recipes, flags over them, and messages that say what to change."""

from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from transformers import TrainingArguments

from hf_pmgaft import arguments
from hf_pmgaft.arguments import find_config, parse_args, recipe_names
from hf_pmgaft.cli import train
from hf_pmgaft.cli.train_arguments import TYPES
from hf_pmgaft.embedded import emoji_folder


@pytest.fixture
def parse(tmp_path):
    def parse(text: str, *flags: str):
        file = tmp_path / "defaults.yaml"
        file.write_text(text)
        return parse_args(TYPES, ["--config", str(file), "--use_cpu", *flags])

    return parse


def test_flags_override_the_file_and_the_file_overrides_the_defaults(parse):
    _, data, args = parse(
        "eps: 4/255\nnum_steps: 3\neval_sets: [a, b]\nobjective_kwargs: {alpha: 2}\nrandom_start: no",
        "--eps=2/255",
        "--eval_sets",
        "c",
        "--objective_kwargs",
        '{"alpha": 3, "beta": 0.5}',
    )
    assert (args.eps, args.num_steps, args.eval_num_steps) == ("2/255", 3, 20)
    assert data.eval_sets == ["c"] and not args.random_start
    assert args.objective_kwargs == {"alpha": 3, "beta": 0.5}


def test_values_of_the_file_have_the_types_of_the_flags(parse):
    model, data, args = parse(
        "learning_rate: 1e-5\nwarmup_steps: 3\nweight_decay: 0\neps: 4/255\nimage_mean: [5e-1, 0, 1]\nbf16: false\n"
        "eval_sets: only\nobjective_kwargs: {alpha: 1e-3}\nsave_strategy: no\neval_step_size: null\noptim: sgd\n"
        "report_to: [none]"
    )
    assert args.learning_rate == 1e-5 and args.eps == "4/255" and args.bf16 is False
    assert isinstance(args.weight_decay, float) and args.eval_step_size is None
    assert model.image_mean == [0.5, 0.0, 1.0] and data.eval_sets == ["only"]
    assert args.save_strategy == "no" and args.report_to == [] and args.optim == "sgd"
    assert args.attack_options()["eps"] == pytest.approx(4 / 255)


def test_options_of_the_files_objective_do_not_go_with_another_one(parse):
    text = "objective: pmg_aft\nobjective_kwargs: {alpha: 2}\nattack: pgd\nattack_kwargs: {momentum: 1.0}"
    assert parse(text, "--objective", "pmg_aft")[2].objective_kwargs == {"alpha": 2}
    other = parse(text, "--objective=tecoa")[2]
    assert other.objective == "tecoa" and other.objective_kwargs is None and other.attack_kwargs == {"momentum": 1.0}
    assert parse(text, "--attack", "fgsm")[2].attack_kwargs is None
    with pytest.raises(ValueError, match="has no option alpha"):
        parse(text, "--objective", "tecoa", "--objective_kwargs", '{"alpha": 3}')


def test_config_dir_stands_for_the_folder_of_the_file(parse, tmp_path):
    model, data, args = parse(
        "model_name_or_path: '{config_dir}/m'\neval_sets: ['{config_dir}/a']\nlr_scheduler_type: linear\n"
        "lr_scheduler_kwargs: {folder: '{config_dir}'}"
    )
    assert model.model_name_or_path == f"{tmp_path}/m" and data.eval_sets == [f"{tmp_path}/a"]
    assert args.lr_scheduler_kwargs == {"folder": str(tmp_path)}


def test_emoji_stands_for_the_folder_of_the_embedded_default(parse):
    model, data, _ = parse("model_name_or_path: '{emoji}/model'\neval_sets: ['{emoji}/data:food', other]")
    assert model.model_name_or_path == f"{emoji_folder()}/model" and Path(model.model_name_or_path).is_dir()
    assert data.eval_sets == [f"{emoji_folder()}/data:food", "other"]


def test_a_file_that_does_not_name_the_embedded_default_does_without_it(parse, monkeypatch):
    def nowhere():
        raise FileNotFoundError("not installed")

    monkeypatch.setattr(arguments, "emoji_folder", nowhere)
    parse("eps: 4/255")
    with pytest.raises(FileNotFoundError, match="not installed"):
        parse("model_name_or_path: '{emoji}/model'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: 1\nfoo: 2", r"no options: foo, learning_rat \(did you mean learning_rate\?\)"),
        ("ep: 4/255", r"no options: ep \(did you mean eps\?\)"),
        ("1: 2", "no options: 1"),
        ("- eps", "holds no `option: value` lines"),
        ("eps: [4", "is no YAML"),
        ("num_steps: ten", "argument --num_steps.*invalid int value: 'ten'"),
        ("num_steps: 1.5", "argument --num_steps.*invalid int value"),
        ("learning_rate: [1]", "argument --learning_rate.*invalid float value"),
        ("bf16: maybe", "argument --bf16.*got maybe"),
        ("save_strategy: never", "argument --save_strategy.*'never'.*'epoch'"),
        ("objective_kwargs: {alhpa: 1}", "has no option alhpa. It has: .*'alpha'"),
        ("load_best_model_at_end: true", "load_best_model_at_end requires the save and eval strategy to match"),
    ],
)
def test_a_wrong_file_is_refused_with_what_is_wrong(parse, text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_a_missing_file_is_refused():
    with pytest.raises(ValueError, match="--config nothing.yaml, which cannot be read.*No such file.*Pass a YAML"):
        parse_args(TYPES, ["--config", "nothing.yaml"])


# ---- Recipes ----


@dataclass
class Threat:
    eps: str = "1/255"
    num_steps: int = 2


@pytest.fixture
def recipes(tmp_path, monkeypatch) -> Path:
    """A folder of two recipes in place of the package's, and an empty working folder."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "tecoa.yaml").write_text("eps: 2/255")
    (folder / "fare.yaml").write_text("eps: 4/255")
    monkeypatch.setattr(arguments, "RECIPES", folder)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


@pytest.mark.parametrize("flag", ["--recipe", "--config"])
@pytest.mark.parametrize("name", ["tecoa", "tecoa.yaml"])
def test_a_recipe_is_named_in_place_of_a_file(recipes, flag, name):
    assert parse_args([Threat], [flag, name]) == (Threat(eps="2/255"),)
    assert parse_args([Threat], [f"{flag}={name}", "--eps", "8/255"]) == (Threat(eps="8/255"),)


def test_an_existing_file_comes_before_a_recipe_of_its_name_but_a_folder_does_not(recipes):
    assert recipe_names() == ["fare", "tecoa"]
    Path("fare").mkdir()
    assert find_config("fare") == recipes / "fare.yaml"
    Path("tecoa.yaml").write_text("eps: 1/2")
    assert find_config("tecoa.yaml") == Path("tecoa.yaml")
    assert find_config("tecoa") == recipes / "tecoa.yaml"
    assert parse_args([Threat], ["--recipe", "tecoa.yaml"])[0].eps == "2/255"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config", "tecao"], r"--config tecao, which cannot be read \(No such file.*recipes \['fare', 'tecoa'\]"),
        (["--config", "other/tecoa.yaml"], r"--config other/tecoa.yaml, which cannot be read \(No such file"),
        (["--config", "."], r"--config ., which cannot be read \(Is a directory"),
        (
            ["--recipe", "tecao"],
            r"recipe 'tecao', which there is not. Choose one of \['fare', 'tecoa'\], or pass a file",
        ),
        (["--recipe", "other/tecoa.yaml"], "recipe 'other/tecoa.yaml', which there is not"),
        (["--recipe", "tecoa", "--config", "tecoa"], "--config tecoa and --recipe tecoa.*Pass one of them"),
        (["--recipe"], "argument --recipe: expected one argument"),
    ],
)
def test_files_of_defaults_that_there_are_not_are_refused(recipes, flags, message):
    with pytest.raises(ValueError, match=message):
        parse_args([Threat], flags)


def test_a_path_of_the_former_folder_says_which_recipe_it_is_now(recipes):
    message = (
        r"examples/configs/tecoa.yaml, which has become the recipe 'tecoa'. Pass --config tecoa or --recipe tecoa"
    )
    with pytest.raises(ValueError, match=message):
        find_config("examples/configs/tecoa.yaml")
    with pytest.raises(ValueError, match="cannot be read"):
        find_config("examples/configs/mine.yaml")


# ---- What cannot work ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epss", "4/255"], r"no options: --epss \(did you mean eps\?\)"),
        (["--num-step=4"], r"no options: --num-step \(did you mean num_steps\?\)"),
        (["--objectiv", "fare"], r"no options: --objectiv \(did you mean objective\?\)"),
        (["stray"], "no options: stray"),
        (["--num_steps", "ten"], "argument --num_steps.*invalid int value: 'ten'"),
        (["--eps"], "argument --eps: expected one argument"),
        (["--config"], "argument --config: expected one argument"),
        (["--objective_kwargs", "{alpha: 1}"], "objective_kwargs={alpha: 1}, which is no JSON"),
        (["--objective_kwargs", "[1]"], "objective_kwargs='\\[1\\]'. Pass a JSON object"),
    ],
)
def test_a_wrong_command_line_is_refused_with_what_is_wrong(flags, message):
    with pytest.raises(ValueError, match=message):
        parse_args(TYPES, flags)


SHIPPED = sorted([*arguments.RECIPES.glob("*.yaml")])


def test_recipes_are_shipped():
    assert {"emoji", "pmg_aft", "tecoa", "fare"} <= {file.stem for file in SHIPPED}


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_recipe_parses(file):
    model, data, args = parse_args(TYPES, ["--config", str(file), "--use_cpu"])
    assert model.model_name_or_path and data.dataset_name and isinstance(args.learning_rate, float)
    assert args.output_dir.startswith("outputs/") and args.attack_options()["eps"] <= 8 / 255


def test_help_names_every_own_option(capsys):
    with pytest.raises(SystemExit) as done:
        train.parse(["--help"])
    shown = capsys.readouterr().out
    assert done.value.code == 0 and "pmgaft train" in shown
    inherited = {entry.name for entry in fields(TrainingArguments)}
    own = [entry for cls in TYPES for entry in fields(cls) if entry.name not in inherited and entry.init]
    assert len(own) > 25
    for entry in own:
        assert f"--{entry.name} " in shown and entry.metadata["help"], entry.name
