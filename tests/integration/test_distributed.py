"""Two processes do what one does: the same losses, terms and accuracies, from the same perturbations."""

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from support.launch import torchrun
from support.pairs import OPTIONS
from support.pairs import make as make_pair
from support.tiny import fit_model, make_images
from support.trainers import make_trainer

from hf_pmgaft import engines
from hf_pmgaft.data import ZeroShotDataset
from hf_pmgaft.distributed import gather, process_share
from hf_pmgaft.evaluation import evaluate_robustness
from hf_pmgaft.objectives import OBJECTIVES


def check_processes(trainer, processes: int) -> None:
    wrappers = ["CLIPModel", "PeftModel"] if processes == 1 else ["DistributedDataParallel"]
    assert trainer.accelerator.num_processes == process_share()[1] == processes
    assert type(trainer.model_wrapped).__name__ in wrappers


def run_case(case: str, folder: Path, processes: int) -> list[dict]:
    objective, tuning = case if case in OBJECTIVES else "pmg_aft", case if case in OPTIONS else "vision_tower"
    options = {"learning_rate": 2e-3, **VARIANTS.get(case, {})}
    batch = 8 // processes // options.get("gradient_accumulation_steps", 1)
    options |= {"per_device_train_batch_size": batch, "augmentation": 0.5}
    trainer = make_pair(folder / f"{case}-{processes}", objective, tuning, **options)
    trainer.train()
    check_processes(trainer, processes)
    return [line for line in trainer.state.log_history if "loss" in line]


def run_data(kind: str, folder: Path, processes: int) -> dict[str, str]:
    """By step and image, a checksum of what augmentation made of it and of where its attack starts."""
    streaming, options = kind.startswith("streaming"), {"dataloader_drop_last": kind == "drop_last"}
    if "workers" in kind:
        options |= {"dataloader_num_workers": 2, "dataloader_prefetch_factor": 2}
    images = make_images(30)
    images = images.to_iterable_dataset() if streaming else images
    options |= {"max_steps": 5, "per_device_train_batch_size": 8 // processes, "augmentation": 1.0}
    trainer = make_trainer(folder / f"{kind}-{processes}", images, num_steps=1, learning_rate=0.0, **options)
    seen, ids, loss, attack = {}, [], trainer.compute_loss, trainer.step.perturb

    def compute_loss(model, inputs, *args, **kwargs):
        ids[:] = inputs["sample_id"].tolist()
        return loss(model, inputs, *args, **kwargs)

    def record(inner, student, images, *args):
        adversarial, agreement = attack(inner, student, images, *args)
        for i, row in enumerate(ids):
            content = images[i].numpy().tobytes() + adversarial[i].numpy().tobytes()
            seen[f"{trainer.state.global_step} {row}"] = hashlib.sha256(content).hexdigest()
        return adversarial, agreement

    trainer.compute_loss, trainer.step.perturb = compute_loss, record
    trainer.train()
    check_processes(trainer, processes)
    return dict(gather([*seen.items()]))


def run_evaluation(verdict_file: Path) -> dict:
    """A report whose images the processes share."""
    model, processor = fit_model()
    data = ZeroShotDataset(make_images(21, seed=9), processor, None, "a photo of the {}", name="own")
    attacks = [{"attack": "pgd", "eps": "20/255", "num_steps": 5, "loss": loss} for loss in ("ce", "margin")]
    attacks.append({"attack": "patch", "size": 4, "num_steps": 5})
    options = {"batch_size": 4, "verdict_file": verdict_file, "progress": False}
    return evaluate_robustness(model, processor, [data], attacks, **options).to_dict()


def run_contrast(objective: str, folder: Path, processes: int) -> torch.Tensor:
    """The gradient of a step of 8 images in the image tower, which a step of SGD shows."""
    options = {"objective_kwargs": CONTRASTS[objective], "per_device_train_batch_size": 8 // processes}
    options |= {"optim": "sgd", "learning_rate": 1e-2, "max_grad_norm": 0.0, "max_steps": 1, "num_steps": 1}
    trainer = make_pair(folder / f"contrast-{objective}-{processes}", objective, **options)
    before = trainer.plain_model().visual_projection.weight.detach().clone()
    trainer.train()
    check_processes(trainer, processes)
    return (before - trainer.plain_model().visual_projection.weight.detach()) / 1e-2


# Objectives whose contrasts are over the batch. Distances of features that are equal have no gradient to compare.
CONTRASTS = {"advflyp": {"lam_f": 0.0}, "mpm_nce": {}, "qt_aft": {}}
VARIANTS = {
    "accumulation": {"gradient_accumulation_steps": 2},
    "average": {"ema_decay": 0.5},
    "unclipped": {"optim": "sgd", "max_grad_norm": 0.0},
    "released code": {"objective_kwargs": {"kl_reduction": "sum", "scale": 1.0}},
    "shared": {"attack": "shared"},
}
CASES = (*VARIANTS, *sorted(OBJECTIVES), *sorted(OPTIONS))
DATA = ("map", "workers", "drop_last", "streaming", "streaming workers")
NOT_COMPARED = {"grad_norm", "learning_rate", "epoch", "step"}


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    torchrun(2, __file__, folder)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_processes_log_what_one_logs(two_processes, tmp_path, case):
    logs = json.loads((two_processes / "logs.json").read_text())
    for step, (one, two) in enumerate(zip(run_case(case, tmp_path, 1), logs[case], strict=True)):
        # After the first step a pixel whose gradient is next to nothing may get the other sign.
        tolerance = 1e-4 if step else 1e-5
        assert set(one) == set(two) and set(one) - NOT_COMPARED > {"loss"}
        for key in set(one) - NOT_COMPARED:
            exact = key.endswith("accuracy")
            assert two[key] == pytest.approx(one[key], rel=tolerance, abs=0 if exact else 1e-6), key


@pytest.mark.parametrize("objective", CONTRASTS)
def test_two_processes_contrast_the_images_and_captions_of_one_batch_and_accumulation_does_not(
    two_processes, tmp_path, caplog, objective
):
    two = torch.load(two_processes / "contrasts.pt", weights_only=True)[objective]
    one = run_contrast(objective, tmp_path, 1)
    assert (two - one).norm() < 1e-4 * one.norm()

    options = {"objective_kwargs": CONTRASTS[objective], "gradient_accumulation_steps": 2}
    with caplog.at_level("WARNING"):
        make_pair(tmp_path / "accumulated", objective, per_device_train_batch_size=4, **options)
    assert "smaller ones: among 4 in place of 8" in caplog.text


@pytest.mark.parametrize("kind", DATA)
def test_two_processes_augment_and_attack_each_image_as_one_does(two_processes, tmp_path, kind):
    two = json.loads((two_processes / "data.json").read_text())[kind]
    one = run_data(kind, tmp_path, 1)
    steps = [[key for key in one if key.startswith(f"{step} ")] for step in range(5)]
    # Of 30 images the fourth batch of 8 has 6, or is left out; two processes fill it up with others.
    assert [len(step) for step in steps] == [8, 8, 8, 8 if kind == "drop_last" else 6, 8]
    assert one.items() <= two.items()
    assert all(key.startswith("3 ") for key in set(two) - set(one)) and len(two) - len(one) <= 2


def test_two_processes_share_the_images_and_report_what_one_reports(two_processes, tmp_path):
    whole = run_evaluation(tmp_path / "verdicts.jsonl")
    assert 0 < whole["mean_robust_accuracy"] < whole["mean_clean_accuracy"]
    assert [json.loads((two_processes / f"report-{rank}.json").read_text()) for rank in (0, 1)] == [
        json.loads(json.dumps(whole))
    ] * 2
    files = [two_processes / "verdicts.jsonl", two_processes / "verdicts.jsonl-1"]
    batches = [json.loads(line) for file in files for line in file.read_text().splitlines()[1:]]
    clean = [row for batch in batches if batch["attack"] == "clean" for row in batch["rows"]]
    assert sorted(clean) == list(range(21))

    # What two processes left behind, one goes on with.
    lines = [file.read_text().splitlines(keepends=True) for file in files]
    files[1].write_text("".join(lines[1][:-2]))
    assert run_evaluation(files[0]) == whole
    assert 0 < len(files[0].read_text().splitlines()) - len(lines[0]) < 4


def test_only_torch_that_minds_buffers_itself_may_write_them_between_passes(monkeypatch):
    old, new = (lambda module, broadcast_buffers=True: None), (lambda module, forward_sync_buffers=None: None)
    for ddp, wanted in ((old, False), (new, None)):
        monkeypatch.setattr(engines, "DistributedDataParallel", ddp)
        assert engines.broadcast_buffers() is wanted


if __name__ == "__main__":
    root = Path(sys.argv[1])
    logs = {case: run_case(case, root, 2) for case in CASES}
    data = {kind: run_data(kind, root, 2) for kind in DATA}
    contrasts = {objective: run_contrast(objective, root, 2) for objective in CONTRASTS}
    report = run_evaluation(root / "verdicts.jsonl")
    (root / f"report-{os.environ['RANK']}.json").write_text(json.dumps(report))
    if os.environ["RANK"] == "0":
        (root / "logs.json").write_text(json.dumps(logs))
        (root / "data.json").write_text(json.dumps(data))
        torch.save(contrasts, root / "contrasts.pt")
    torch.distributed.barrier()
    os._exit(0)  # gloo's own end, at exit or by destroy_process_group, hangs or aborts now and then
