"""What each recipe says about the budget: batch, warm-up, clipping and steps of the attack."""

import math

import pytest

from hf_pmgaft.arguments import RECIPES, parse_args, recipe_names
from hf_pmgaft.cli.train_arguments import TYPES
from hf_pmgaft.config import PMGAFTConfig

TINY, TINY_128, IMAGENET, IMAGENET_128 = 3900, 7810, 50_040, 10_009  # steps of ten epochs, and one of the last
# Images per step, steps in all, of which warm-up, norm that gradients are clipped to, steps of the attack and their
# length in units of the radius.
BUDGETS = {
    "adv_clip_lora": (32, 1000, 0, 0, 1, 0.05 * 255),
    "advflyp": (256, 390_600, 1000, 0, 2, 1),
    "agft": (256, IMAGENET, 1000, 0, 2, 1),
    "apt": (32, 5000, 100, 0, 3, 2 / 3),
    "capt": (4, 1000, 100, 0, 2, 1),
    "caw": (256, TINY, 1000, 0, 2, 1),
    "comp_tga": (128, TINY_128, 1000, 0, 2, 1),
    "emoji": (64, 120, 5, 1, 2, 1),
    "fap": (4, 1000, 100, 0, 2, 1),
    "fare": (128, 20_000, 1400, 0, 10, 0.25),
    "pmg_aft": (256, TINY, 1000, 0, 2, 1),
    "pmg_aft_released_code": (256, TINY, 1000, 0, 2, 1),
    "qt_aft": (128, 2 * IMAGENET_128, 1000, 0, 10, 0.25),
    "r_adapter": (256, IMAGENET, 500, 0, 2, None),
    "sim_clip": (64, 10_000, 1400, 0, 10, 0.25),
    "smoothing": (256, TINY, 1000, 0, 2, None),
    "tecoa": (256, TINY, 1000, 0, 2, 1),
    "tga_zsr": (128, TINY_128, 1000, 0, 2, 1),
    "trades": (256, TINY, 1000, 0, 2, 1),
    "ucat": (256, TINY, 1000, 0, 2, 1),
}


def recipe(name: str, *flags: str) -> PMGAFTConfig:
    return parse_args(TYPES, ["--recipe", name, "--use_cpu", *flags])[2]


def test_every_recipe_has_a_budget():
    assert sorted(BUDGETS) == recipe_names()


@pytest.mark.parametrize("name", BUDGETS)
def test_the_budget_of_a_recipe(name):
    batch, steps, warmup, clipped_to, num_steps, step_size = BUDGETS[name]
    args = recipe(name)
    options = args.attack_options()

    assert args.per_device_train_batch_size * args.gradient_accumulation_steps == batch
    assert args.get_warmup_steps(steps) == warmup and args.warmup_steps < 1 or name == "emoji"
    assert args.max_steps in (-1, steps) and args.max_grad_norm == clipped_to
    assert options["num_steps"] == num_steps
    assert options["step_size"] == (None if step_size is None else pytest.approx(step_size * options["eps"]))


@pytest.mark.parametrize("name", sorted(set(BUDGETS) - {"emoji"}))
def test_a_recipe_is_the_same_on_several_devices(name, monkeypatch):
    batch = BUDGETS[name][0]
    for processes in (1, 2, 4):
        args = recipe(name)
        args._set_batch((args.total_train_batch_size, None, None), processes)
        assert args.total_train_batch_size == batch
        assert args.per_device_train_batch_size * args.gradient_accumulation_steps * processes == batch
    in_parts = recipe(name, "--per_device_train_batch_size", "2")
    assert in_parts.gradient_accumulation_steps == batch // 2


@pytest.mark.parametrize("name", sorted(set(BUDGETS) - {"emoji"}))
def test_a_recipe_says_why_it_clips_nothing_and_how_its_warm_up_follows(name):
    lines = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    for key in ("max_grad_norm", "warmup_steps"):
        (line,) = [line for line in lines if line.startswith(f"{key}:")]
        assert line.partition("#")[2].strip(), line
    assert all(len(line) <= 119 for line in lines)


@pytest.mark.parametrize("name", ["agft", "ucat"])
def test_what_no_code_says_of_clipping_is_marked(name):
    assert any(
        line.startswith("max_grad_norm: 0") and "(inferred)" in line
        for line in (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    )


def test_warm_up_is_a_share_of_shorter_runs_too():
    assert recipe("tecoa", "--max_steps", "50").get_warmup_steps(50) == math.ceil(0.2564 * 50)
