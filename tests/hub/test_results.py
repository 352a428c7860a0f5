"""Figures on the Hub: in the card's `model-index`, and as `.eval_results` of benchmarks."""

from dataclasses import replace

import pytest
import yaml
from huggingface_hub import metadata_load, parse_eval_result_entries
from support.cards import make_report, rows, unknown_keys
from support.masked import NAMES as MASK_NAMES
from support.masked import make_masked
from support.tiny import CLASS_NAMES, fit_model, make_images

from hf_pmgaft import PMGAFTConfig, RetrievalDataset, SegmentationDataset, ZeroShotDataset, evaluate_robustness
from hf_pmgaft.hub.card import save_model_card
from hf_pmgaft.hub.results import model_index, save_eval_results
from hf_pmgaft.objectives import make_objective
from hf_pmgaft.tuning import make_tuning

# Of a file in `.eval_results`, https://huggingface.co/docs/hub/eval-results.
EVAL_RESULT_KEYS = [
    {
        "dataset": {"id": None, "task_id": None, "revision": None},
        **dict.fromkeys(["value", "verifyToken", "date", "evaluation_framework", "notes"]),
        "source": {"url": None, "name": None, "user": None, "org": None},
    }
]
AFTER = make_report({"food": (0.74, 0.43), "pets": (0.58, 0.3)})


def test_named_results_say_what_they_were_measured_by():
    results = model_index(AFTER)
    robust, mean = (
        next(r.metric_args for r in results if (r.dataset_name, r.metric_type) == (name, "robust_accuracy"))
        for name in ("food", "mean of sets")
    )
    assert robust == {
        "attack": "PGD-20 margin linf 4/255",
        "num_samples": 150,
        "interval_95": "35.3 to 51.0",
        "protocol": AFTER.protocol_hash,
    }
    assert mean == {"attack": "PGD-20 margin linf 4/255", "num_sets": 2, "protocol": AFTER.protocol_hash}


def test_named_results_say_where_gradients_were_coarse():
    report = replace(AFTER, protocol={**AFTER.protocol, "attack_precision": "bf16"})
    told = {result.metric_type: result.metric_args.get("attack_precision") for result in model_index(report)}
    assert told == {"clean_accuracy": None, "robust_accuracy": "bf16"}


def test_figures_for_a_benchmark_are_written_as_the_hub_reads_them(tmp_path):
    benchmarks = {"food": {"robust_accuracy": ("user/robust-food", "linf"), "clean_accuracy": ("ethz/food101", "all")}}
    files = save_eval_results(tmp_path, AFTER, benchmarks)
    assert [file.parent.name for file in files] == [".eval_results"] * 2
    content = [yaml.safe_load(file.read_text()) for file in files]
    assert [unknown_keys(part, EVAL_RESULT_KEYS) for part in content] == [[], []]
    robust, clean = (parse_eval_result_entries(part)[0] for part in content)
    assert (robust.dataset_id, robust.task_id, robust.value) == ("user/robust-food", "linf", 43.0)
    assert "PGD-20 margin linf 4/255" in robust.notes and AFTER.protocol_hash in robust.notes
    assert clean.value == 74.0 and "PGD" not in clean.notes
    with pytest.raises(ValueError, match="'cars'.*food"):
        save_eval_results(tmp_path, AFTER, {"cars": {"robust_accuracy": ("user/cars", "linf")}})


@pytest.fixture(scope="module")
def every_task():
    """A report of a classified set, a retrieved and a segmented one, of a tiny model."""
    model, processor = fit_model()
    images = make_images(16, seed=9)
    captions = [[f"a photo of the {CLASS_NAMES[label]}", f"image {i}"] for i, label in enumerate(images["label"])]
    classified = ZeroShotDataset(images, processor, None, "a photo of the {}", name="shapes")
    retrieved = RetrievalDataset(images.add_column("caption", captions), processor, name="shapes captions")
    attacks = ["pgd,eps=20/255,num_steps=3,loss=margin", "pgd,eps=10/255,num_steps=3,loss=margin"]
    segmented = SegmentationDataset(make_masked(4), processor, MASK_NAMES, name="scenes")
    return evaluate_robustness(model, processor, [classified, retrieved, segmented], attacks, progress=False)


def test_the_card_carries_the_figures_of_every_task(every_task, tmp_path):
    config = PMGAFTConfig(output_dir=str(tmp_path / "robust"), use_cpu=True)
    options = {"objective": make_objective("pmg_aft", {}), "tuning": make_tuning("vision_tower"), "config": config}
    card = save_model_card(tmp_path, base_model="base", report_before=every_task, report_after=every_task, **options)
    table = rows(card)
    (results,) = [entry["results"] for entry in metadata_load(tmp_path / "README.md")["model-index"]]
    found = {(r["dataset"]["name"], metric["name"]): (metric, r) for r in results for metric in r["metrics"]}
    assert len(found) == 2 * (1 + len(every_task.sets))
    attack = "PGD-3 margin linf 20/255"
    for result in every_task.sets[1:7]:
        clean, robust = (f"{100 * x:.1f}" for x in (result.clean_accuracy, result.robust_accuracy))
        assert table[result.name][:5] == [str(result.num_samples), clean, clean, robust, robust]
        metric, entry = found["shapes captions", f"Robust {result.figure} (%) under {attack}"]
        assert metric["value"] == round(100 * result.robust_accuracy, 2) and metric["type"] == "robust_recall"
        assert entry["task"]["type"] == "image-text-retrieval" and metric["args"]["num_samples"] == result.num_samples
    for figure in ("mIoU", "pixel accuracy"):
        metric, entry = found["scenes", f"Robust {figure} (%) under {attack}"]
        assert entry["task"]["type"] == "image-segmentation" and metric["args"]["num_samples"] == 4
    _, entry = found["shapes", f"Robust accuracy (%) under {attack}"]
    assert entry["task"]["type"] == "zero-shot-image-classification"
    assert table["mean of sets"][1] == f"{100 * every_task.sets[0].clean_accuracy:.1f}"
    assert "upper bound of what an attacker who knows the query leaves" in card.text and "Ties: " in card.text
    assert "scenes: pixels by the readout sclip, scale 40, in windows of 16 pixels every 8." in card.text
