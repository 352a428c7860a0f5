"""Runs that push to the Hub of the tests, and models that are compared with what was pushed."""

import tempfile
from pathlib import Path

import torch

from support.hub_server import TOKEN
from support.tiny import CLASS_NAMES, make_images
from support.trainers import make_trainer

IMAGES = ["gallery.png", "training_curves.png"]


def files_of(*parts) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            part.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def run_of(tmp_path, **options):
    """A trainer of one step that pushes to user/clip."""
    options = {"max_steps": 1, "push_to_hub": True, "hub_model_id": "user/clip", **options}
    return make_trainer(tmp_path / "run", eval_dataset=options.pop("eval_dataset", make_images(4)), **options)


def finish(trainer, **push) -> Path:
    """Trains and pushes with what must not leave the machine beside the model."""
    folder = Path(trainer.args.output_dir)
    for name in ("training_args.bin", "optimizer.pt", ".env", "notes.log"):
        (folder / name).write_text(f"HF_TOKEN={TOKEN}")
    (folder / "wandb").mkdir(exist_ok=True)
    (folder / "wandb" / "settings.json").write_text(f'{{"token": "{TOKEN}"}}')
    trainer.train()
    trainer.evaluate_robustness()
    trainer.push_to_hub(**push)
    return folder


def logits(model, processor) -> torch.Tensor:
    batch = processor(text=CLASS_NAMES, images=list(make_images(4)["image"]), return_tensors="pt", padding=True)
    with torch.no_grad():
        return model.eval()(**batch).logits_per_image


def assert_equal(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
