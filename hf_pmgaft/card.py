"""The model card: what was trained, how robust it is, and under which protocol."""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from string import Template

from huggingface_hub import EvalResult, ModelCard, ModelCardData, metadata_load

from .config import PMGAFTConfig
from .objectives import OBJECTIVES, Objective
from .report import RobustnessReport
from .threats import attack_name
from .tuning import Tuning

TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"
HEADER = "| set | images | clean before | clean after | robust before | robust after | 95 % interval |"
TASK = "zero-shot-image-classification"
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
PLAIN_USAGE = """```python
from transformers import CLIPModel, CLIPProcessor

model = CLIPModel.from_pretrained("{0}")
processor = CLIPProcessor.from_pretrained("{0}")
```

or

```python
from transformers import pipeline

classify = pipeline("zero-shot-image-classification", model="{0}")
classify("image.png", candidate_labels=["a cat", "a dog"])
```"""
ADAPTER_USAGE = """```python
from hf_pmgaft import ZeroShotClassifier, encode_class_names, load_model
from transformers import CLIPProcessor

model, processor = load_model("{0}"), CLIPProcessor.from_pretrained("{0}")
class_embeds = encode_class_names(model, processor, ["cat", "dog"])
classifier = ZeroShotClassifier.from_model(model, processor, class_embeds)  # images in [0,1] -> logits
```"""
FIGURES = {"clean_accuracy": "Clean accuracy (%)", "robust_accuracy": "Robust accuracy (%) under {}"}


def model_card(
    *,
    base_model: str,
    objective: Objective,
    tuning: Tuning,
    config: PMGAFTConfig,
    report_before: RobustnessReport | None = None,
    report_after: RobustnessReport | None = None,
    dataset_name: str | None = None,
    plots: Sequence[str] = (),
    licence: str | None = None,
    adapter: str | None = None,
) -> ModelCard:
    """The card of a robust checkpoint, with its figures as `model-index`.

    Args:
        base_model (`str`): Hub id or folder of the model that was tuned; of a folder only the last name is written.
        objective (`Objective`), tuning (`Tuning`), config (`PMGAFTConfig`): How it was tuned.
        report_before, report_after (`RobustnessReport`, *optional*): Of one protocol.
        dataset_name (`str`, *optional*): Hub id or folder of the fine-tuning set.
        plots (`list[str]`): Pictures, by their path relative to the card.
        licence (`str`, *optional*): The base model's; read from its own card if that is a folder.
        adapter (`str`, *optional*): What the checkpoint is if no plain model, such as `"a LORA adapter"`.
    """
    method = next((name for name, cls in OBJECTIVES.items() if type(objective) is cls), type(objective).__name__)
    title = config.hub_model_id or Path(config.output_dir).resolve().name
    base_name = _public_name(base_model)
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=TASK,
        license=licence or _licence(base_model),
        base_model=base_model if _is_hub_id(base_model) else None,
        base_model_relation=("adapter" if adapter else "finetune") if _is_hub_id(base_model) else None,
        tags=["hf-pmgaft", "adversarial-robustness", "clip", method],
        model_name=title,
        eval_results=_eval_results(report_after) if report_after else None,
    )
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=title,
        method=method,
        base_model=base_name,
        kind=f"{adapter} beside its base model, which is loaded with it" if adapter else "a plain `CLIPModel`",
        usage=(ADAPTER_USAGE if adapter else PLAIN_USAGE).format(title),
        dataset=f" on `{_public_name(dataset_name)}`" if dataset_name else "",
        paper="\n\n".join(inspect.cleandoc(type(objective).__doc__ or "").split("\n\n")[:2]),
        training=_training_rows(objective, tuning, config),
        results=_results(report_before, report_after),
        plots="".join(f"\n![{plot.stem}]({plot.name if plot.is_absolute() else plot})\n" for plot in map(Path, plots)),
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")


def save_model_card(output_dir: str | os.PathLike, **options) -> ModelCard:
    """Writes the card of [`model_card`] as `README.md`; an adapter or learned prompts in the folder are named so."""
    if (adapter := Path(output_dir) / "adapter_config.json").is_file():
        options.setdefault("adapter", f"a {json.loads(adapter.read_text(encoding='utf-8'))['peft_type']} adapter")
    if (tuning := Path(output_dir) / "tuning.json").is_file():
        options.setdefault("adapter", f"the tuning `{json.loads(tuning.read_text(encoding='utf-8'))['tuning']}`")
    card = model_card(**options)
    card.save(Path(output_dir) / "README.md")
    return card


def _training_rows(objective: Objective, tuning: Tuning, config: PMGAFTConfig) -> str:
    length = f"{config.max_steps} steps" if config.max_steps > 0 else f"{config.num_train_epochs} epochs"
    # Radii as they were written: 4/255 says more than 0.0157.
    attack = {"attack": config.attack, "loss": "ce", **config.attack_options()}
    attack |= {"eps": config.eps, "step_size": config.step_size}
    attack |= {} if type(objective).attack_loss is Objective.attack_loss else {"loss": "the objective's"}
    rows = {
        "objective options": _listing(vars(objective)) or "none",
        "threat model of training": _listing(attack) if objective.attacks else "none: no adversarial images",
        "trained": tuning.describe(),
        "weights": f"moving average, decay {config.ema_decay}" if config.ema_decay is not None else "of the last step",
        "optimizer": f"{config.optim.value}, learning rate {config.learning_rate}, weight decay {config.weight_decay}",
        "schedule": f"{config.lr_scheduler_type.value}, {length}",
        "batch": f"{config.per_device_train_batch_size} x {config.gradient_accumulation_steps} x {config.world_size}",
        "augmentation, seed": f"{config.augmentation}, {config.seed}",
        "precision": "bf16" if config.bf16 else "fp16" if config.fp16 else "fp32",
    }
    return "\n".join(f"| {key} | {value} |" for key, value in rows.items())


def _results(before: RobustnessReport | None, after: RobustnessReport | None) -> str:
    if after is None:
        return "This checkpoint was not evaluated."
    lines = [f"Zero-shot accuracy in %, protocol `{after.protocol_hash}`. Robust is the worst case over:", ""]
    lines += [f"- {attack_name(spec)} ({_listing(spec)})" for spec in after.headline_attacks]
    lines += ["", f"Verdict: {after.protocol['verdict']}."]
    if before and before.protocol_hash != after.protocol_hash:
        lines += [f"The figures before are of another protocol (`{before.protocol_hash}`): do not compare them."]
    lines += ["", HEADER, "|" + 7 * "---|"]
    old_sets = {result.name: result for result in before.sets} if before else {}
    for new in after.sets:
        cells = [_percent(getattr(row, key, None)) for key in FIGURES for row in (old_sets.get(new.name), new)]
        interval = " to ".join(map(_percent, new.robust_interval))
        lines.append(f"| {new.name} | {new.num_samples} | {' | '.join(cells)} | {interval} |")
    means = [_percent(report.mean(key) if report else None) for key in FIGURES for report in (before, after)]
    lines.append(f"| mean of sets | | {' | '.join(means)} | |")
    if after.flags:
        lines += ["", "**Do not believe these figures yet:**", ""]
        lines += [f"- {flag['flag']} ({flag['set']}): {flag['message']}" for flag in after.flags]
    return "\n".join(lines)


def _eval_results(report: RobustnessReport) -> list[EvalResult]:
    attack = ", ".join(map(attack_name, report.headline_attacks))
    rows = [("mean of sets", key, round(100 * report.mean(key), 2)) for key in FIGURES]
    rows += [(row.name, key, round(100 * getattr(row, key), 2)) for row in report.sets for key in FIGURES]
    return [
        EvalResult(TASK, name.replace(" ", "-"), name, key, value, metric_name=FIGURES[key].format(attack))
        for name, key, value in rows
    ]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _listing(options: dict) -> str:
    return ", ".join(f"{key}={value}" for key, value in options.items() if value is not None)


def _public_name(name: str) -> str:
    """A Hub id as it is; of a path only its last name, so that no card tells about a machine."""
    path = name.partition("@")[0].partition(":")[0]
    return name if _is_hub_id(path) else Path(path).resolve().name


def _is_hub_id(name: str) -> bool:
    return HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def _licence(base_model: str) -> str | None:
    readme = Path(base_model) / "README.md"
    return (metadata_load(readme) or {}).get("license") if readme.is_file() else None
