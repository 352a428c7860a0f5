"""Sample pictures of an evaluation set, clean and attacked: for trackers, notebooks and files."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback

from ..attacks.spec import AttackSpec
from ..data.evaluation_sets import EvaluationImages, ZeroShotDataset
from ..evaluation.plan import sample_ids
from ..evaluation.report import RobustnessReport
from ..plots.galleries import gallery


class Evaluates(Protocol):
    """What sample pictures need of a trainer."""

    args: Any
    state: Any
    eval_dataset: Mapping[str, EvaluationImages] | None
    last_report: RobustnessReport | None
    callback_handler: Any
    evaluation_model: Callable[[], contextlib.AbstractContextManager[nn.Module]]
    evaluation_classifier: Callable[[nn.Module, ZeroShotDataset], Callable[[torch.Tensor], torch.Tensor]]
    is_world_process_zero: Callable[[], bool]


def first_with_classes(sets: Mapping[str, EvaluationImages] | None) -> ZeroShotDataset | None:
    """The first evaluation set with classes, of which pictures can be shown."""
    return next((data for data in (sets or {}).values() if isinstance(data, ZeroShotDataset)), None)


class SamplePictures(TrainerCallback):
    """Shows a few images of an evaluation set at every evaluation: clean, perturbation, adversarial, predictions.

    The picture goes to TensorBoard, trackio and wandb, as far as the run reports to them, as `eval/samples`, and into
    `trainer.last_report`, which a notebook shows. A trainer that reports to a tracker has this callback by itself.

    Args:
        trainer (`PMGAFTTrainer`): Whose model is attacked, by its evaluation attack.
        data (`ZeroShotDataset`, *optional*): The trainer's first such evaluation set if not given.
        count (`int`): Images, chosen by the run's seed.

    Example:
        >>> from hf_pmgaft import PMGAFTConfig, PMGAFTTrainer, ZeroShotDataset
        >>> shapes = ZeroShotDataset(dataset, processor, name="shapes")
        >>> args = PMGAFTConfig(output_dir="clip", use_cpu=True, report_to="none")
        >>> trainer = PMGAFTTrainer(model, args, eval_dataset={"shapes": shapes}, processing_class=processor)
        >>> trainer.add_callback(SamplePictures(trainer, count=4))
    """

    def __init__(self, trainer: Evaluates, data: ZeroShotDataset | None = None, count: int = 8):
        self.trainer = trainer
        self.data = first_with_classes(trainer.eval_dataset) if data is None else data
        self.spec = AttackSpec.of(trainer.args.eval_attack_spec())
        # Of rows that are not evaluated there may be no images.
        rows = range(len(self.data)) if self.data.sample_ids is None else self.data.sample_ids
        self.rows = [rows[place] for place in sample_ids(len(rows), count, trainer.args.seed)]
        self.clean: torch.Tensor | None = None
        self.adversarial: torch.Tensor | None = None
        self.labels: list[int] = []
        self.predictions: dict[str, list[int]] = {}

    def on_evaluate(self, args, state, control, **kwargs):
        self.attack("model")
        self.show()

    def attack(self, name: str) -> None:
        """Attacks the model as it is now; its predictions stand under `name` in the pictures from here on.

        All processes take part, since the engine may have shared out the weights.
        """
        trainer = self.trainer
        if self.clean is None:
            examples = [self.data[row] for row in self.rows]
            self.clean = torch.stack([example["images"] for example in examples])
            self.labels = [example["labels"] for example in examples]

        images = self.clean.to(trainer.args.device)
        labels = torch.tensor(self.labels, device=trainer.args.device)
        seeds = torch.arange(len(labels), device=labels.device)
        with trainer.evaluation_model() as model:
            classifier = trainer.evaluation_classifier(model, self.data)
            adversarial = self.spec.run(classifier, images, labels, seeds)
            with torch.no_grad():
                self.predictions[name] = classifier(adversarial).argmax(1).tolist()
        self.adversarial = adversarial.cpu()

    def save(self, file: str | os.PathLike | io.BytesIO) -> None:
        """Draws clean image, perturbation and adversarial image; each model is shown against its own attack."""
        gallery(
            self.clean,
            self.adversarial,
            self.data.class_names,
            self.labels,
            self.predictions,
            file,
            eps=self.spec.options["eps"],
            norm=self.spec.norm,
        )

    def show(self) -> None:
        """Hands the picture to the report and to the trackers of the run."""
        trainer = self.trainer
        file = io.BytesIO()
        self.save(file)
        if trainer.last_report is not None:
            trainer.last_report.picture = file.getvalue()
        if not trainer.is_world_process_zero():
            return

        pixels = np.asarray(Image.open(file).convert("RGB"))
        step = trainer.state.global_step
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
                callback.tb_writer.add_image("eval/samples", pixels, step, dataformats="HWC")
                callback.tb_writer.flush()
            elif isinstance(callback, WandbCallback):
                import wandb

                wandb.log({"eval/samples": wandb.Image(pixels), "train/global_step": step})
            elif isinstance(callback, TrackioCallback):
                import trackio

                trackio.log({"eval/samples": trackio.Image(pixels), "train/global_step": step})
