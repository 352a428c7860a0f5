"""The model card: what was trained, how robust it is, and under which protocol."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from string import Template

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from .config import PMGAFTConfig
from .evaluation import RobustnessReport, attack_name
from .objectives import OBJECTIVES, Objective

TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"


def model_card(
    *,
    base_model: str,
    objective: Objective,
    config: PMGAFTConfig,
    report_before: RobustnessReport | None = None,
    report_after: RobustnessReport | None = None,
    dataset_name: str | None = None,
    plots: Sequence[str] = (),
    licence: str | None = None,
) -> ModelCard:
    """The card of a robust checkpoint, with its figures as `model-index`.

    Args:
        base_model (`str`): Hub id or folder of the model that was tuned; of a folder only the last name is written.
        objective (`Objective`), config (`PMGAFTConfig`): How it was tuned.
        report_before, report_after (`RobustnessReport`, *optional*): Of one protocol.
        dataset_name (`str`, *optional*): Hub id or folder of the fine-tuning set.
        plots (`list[str]`): Pictures beside the card.
        licence (`str`, *optional*): The base model's; read from its own card if that is a folder.
    """
    name = next((name for name, cls in OBJECTIVES.items() if type(objective) is cls), type(objective).__name__)
    title = config.hub_model_id or Path(config.output_dir).name
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="zero-shot-image-classification",
        license=licence or _licence(base_model),
        base_model=base_model if not Path(base_model).exists() else None,
        tags=["hf-pmgaft", "adversarial-robustness", "clip", name],
        model_name=title,
        eval_results=_eval_results(report_after) if report_after else None,
    )
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=title,
        model_id=title,
        method=name,
        base_model=_public_name(base_model),
        dataset=f" on `{_public_name(dataset_name)}`" if dataset_name else "",
        paper=inspect.cleandoc(type(objective).__doc__ or "").split("\n\n")[0],
        training=_training_rows(objective, config),
        results=_results_table(report_before, report_after),
        plots="".join(f"\n![{Path(plot).stem}]({plot})\n" for plot in plots),
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")


def save_model_card(output_dir: str | os.PathLike, **options) -> ModelCard:
    """Writes the card of [`model_card`] as `README.md`."""
    card = model_card(**options)
    card.save(Path(output_dir) / "README.md")
    return card


def _training_rows(objective: Objective, config: PMGAFTConfig) -> str:
    rows = {
        "objective options": ", ".join(f"{key}={value}" for key, value in vars(objective).items()) or "none",
        "training attack": ", ".join(f"{key}={value}" for key, value in config.attack_options().items())
        if objective.attacks
        else "none",
        "radius": f"{config.eps} ({config.norm})" if objective.attacks else "none",
        "trained": "last blocks of the vision tower" if config.trainable_layers else "vision tower",
        "optimizer": f"{config.optim.value}, learning rate {config.learning_rate}, weight decay {config.weight_decay}",
        "schedule": f"{config.lr_scheduler_type.value}, "
        + (f"{config.max_steps} steps" if config.max_steps > 0 else f"{config.num_train_epochs} epochs"),
        "batch": f"{config.per_device_train_batch_size} x {config.gradient_accumulation_steps} x {config.world_size}",
        "augmentation": config.augmentation,
        "precision": "bf16" if config.bf16 else "fp16" if config.fp16 else "fp32",
        "seed": config.seed,
    }
    return "\n".join(f"| {key} | {value} |" for key, value in rows.items())


def _results_table(before: RobustnessReport | None, after: RobustnessReport | None) -> str:
    if after is None:
        return "This checkpoint was not evaluated."
    attack = ", ".join(attack_name(spec) for spec in after.protocol["attacks"])
    lines = [
        f"Zero-shot accuracy in %, clean and robust under {attack} (protocol `{after.protocol_hash}`; "
        f"{after.protocol['verdict']}).",
        "",
        "| set | images | clean before | clean after | robust before | robust after | 95 % interval |",
        "|---|---|---|---|---|---|---|",
    ]
    for i, new in enumerate(after.sets):
        old = before.sets[i] if before else None
        low, high = new.robust_interval
        figures = [
            _percent(old.clean_accuracy if old else None),
            _percent(new.clean_accuracy),
            _percent(old.robust_accuracy if old else None),
            _percent(new.robust_accuracy),
            f"{_percent(low)} to {_percent(high)}",
        ]
        lines.append(f"| {new.name} | {new.num_samples} | {' | '.join(figures)} |")
    means = [
        _percent(r.mean(k) if r else None) for k in ("clean_accuracy", "robust_accuracy") for r in (before, after)
    ]
    return "\n".join([*lines, f"| mean | | {' | '.join(means)} | |"])


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _eval_results(report: RobustnessReport) -> list[EvalResult]:
    attack = ", ".join(attack_name(spec) for spec in report.protocol["attacks"])
    metrics = {"clean_accuracy": "Clean accuracy", "robust_accuracy": f"Robust accuracy ({attack})"}
    rows = [("mean over sets", {key: report.mean(key) for key in metrics})]
    rows += [(result.name, {key: getattr(result, key) for key in metrics}) for result in report.sets]
    return [
        EvalResult(
            task_type="zero-shot-image-classification",
            dataset_type=name.replace(" ", "-"),
            dataset_name=name,
            metric_type=key,
            metric_name=title,
            metric_value=round(100 * values[key], 2),
        )
        for name, values in rows
        for key, title in metrics.items()
    ]


def _public_name(name: str) -> str:
    """A Hub id as it is; of a local path only its last name."""
    path = Path(name.partition("@")[0].partition(":")[0])
    return path.resolve().name if path.exists() else name


def _licence(base_model: str) -> str | None:
    readme = Path(base_model) / "README.md"
    return ModelCard.load(readme).data.license if readme.is_file() else None
