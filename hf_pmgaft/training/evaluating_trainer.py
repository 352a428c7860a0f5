"""A Trainer whose evaluation is `evaluate_robustness`: clean and attacked, set by set, with reports and pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers.trainer_utils import speed_metrics

from ..attacks.spec import AttackSpec
from ..config import PMGAFTConfig
from ..data.evaluation_sets import ZeroShotDataset
from ..evaluation.evaluate import evaluate_robustness
from ..evaluation.heads import Head
from ..evaluation.report import RobustnessReport
from ..zero_shot.classifier import ZeroShotClassifier
from ..zero_shot.text import ClassPrompts, encode_prompts
from . import outputs
from .base_trainer import BaseTrainer
from .checks import check_metric
from .datasets import clean_predictions, evaluation_sets
from .sample_pictures import SamplePictures, first_with_classes


class EvaluatingTrainer(BaseTrainer):
    """What [`PMGAFTTrainer`] is in evaluation.

    Args:
        head (`Head`, *optional*): Classifies instead of the class names.
        prompt_templates (`list[str]`): For evaluation sets that come without their own.
        accept_any_class_names (`bool`): Whether such sets may have class names that a text tower cannot know.
        kwargs: As in `Trainer`.

    Attributes:
        first_report (`RobustnessReport`, *optional*): The first one that was made before training.
        last_report (`RobustnessReport`, *optional*): The last one that was made.
        final_report (`RobustnessReport`, *optional*): That of `evaluate_finally`.
        provenance (`dict`): What every report records of where model and sets are from, beside the sets' own sources.
        final_attacks (list of `AttackSpec`): What `evaluate_finally` attacks by.
        processor_before (*optional*): Has the pixel statistics of the model as it came, where training and the model
            that comes out have others.
    """

    def __init__(
        self,
        model: nn.Module,
        args: PMGAFTConfig,
        *,
        head: Head | None,
        prompt_templates: Sequence[str],
        accept_any_class_names: bool,
        eval_dataset: Any,
        processing_class: Any,
        **kwargs: Any,
    ):
        self.head = head
        # By a head images are classified without texts.
        self._set_options = {
            "prompt_templates": prompt_templates,
            "accept_any_class_names": accept_any_class_names or head is not None,
        }
        self.first_report: RobustnessReport | None = None
        self.last_report: RobustnessReport | None = None
        self.final_report: RobustnessReport | None = None
        self.provenance: dict[str, Any] = {}
        self.final_attacks: list[AttackSpec] = []
        self.processor_before: Any = None

        sets = evaluation_sets(eval_dataset, processing_class, **self._set_options)
        check_metric(args, sets, kwargs.get("callbacks") or (), kwargs.get("compute_metrics") is not None)
        super().__init__(
            model,
            args,
            eval_dataset=sets,
            processing_class=processing_class,
            **kwargs,
        )
        if self.args.report_to:
            outputs.name_run(self.args)
            if first_with_classes(self.eval_dataset):
                self.add_callback(SamplePictures(self))

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval") -> dict[str, float]:
        """Clean and robust accuracy of every evaluation set, and their means over sets, by `evaluate_robustness`.

        Args:
            eval_dataset (*optional*): As in the constructor, or the name of one of its sets; its sets if not given.
            ignore_keys: Not used.
            metric_key_prefix (`str`): What names of metrics begin with.

        Returns:
            `dict[str, float]`: `<prefix>_<set>_clean_accuracy`, `<prefix>_<set>_robust_accuracy`,
            `<prefix>_mean_clean_accuracy`, `<prefix>_mean_robust_accuracy`. The whole report, with its protocol, is
            kept as `trainer.last_report`.
        """
        start = time.time()
        sets = evaluation_sets(eval_dataset, self.processing_class, known=self.eval_dataset, **self._set_options)
        sets = sets or self.eval_dataset
        if not sets:
            raise ValueError("There is nothing to evaluate. Pass `eval_dataset` to the trainer or to `evaluate`.")
        report = self.evaluate_robustness(sets)
        metrics = report.metrics(metric_key_prefix)

        if self.compute_metrics is not None:
            for name, data in sets.items():
                if isinstance(data, ZeroShotDataset):
                    with self.evaluation_model() as model:
                        classifier = self.evaluation_classifier(model, data)
                        predictions = clean_predictions(
                            classifier, data, self.args.eval_batch_size, self.args.dataloader_num_workers
                        )
                    extra = self.compute_metrics(predictions)
                    metrics.update({f"{metric_key_prefix}_{name}_{key}": value for key, value in extra.items()})

        num_samples = sum(result.num_samples for result in report.sets)
        metrics.update(speed_metrics(metric_key_prefix, start, num_samples=num_samples))
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def evaluate_robustness(self, sets: Any = None, verdict_file: str | Path | None = None) -> RobustnessReport:
        """The report behind `evaluate`, under the threat model of the configuration.

        The first one made before training and the last one made are kept for the model card. With a `verdict_file`
        the same call goes on where it was killed.
        """
        self.last_report = self._report(sets or self.eval_dataset, [self.args.eval_attack_spec()], verdict_file)
        if self.state.global_step == 0 and self.first_report is None:
            self.first_report = self.last_report
        return self.last_report

    def evaluate_finally(self, verdict_file: str | Path | None = None) -> RobustnessReport:
        """The report under `final_attacks`, such as AutoAttack, which stands beside the last one in the card and in
        `robustness_final.json`."""
        self.final_report = self._report(self.eval_dataset, self.final_attacks, verdict_file)
        return self.final_report

    def _report(self, sets: Any, attacks: Sequence[Any], verdict_file: str | Path | None) -> RobustnessReport:
        with self.evaluation_model() as model:
            report = evaluate_robustness(
                model,
                self.evaluation_processor,
                sets,
                attacks,
                batch_size=self.args.eval_batch_size,
                max_samples=self.args.eval_max_samples,
                seed=self.args.seed,
                verdict_file=verdict_file,
                progress=not self.args.disable_tqdm,
                head=self.head,
                num_workers=self.args.dataloader_num_workers,
            )
        report.provenance.update(self.provenance)
        if self.state.global_step:
            report.provenance["training"] = self.training_record()
        return report

    def training_record(self) -> dict[str, Any]:
        """What the run trains on and by which budget, which reports of the trained model record."""
        raise NotImplementedError

    @property
    def evaluation_processor(self) -> Any:
        """What normalises images in evaluation: until the first step, as the model as it came has it."""
        if self.state.global_step == 0 and self.processor_before is not None:
            return self.processor_before
        return self.processing_class

    def evaluation_classifier(self, model: nn.Module, data: ZeroShotDataset) -> ZeroShotClassifier:
        """What classifies the images of an evaluation set: its class names, or the head."""
        processor = self.evaluation_processor
        if self.head is not None:
            return self.head.fit(model, processor, data)
        prompts = ClassPrompts.of(model, processor, data.class_names, data.prompt_templates)
        embeds = encode_prompts(model, prompts)
        return ZeroShotClassifier.from_model(model, processor, embeds)

    def save_reports(self) -> None:
        """Writes what was measured so far: `robustness.json`, that of before training, sample pictures and curves.

        All processes must call it.
        """
        report = self.last_report
        if report is not None and report.picture is None and first_with_classes(self.eval_dataset):
            pictures = SamplePictures(self)
            pictures.attack("model")
            pictures.show()
        if self.is_world_process_zero():
            self.folder.note_use(self.args.output_dir)
            history = self.state.log_history if self.state.global_step else ()
            outputs.write_reports(Path(self.args.output_dir), self.first_report, report, history, self.final_report)
