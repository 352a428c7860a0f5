"""The public names: all resolve, come from where they may, and are known to type checkers."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

import hf_pmgaft

STUBS = sorted((ROOT / "hf_pmgaft").rglob("__init__.pyi"))
OLD_NAMES = """
    ATTACKS LinearProbe NearestClassMean OBJECTIVES Objective PMGAFTConfig PMGAFTTrainer RetrievalDataset
    RobustnessReport SamplePictures TUNINGS VisionLanguageModel ZeroShotClassifier ZeroShotDataset at_resolution
    attack_answers compare_reports encode_class_names evaluate_robustness export_class_embeds fold_into_clip load_model
    load_open_clip save_open_clip swap_vision_tower to_open_clip vision_tower
""".split()
NEW_NAMES = ["AdversarialStep", "AttackSpec", "SegmentationDataset", "attack_encoder", "attack_image", "get_encoder"]
NEW_NAMES += ["load_images", "load_suite", "load_vlm"]
GOOD = """
from hf_pmgaft import AttackSpec, PMGAFTConfig, ZeroShotDataset, evaluate_robustness, load_model
from hf_pmgaft.data import parse_set

args = PMGAFTConfig(output_dir="out", eps="4/255")
spec: AttackSpec = AttackSpec.parse("pgd,eps=4/255")
name: str = spec.name
path, config, split = parse_set("food")
model = load_model("folder")
"""


def handed_on(stub: Path) -> list[tuple[str, str]]:
    """The names of a stub, each with the module that it comes from."""
    package = ".".join(stub.parent.relative_to(ROOT).parts)
    names = []
    for node in ast.parse(stub.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 1 or package != "hf_pmgaft"
            module = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names += [(alias.asname or alias.name, module) for alias in node.names]
    return names


def floors() -> dict[str, int]:
    """The floor of each folder and file of the package, as pyproject.toml declares them; the ground floor is 0."""
    tomllib = pytest.importorskip("tomllib")
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    return {name: i for i, layer in enumerate(reversed(layers)) for name in layer.split(" | ")}


def test_public_names_are_the_old_ones_and_a_few_more():
    assert len(OLD_NAMES) == 27
    assert sorted(hf_pmgaft.__all__) == sorted([*OLD_NAMES, *NEW_NAMES])


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: str(stub.parent.relative_to(ROOT)))
def test_every_name_that_is_handed_on_resolves_and_comes_from_below(stub):
    package = importlib.import_module(".".join(stub.parent.relative_to(ROOT).parts))
    names = handed_on(stub)
    assert sorted(package.__all__) == sorted(name for name, _ in names)
    for name, module in names:
        assert getattr(package, name) is getattr(importlib.import_module(module), name)
        if package.__name__ != "hf_pmgaft":
            own, source = package.__name__.split(".")[1], module.split(".")[1]
            assert source == own or floors()[source] < floors()[own], f"{package.__name__} hands {name} down"


def test_a_name_that_there_is_not_is_an_attribute_error():
    with pytest.raises(AttributeError, match="attribute.*nothing"):
        _ = hf_pmgaft.nothing


# ---- Types ----


def checked(folder: Path, code: str) -> tuple[int, str]:
    """What mypy says about a user's file."""
    (folder / "snippet.py").write_text(code)
    config = "[mypy]\nfollow_imports = silent\nignore_missing_imports = true\n"
    skipped = ("torch", "transformers", "datasets", "accelerate", "peft", "numpy", "PIL", "matplotlib", "safetensors")
    config += "".join(f"[mypy-{name}.*]\nfollow_imports = skip\n" for name in skipped)
    (folder / "mypy.ini").write_text(config)
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", "cache", "snippet.py"]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where mypy keeps what it knows from one test to the next."""
    pytest.importorskip("mypy")
    return tmp_path_factory.mktemp("mypy")


def test_code_that_is_right_passes(folder):
    assert checked(folder, GOOD) == (0, "Success: no issues found in 1 source file\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("from hf_pmgaft import PMGAFTTrainr", 'Module "hf_pmgaft" has no attribute "PMGAFTTrainr"'),
        ('parse_set("food", splits="test")', 'Unexpected keyword argument "splits" for "parse_set"'),
        ("AttackSpec.parse(4)", 'Argument 1 to "parse" of "AttackSpec" has incompatible type "int"; expected "str"'),
    ],
)
def test_a_misspelt_name_a_wrong_argument_and_a_wrong_type_are_found(folder, line, message):
    code, printed = checked(folder, GOOD + line + "\n")
    assert code == 1 and message in printed
