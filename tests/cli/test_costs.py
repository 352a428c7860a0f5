"""What a run costs: the sum of its passes at a rate, and what was measured of memory and time."""

import json
import re

import pytest
from support.paths import ROOT

from hf_pmgaft.cli import costs, reproduce, train
from hf_pmgaft.cli.run_plan import Plan, make_plan

FACTS = json.loads(reproduce.FACTS.read_text(encoding="utf-8"))
B32, L14 = "openai/clip-vit-base-patch32", "openai/clip-vit-large-patch14"
PMG_AFT = {"student": 2, "teacher": 1}


def plan(recipe: str, *flags: str) -> Plan:
    return make_plan(*train.parse(["--recipe", recipe, *flags]), FACTS["train_images"])


def test_a_forward_pass_takes_the_operations_of_its_matrix_products():
    # ViT-B/32 as it was counted on the model itself; ViT-L/14 from its published 81 G multiplications.
    assert costs.TOWERS[B32].gflop == pytest.approx(8.8, abs=0.05)
    assert costs.TOWERS[L14].gflop == pytest.approx(162, abs=1)


def test_the_estimate_is_the_sum_of_its_passes():
    rows = costs.what_it_costs(plan("pmg_aft"), PMG_AFT, tflops=1.0)
    forwards = 2 * (1 + 1) + 1 + 2 * (1 + 2)  # attack steps, the teacher, and what is trained
    pflop = forwards * costs.TOWERS[B32].gflop * 3_900 * 256 / 1e6
    assert f"({pflop:,.0f} PFLOP)" in rows["training"] and f"{pflop / 3.6:.1f} hours" in rows["training"]
    assert rows["memory"].startswith("16.6 GiB") and "measured" in rows["memory"]


def test_a_rate_that_nobody_measured_is_called_assumed():
    assumed = costs.what_it_costs(plan("pmg_aft"), PMG_AFT)
    said = costs.what_it_costs(plan("pmg_aft"), PMG_AFT, tflops=50.0)
    assert assumed["training"] == said["training"]
    assert assumed["rate"] == "50 TFLOP/s, assumed, since no GPU was timed: pass yours as --tflops"
    assert said["rate"] == "50 TFLOP/s, as you say"


def test_the_rate_that_was_measured_is_that_of_the_page_on_speed():
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"\| ViT-B/32, batch 8, 25 prompts \| 2 \|([^\n]*)\|", page)
    seconds = float(row.split("|")[2])  # plain, text cached, ours
    forwards = 2 * (1 + 1) + 1 + 2 * (1 + 2)
    assert pytest.approx(8 * forwards * costs.TOWERS[B32].gflop / seconds / 1e3) == costs.CPU_TFLOPS
    days = forwards * costs.TOWERS[B32].gflop * 3_900 * 256 / 1e3 / costs.CPU_TFLOPS / 86_400
    measured = costs.what_it_costs(plan("pmg_aft"), PMG_AFT)["measured"]
    assert measured.startswith("0.17 TFLOP/s") and measured.endswith(f"where training takes {days:.0f} days")


def test_attacks_after_training_are_in_the_time_of_evaluation():
    def pflop(*flags: str) -> float:
        row = costs.what_it_costs(plan("tecoa", *flags), PMG_AFT, tflops=1.0)["evaluation"]
        return float(re.search(r"\(([\d,]+) PFLOP\)", row)[1].replace(",", ""))

    gflop = costs.TOWERS[B32].gflop * 16_000 / 1e6
    assert pflop() == pytest.approx(2 * (1 + 22 + 1 + 20) * gflop, abs=1)
    assert pflop("--final_attacks", "pgd,num_steps=100") == pytest.approx((88 + 1 + 102 + 1 + 100) * gflop, abs=1)


def test_a_tower_of_unknown_shape_is_named():
    made = plan("tecoa", "--model_name_or_path", "user/clip")
    assert "the shape of user/clip" in costs.what_it_costs(made, PMG_AFT)["unknown"]
    assert costs.checkpoint_bytes(made) is None
