"""What a grid came to: means, spreads, harmonic means and paired intervals, against their formulas."""

import json
import statistics

import numpy as np
import pytest
from support.grids import compute, make_grid, result

from hf_pmgaft import RobustnessReport
from hf_pmgaft.cli.few_shot_checks import option_names
from hf_pmgaft.evaluation.intervals import difference_over_seeds, paired_difference
from hf_pmgaft.evaluation.tables import render
from hf_pmgaft.few_shots.results import cells_of, curves, harmonic_difference, harmonic_mean, record, table
from hf_pmgaft.few_shots.row import rows_of


def computed(folder, **entries):
    grid = make_grid(folder, **entries)
    rows = rows_of(grid, option_names())
    for row in rows:
        row.folder.mkdir(parents=True, exist_ok=True)
        compute(row)
    return grid, rows


def find(cells, method, shots, test, figure):
    (cell,) = [c for c in cells if (c.method, c.shots, c.test, c.figure) == (method, shots, test, figure)]
    return cell


@pytest.mark.parametrize(
    ("base", "new", "mean"), [(0.8, 0.4, 8 / 15), (0.5, 0.5, 0.5), (1, 1, 1), (0.8, 0, 0), (0, 0.8, 0), (0, 0, 0)]
)
def test_the_harmonic_mean_is_2bn_over_b_plus_n_and_0_if_either_is(base, new, mean):
    assert harmonic_mean(base, new) == pytest.approx(mean)


def test_cells_are_means_and_deviations_over_seeds(tmp_path):
    grid, rows = computed(tmp_path, seeds=[0, 1, 2])
    cells = cells_of(grid, rows)
    values = [row.report().sets[0].robust_accuracy for row in rows if (row.method, row.shots) == ("pmg_aft", 1)]
    cell = find(cells, "pmg_aft", 1, "one", "robust")
    assert len(set(values)) == 3 and list(cell.values.values()) == values
    assert cell.mean == pytest.approx(sum(values) / 3) and cell.spread == pytest.approx(statistics.stdev(values))
    assert cell.num_images == 50 and cell.text == f"{100 * cell.mean:.1f} ± {100 * cell.spread:.1f}"
    assert len(cells) == 2 * 2 * 2


def test_methods_are_paired_with_the_baseline_by_seed_and_image(tmp_path):
    grid, rows = computed(tmp_path)
    cells = cells_of(grid, rows)
    by_method = {
        method: [row.report().sets[0].verdicts["robust"] for row in rows if (row.method, row.shots) == (method, None)]
        for method in grid.methods
    }
    difference = find(cells, "pmg_aft", None, "one", "robust").difference
    assert difference == difference_over_seeds(by_method["tecoa"], by_method["pmg_aft"])
    assert difference[1] < difference[0] < difference[2]
    assert find(cells, "tecoa", None, "one", "robust").difference is None


def test_the_untrained_model_may_be_the_baseline_of_every_seed(tmp_path):
    grid, rows = computed(tmp_path, methods=["none", "pmg_aft"], baseline="none")
    none = next(row for row in rows if row.method == "none").report().sets[0].verdicts["clean"]
    ours = [row.report().sets[0].verdicts["clean"] for row in rows if (row.method, row.shots) == ("pmg_aft", 1)]
    cell = find(cells_of(grid, rows), "pmg_aft", 1, "one", "clean")
    assert cell.difference == difference_over_seeds([none, none], ours)


def test_one_seed_has_the_interval_of_its_images():
    first, second = [0, 0, 1, 1, 0], [1, 0, 1, 1, 1]
    pair = paired_difference(first, second)
    assert difference_over_seeds([first], [second]) == (pair.difference, *pair.interval)


def test_several_seeds_have_the_variances_over_images_and_over_seeds():
    first, second = [[0, 0, 1, 1], [0, 1, 0, 1]], [[1, 0, 1, 1], [1, 1, 1, 1]]
    mean, low, high = difference_over_seeds(first, second)
    of_images, of_seeds = [1, 0, 0.5, 0], [0.25, 0.5]
    variance = statistics.variance(of_images) / 4 + statistics.variance(of_seeds) / 2
    assert (
        mean == 0.375
        and high - mean == pytest.approx(1.959964 * variance**0.5)
        and mean - low == pytest.approx(high - mean)
    )


def test_the_harmonic_mean_is_taken_by_seed_for_clean_and_robust_apart(tmp_path):
    grid, rows = computed(tmp_path, protocol="base_to_new", methods=["tecoa"], shots=["all"])
    for row, robust in zip(rows, ([1, 0, 0, 0], [0, 0, 0, 0]), strict=True):
        halves = [result("base", [1, 1, 1, 0], [1, 1, 0, 0]), result("new", [1, 1, 0, 0], robust)]
        RobustnessReport({"attacks": []}, halves).save(row.report_file)
    cells = cells_of(grid, rows)
    assert list(find(cells, "tecoa", None, "H", "clean").values.values()) == pytest.approx([0.6, 0.6])
    assert list(find(cells, "tecoa", None, "H", "robust").values.values()) == pytest.approx([1 / 3, 0])
    assert find(cells, "tecoa", None, "H", "clean").num_images == 8


def drawn(generator, num_seeds, accuracies):
    """Verdicts of some seeds on 400 images of each half, which are more or less difficult."""
    difficulty = generator.normal(0, 0.1, size=(2, 400))
    right = generator.random((num_seeds, 2, 400)) < np.asarray(accuracies)[:, None] + difficulty
    return [(list(base), list(new)) for base, new in right.astype(int)]


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_harmonic_means_are_paired_with_an_interval_as_wide_as_resampled_images_say(num_seeds):
    generator = np.random.default_rng(0)
    first, second = drawn(generator, num_seeds, [0.6, 0.2]), drawn(generator, num_seeds, [0.7, 0.35])
    mean, low, high = harmonic_difference(first, second)

    def difference(base, new):
        def of(method):
            return np.mean([harmonic_mean(np.mean(b[base]), np.mean(n[new])) for b, n in np.array(method)])

        return of(second) - of(first)

    everything = np.arange(400)
    assert mean == pytest.approx(difference(everything, everything)) and 0.1 < mean < 0.25
    resampled = [difference(*generator.integers(0, 400, (2, 400))) for _ in range(300)]
    seeds = [harmonic_difference([a], [b])[0] for a, b in zip(first, second, strict=True)]
    variance = np.var(resampled) + (statistics.variance(seeds) / num_seeds if num_seeds > 1 else 0)
    assert high - mean == pytest.approx(1.96 * variance**0.5, rel=0.12) and mean - low == pytest.approx(high - mean)


def test_a_method_that_is_never_right_has_a_difference_of_its_harmonic_mean_too():
    silent = ([0, 0], [0, 0])
    assert harmonic_difference([silent], [silent]) == (0, 0, 0)
    assert harmonic_difference([silent], [([1, 1], [1, 1])])[0] == 1


def test_the_harmonic_mean_is_compared_with_that_of_the_baseline(tmp_path):
    grid, rows = computed(tmp_path, protocol="base_to_new", shots=["all"])
    cells = cells_of(grid, rows)
    halves = {
        method: [tuple(half.verdicts["robust"] for half in row.report().sets) for row in rows if row.method == method]
        for method in ("tecoa", "pmg_aft")
    }
    expected = harmonic_difference(halves["tecoa"], halves["pmg_aft"])
    assert find(cells, "pmg_aft", None, "H", "robust").difference == expected
    assert find(cells, "tecoa", None, "H", "robust").difference is None


def test_rows_of_other_protocols_are_not_compared(tmp_path):
    grid, rows = computed(tmp_path)
    report = rows[0].report()
    report.protocol = {**report.protocol, "seed": 5}
    report.save(rows[0].report_file)
    with pytest.raises(ValueError, match="differ in seed"):
        cells_of(grid, rows)


def test_a_table_has_a_row_per_method_shots_and_test(tmp_path):
    grid, rows = computed(tmp_path, methods=["none", "tecoa", "pmg_aft"], baseline="tecoa")
    lines = table(cells_of(grid, rows))
    assert [line[:4] for line in lines[1:]] == [
        ["none", "", "one", "50"],
        ["tecoa", "1", "one", "50"],
        ["pmg_aft", "1", "one", "50"],
        ["tecoa", "all", "one", "50"],
        ["pmg_aft", "all", "one", "50"],
    ]
    assert lines[2][6] == "" and lines[3][6].count("to") == 1
    latex = render(lines, "latex").splitlines()
    assert len(latex) == 6 and all(line.endswith(r"\\") for line in latex) and r"pmg\_aft & 1 & one" in latex[3]


def test_what_is_done_of_a_grid_is_shown_before_all_of_it_is(tmp_path):
    grid, rows = computed(tmp_path)
    rows[-1].report_file.unlink()
    cells = cells_of(grid, rows)
    assert len(find(cells, "pmg_aft", None, "one", "clean").values) == 1
    everything = record(grid, rows, cells, {"x": "why"})
    assert everything["left"] == [rows[-1].name] and everything["failed"] == {"x": "why"}
    assert len(everything["rows"]) == len(rows) - 1


def test_the_record_is_json_with_protocol_seeds_and_images(tmp_path):
    grid, rows = computed(tmp_path)
    everything = json.loads(json.dumps(record(grid, rows, cells_of(grid, rows), {})))
    assert everything["protocol"] == "plain" and everything["seeds"] == [0, 1] and not everything["left"]
    assert {row["tests"]["one"]["images"] for row in everything["rows"]} == {50}
    assert {(row["method"], row["shots"], row["seed"]) for row in everything["rows"]} == {
        (method, shots, seed) for method in grid.methods for shots in (1, None) for seed in (0, 1)
    }
    assert all(len(figure["values"]) == 2 for figure in everything["figures"])


def test_curves_are_by_method_and_shots_in_percent(tmp_path):
    grid, rows = computed(tmp_path, methods=["none", "tecoa"], baseline="tecoa")
    cells = cells_of(grid, rows)
    lines = curves(cells, "one", "one", "clean")
    assert set(lines) == {"none", "tecoa"} and set(lines["tecoa"]) == {"1", "all"} and set(lines["none"]) == {""}
    assert lines["tecoa"]["1"][0] == pytest.approx(100 * find(cells, "tecoa", 1, "one", "clean").mean)
