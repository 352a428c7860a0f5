"""One bar of a whole evaluation, in notebooks and log files: with clean and robust accuracy so far."""

import re
import sys

import pytest
from support.clock import Clock, lines_of
from support.masked import NAMES, make_masked
from support.sets import CE, MARGIN

from hf_pmgaft import SegmentationDataset, evaluate_robustness
from hf_pmgaft.evaluation.image_progress import Progress, WholeProgress

SMALL = {**MARGIN, "eps": "14/255"}
LARGE = {**MARGIN, "eps": "20/255"}


@pytest.fixture
def whole():
    """The bar of two sets with two attacks each, of which one leads to the headline."""
    leading = {"food": ["pgd"], "pets": ["pgd"]}
    bar = WholeProgress({"food": 10, "pets": 30}, total=3 * 40, leading=leading)
    yield bar
    bar.close()


def part(whole: WholeProgress, name: str, key: str, total: int, done: int = 0, right: float | None = None) -> Progress:
    right = total if right is None else right
    return Progress(name, key, total, done, right, whole.images[name], shown=False, whole=whole)


def test_accuracies_are_of_what_was_judged_so_far(whole):
    with part(whole, "food", "clean", 10) as clean:
        clean.add(4, wrong=1)
        assert whole.text == "clean 75.0%"
        clean.add(6, wrong=1)
    assert whole.text == "clean 80.0%"
    with part(whole, "food", "pgd", 8) as attack:
        attack.add(2, wrong=2)
    assert whole.text == "clean 80.0%, robust at most 60.0%"
    with part(whole, "pets", "clean", 30) as clean:
        clean.add(30, wrong=12)
    with part(whole, "pets", "pgd", 18) as attack:
        attack.add(18, wrong=6)
    assert whole.text == "clean 65.0%, robust at most 45.0%"  # 26 and 18 of 40


def test_attacks_beside_the_headline_lower_nothing(whole):
    for name, count in whole.images.items():
        with part(whole, name, "clean", count) as clean:
            clean.add(count, wrong=0)
    with part(whole, "food", "jpeg", 10) as corruption:
        corruption.add(10, wrong=10)
    assert whole.text == "clean 100.0%"


def test_an_attack_that_runs_on_every_image_anew_raises_nothing():
    whole = WholeProgress({"food": 10}, total=30, leading={"food": ["strong", "weak"]}, shown=False)
    for key, wrong in (("strong", 6), ("weak", 2)):
        with part(whole, "food", key, 10) as attack:
            attack.add(10, wrong=wrong)
    assert whole.text == "robust at most 40.0%"


def test_images_on_file_and_those_that_are_left_out_count_as_done(whole):
    with part(whole, "food", "clean", 10, done=4, right=9) as clean:
        assert whole.bar.n == 4 and whole.text == "clean 75.0%"
        clean.add(6, wrong=0)
    with part(whole, "food", "pgd", 9):
        assert whole.bar.n == 11 and whole.bar.desc == "food: pgd: "


def drawn(capsys, *args, **options) -> list[str]:
    evaluate_robustness(*args, probes=False, **options)
    return lines_of(capsys.readouterr().err)


def numbers(line: str) -> list[float]:
    return [float(share) for share in re.findall(r"(?:clean|at most) ([\d.]+)%", line)]


def test_a_log_file_has_one_bar_that_ends_with_the_figures_of_the_report(fitted, data, capsys):
    sets = {"own": data}
    report = evaluate_robustness(*fitted, sets, [LARGE, SMALL], progress=False, probes=False)
    lines = drawn(capsys, *fitted, sets, [LARGE, SMALL])
    first, last = (line for line in lines if "img" in line)
    assert "evaluation:   0%" in first and "120/120" in last
    shown = [100 * report.mean_clean_accuracy, 100 * report.mean_robust_accuracy]
    assert numbers(last) == [round(value, 1) for value in shown] and shown[0] > shown[1]


@pytest.mark.parametrize("options", [{"verdict": "last_iterate"}, {"defence": "random_noise,eps=2/255", "draws": 3}])
def test_the_bar_is_full_at_the_end_whatever_is_evaluated(fitted, data, capsys, options):
    lines = drawn(capsys, *fitted, [data], [SMALL, CE], max_samples=8, **options)
    assert re.search(r"100%.* (\d+)/\1 ", lines[-1])


def test_the_bar_of_segmentation_shows_pixels(fitted, capsys):
    data = SegmentationDataset(make_masked(2), fitted[1], NAMES, ["a {}"], name="scenes")
    attack = "pgd,eps=8/255,num_steps=2,loss=masked_ce"
    accuracy = evaluate_robustness(*fitted, [data], [attack], progress=False, probes=False).sets[1]
    assert "4/4" in (last := drawn(capsys, *fitted, [data], [attack])[-1])
    assert numbers(last) == [round(100 * value, 1) for value in (accuracy.clean_accuracy, accuracy.robust_accuracy)]


def test_a_terminal_has_a_bar_for_each_attack(fitted, data, capsys, monkeypatch):
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda stream: True)
    lines = drawn(capsys, *fitted, [data], [SMALL])
    assert not any("evaluation:" in line for line in lines)
    assert any("own: clean: 100%" in line for line in lines) and any("own: PGD-10" in line for line in lines)


def test_a_log_file_has_a_line_every_30_seconds(capsys, monkeypatch):
    clock = Clock(monkeypatch)
    whole = WholeProgress({"food": 40}, total=40, leading={"food": []})
    with Progress("food", "clean", 40, 0, 40, 40, shown=True, whole=whole) as progress:
        for _ in range(40):
            clock.now += 5
            progress.add(1, wrong=0.5)
    whole.close()
    counts = [int(count) for line in lines_of(capsys.readouterr().err) for count in re.findall(r"(\d+)/40", line)]
    assert counts == [0, *range(6, 37, 6), 40]  # 6 images take 30 seconds
