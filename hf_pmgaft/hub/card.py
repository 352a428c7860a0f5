"""The model card: what was trained, how robust it is, and under which protocol."""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import yaml
from huggingface_hub import (
    EvalResult,
    EvalResultEntry,
    ModelCard,
    ModelCardData,
    eval_result_entries_to_yaml,
    hf_hub_download,
    metadata_load,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES

from ..attacks.spec import attack_name
from ..config import PMGAFTConfig
from ..evaluation.report import RobustnessReport, SetResult
from ..evaluation.tables import attack_rows, render
from ..models.backbones import BACKBONES, ENCODERS
from ..objectives import OBJECTIVES
from ..objectives.base import Objective
from ..tuning.base import Tuning

TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"
HEADER = "| set | images | clean before | clean after | robust before | robust after | 95 % interval |"
TASK = "zero-shot-image-classification"
RETRIEVAL_TASK = "image-text-retrieval"
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")
PIPELINE_USAGE = """```python
from transformers import pipeline

classify = pipeline("zero-shot-image-classification", model="{0}")
print(classify("image.png", candidate_labels=["cat", "dog"]))
```

or

"""
MODEL_USAGE = """```python
import torch
from PIL import Image
from transformers import AutoProcessor, {model_class}

model = {model_class}.from_pretrained("{0}")
processor = AutoProcessor.from_pretrained("{0}")
options = {options}
inputs = processor(text=["a cat", "a dog"], images=Image.open("image.png"), return_tensors="pt", **options)
with torch.no_grad():
    print(model(**inputs).logits_per_image.{scores})
```"""
SOFTMAX = {"options": '{"padding": True}', "scores": "softmax(dim=-1)"}
# Of models that learned whether an image fits a text, and texts with their padding.
SIGMOID = {
    "options": """{"padding": "max_length", "return_attention_mask": False}
options["max_length"] = model.config.text_config.max_position_embeddings""",
    "scores": "sigmoid()",
}
ENCODER_USAGE = """```python
import torch
from hf_pmgaft import load_model
from hf_pmgaft import get_encoder
from PIL import Image
from transformers import AutoImageProcessor

model, processor = load_model("{0}"), AutoImageProcessor.from_pretrained("{0}")
pixel_values = processor(Image.open("image.png").convert("RGB"), return_tensors="pt")["pixel_values"]
with torch.no_grad():
    print(get_encoder(model).image_embeds(model, pixel_values))
```"""
ADAPTER_USAGE = """```python
import torch
from hf_pmgaft import ZeroShotClassifier, encode_class_names, load_model
from PIL import Image
from transformers import AutoProcessor

model, processor = load_model("{0}"), AutoProcessor.from_pretrained("{0}")
names = {names}
classifier = ZeroShotClassifier.from_model(model, processor, encode_class_names(model, processor, names))
images = processor(images=Image.open("image.png"), do_normalize=False, return_tensors="pt")["pixel_values"]
with torch.no_grad():
    print(names[classifier(images).argmax()])
```"""
ANY_NAMES = '["cat", "dog"]'
LEARNED_NAMES = "model.tuning.options.class_names  # each has a context of its own"
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
    train_dataset: Any = None,
    adapter: str | None = None,
    usage: str | None = None,
    model_class: str = "CLIPModel",
    library_name: str = "transformers",
) -> ModelCard:
    """The card of a robust checkpoint, with its figures as `model-index`.

    Args:
        base_model (`str`): Hub id or folder of the model that was tuned; of a folder only the last name is written.
        objective (`Objective`), tuning (`Tuning`), config (`PMGAFTConfig`): How it was tuned.
        report_before, report_after (`RobustnessReport`, *optional*): Of one protocol.
        dataset_name (`str`, *optional*): Hub id or folder of the fine-tuning set.
        plots (`list[str]`): Pictures, by their path relative to the card.
        licence (`str`, *optional*): The base model's; that of its own card, in its folder or on the Hub, if not given.
        train_dataset (*optional*): What was tuned on, for its size and classes.
        adapter (`str`, *optional*): What the checkpoint is if no plain model, such as `"a LORA adapter"`.
        usage (`str`, *optional*): Code that uses the checkpoint, its name left as `{0}`; that of its class if absent.
        model_class (`str`): Class of the plain model.
        library_name (`str`): What loads it.
    """
    method = next((name for name, cls in OBJECTIVES.items() if type(objective) is cls), type(objective).__name__)
    title = config.hub_model_id or Path(config.output_dir).resolve().name
    base_name = _public_name(base_model)
    encoder = model_class in ENCODERS  # without text
    scores = SIGMOID if model_class in BACKBONES and BACKBONES[model_class].full_text else SOFTMAX
    usage = ENCODER_USAGE if encoder else usage or _plain_usage(model_class)
    data = ModelCardData(
        library_name=library_name,
        pipeline_tag="image-feature-extraction" if encoder else TASK,
        **({"license": licence} if licence else _licence(base_model)),
        base_model=base_model if _is_hub_id(base_model) else None,
        base_model_relation=("adapter" if adapter else "finetune") if _is_hub_id(base_model) else None,
        datasets=_hub_datasets(dataset_name),
        metrics=["accuracy"],
        tags=["hf-pmgaft", "adversarial-robustness", *(["clip"] if "clip" in model_class.lower() else []), method],
        model_name=title,
        eval_results=_eval_results(report_after) if report_after else None,
    )
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=title,
        method=method,
        base_model=base_name,
        what="An image encoder" if encoder else "A model of images and texts",
        kind=f"{adapter} beside its base model, which is loaded with it" if adapter else f"a plain `{model_class}`",
        usage=usage.format(title, names=ANY_NAMES, model_class=model_class, **scores),
        use="Image features" if encoder else "Zero-shot classification, and image features",
        dataset=f" on `{_public_name(dataset_name)}`" if dataset_name else "",
        paper=_paper(objective),
        training=_training_rows(objective, tuning, config, _data(dataset_name, train_dataset)),
        results=_results(report_before, report_after),
        plots="".join(f"\n![{plot.stem}]({plot.name if plot.is_absolute() else plot})\n" for plot in map(Path, plots)),
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")


def save_model_card(output_dir: str | os.PathLike, **options) -> ModelCard:
    """Writes the card of [`model_card`] as `README.md`; an adapter or learned prompts in the folder are named so."""
    card = model_card(**(_kind(Path(output_dir)) | options))
    card.save(Path(output_dir) / "README.md")
    return card


def save_eval_results(
    output_dir: str | os.PathLike, report: RobustnessReport, benchmarks: Mapping[str, Mapping[str, tuple[str, str]]]
) -> list[Path]:
    """Writes figures in the Hub's newer format, `.eval_results/*.yaml`, which benchmarks gather into leaderboards.

    It is for sets whose data set on the Hub is a registered benchmark, that is, has an `eval.yaml` with its tasks; the
    Hub refuses others (https://huggingface.co/docs/hub/eval-results), so all figures are in the card's `model-index`
    too.

    Args:
        output_dir (`str`): The checkpoint's folder.
        report (`RobustnessReport`): Of the checkpoint.
        benchmarks (`dict`): By set and figure (`"clean_accuracy"`, `"robust_accuracy"`), the data set's Hub id and the
            task's id, as in `{"food": {"robust_accuracy": ("user/robust-food", "linf")}}`.

    Returns:
        `list[Path]`: The files, one per figure.

    Raises:
        ValueError: for a set or figure that the report does not have.
    """
    results, files = {row.name: row for row in report.sets}, []
    for name, tasks in benchmarks.items():
        for figure, (dataset_id, task_id) in tasks.items():
            if name not in results or figure not in FIGURES:
                raise ValueError(
                    f"You passed the figure {figure!r} of {name!r}, but the report has {sorted(FIGURES)} of "
                    f"{sorted(results)}. Pass one of these."
                )
            value = round(100 * getattr(results[name], figure), 2)
            notes = _listing(_circumstances(report, figure, results[name]))
            entry = EvalResultEntry(dataset_id, task_id, value, notes=notes)
            file = Path(output_dir) / ".eval_results" / f"{name}_{figure}.yaml"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False), encoding="utf-8")
            files.append(file)
    return files


def _plain_usage(model_class: str) -> str:
    served = model_class in MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES.values()
    return PIPELINE_USAGE + MODEL_USAGE if served else MODEL_USAGE


def _kind(folder: Path) -> dict[str, str]:
    """What the checkpoint in a folder is, if no plain model."""
    if (tuning := folder / "tuning.json").is_file():
        saved = json.loads(tuning.read_text(encoding="utf-8"))
        names = LEARNED_NAMES if saved["options"].get("class_specific") else "{names}"
        usage = ADAPTER_USAGE.replace("{names}", names)
        return {"adapter": f"the tuning `{saved['tuning']}`", "usage": usage, "library_name": "hf_pmgaft"}
    if (adapter := folder / "adapter_config.json").is_file():
        kind = json.loads(adapter.read_text(encoding="utf-8"))["peft_type"]
        return {"adapter": f"a {kind} adapter", "usage": ADAPTER_USAGE, "library_name": "peft"}
    return {}


def _paper(objective: Objective) -> str:
    """The method's title, paper and equation; the Hub finds papers by their links."""
    text = "\n\n".join(inspect.cleandoc(type(objective).__doc__ or "").split("\n\n")[:2])
    return ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def _data(name: str | None, dataset: Any) -> str:
    parts = [f"`{_public_name(name)}`"] if name else []
    parts += [f"{len(dataset):,} images"] if hasattr(dataset, "__len__") else []
    parts += [f"{len(names)} classes"] if (names := getattr(dataset, "class_names", None)) else []
    parts += ["captions"] if getattr(dataset, "captions", None) else []
    return ", ".join(parts) or "not named"


def _weights(config: PMGAFTConfig) -> str:
    tuned = "of the last step" if config.ema_decay is None else f"moving average, decay {config.ema_decay}"
    return tuned if config.wise_ft is None else f"{config.wise_ft} of the tuned ({tuned}), the rest the original's"


def _training_rows(objective: Objective, tuning: Tuning, config: PMGAFTConfig, data: str) -> str:
    length = f"{config.max_steps} steps" if config.max_steps > 0 else f"{config.num_train_epochs} epochs"
    # Radii as they were written: 4/255 says more than 0.0157.
    attack = {"attack": config.attack, "loss": "ce", **config.attack_options()}
    attack |= {"eps": config.eps, "step_size": config.step_size}
    attack |= {} if config.attack_precision == "follow" else {"precision": config.attack_precision}
    attack |= {"loss": "the objective's"} if objective.steers_attack else {}
    rows = {
        "data": data,
        "objective options": _listing(vars(objective)) or "none",
        "threat model of training": _listing(attack) if objective.uses_attack else "none: no adversarial images",
        "trained": tuning.describe(),
        "weights": _weights(config),
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
    lines = [f"{after.measure} in %, protocol `{after.protocol_hash}`. Robust is the worst case over:", ""]
    lines += [f"- {attack_name(spec)} ({_listing(spec)})" for spec in after.headline_attacks]
    lines += ["", f"Verdict: {after.protocol['verdict']}."]
    lines += ["", *(f"- {text}" for text in after.retrieval)] if after.retrieval else []
    if before and before.protocol_hash != after.protocol_hash:
        lines += [f"The figures before are of another protocol (`{before.protocol_hash}`): do not compare them."]
    header = HEADER if after.figures in ([], ["accuracy"]) else HEADER.replace("images", "queries")
    lines += ["", header, "|" + 7 * "---|"]
    old_sets = {result.name: result for result in before.sets} if before else {}
    for new in after.sets:
        cells = [_percent(getattr(row, key, None)) for key in FIGURES for row in (old_sets.get(new.name), new)]
        interval = " to ".join(map(_percent, new.robust_interval))
        lines.append(f"| {new.name} | {new.num_samples} | {' | '.join(cells)} | {interval} |")
    means = [_percent(report.mean(key) if report else None) for key in FIGURES for report in (before, after)]
    lines.append(f"| {_mean_name(after)} | | {' | '.join(means)} | |")
    if len(standing := attack_rows(after)) > 2:  # the header and more than one attack
        lines += ["", "What each attack left standing in %, mean over the sets:", "", render(standing, "markdown")]
    if not after.flags:
        lines += ["", "No flag was raised."]
    else:
        lines += ["", "**Do not believe these figures yet:**", ""]
        lines += [f"- {flag['flag']} ({flag['set']}): {flag['message']}" for flag in after.flags]
    return "\n".join(lines)


def _eval_results(report: RobustnessReport) -> list[EvalResult]:
    attack = ", ".join(map(attack_name, report.headline_attacks))
    classified = "image-classification" if "head" in report.protocol else TASK
    rows = [(None, key, report.mean(key)) for key in FIGURES]
    rows += [(row, key, getattr(row, key)) for row in report.sets for key in FIGURES]
    results = []
    for row, key, value in rows:
        kind, name = (row or report.sets[0]).kind, row.dataset if row else _mean_name(report)
        results.append(
            EvalResult(
                task_type=classified if kind == "accuracy" else RETRIEVAL_TASK,
                dataset_type=name.replace(" ", "-"),
                dataset_name=name,
                metric_type=key.replace("accuracy", kind.replace(" ", "_")),
                metric_value=round(100 * value, 2),
                metric_name=FIGURES[key].replace("accuracy", row.figure if row else kind).format(attack),
                metric_args=_circumstances(report, key, row),
            )
        )
    return results


def _mean_name(report: RobustnessReport) -> str:
    return "mean of sets" if report.of().figures == ["accuracy"] else "mean of all"


def _circumstances(report: RobustnessReport, figure: str, row: SetResult | None) -> dict[str, Any]:
    """What a figure means nothing without; `row` is the set, `None` for the mean."""
    robust = figure == "robust_accuracy"
    attacks = {"attack": " + ".join(map(attack_name, report.headline_attacks))} if robust else {}
    interval = {"interval_95": " to ".join(map(_percent, row.robust_interval))} if robust and row else {}
    size = {"num_samples": row.num_samples} if row else {"num_sets": len(report.sets)}
    head = {"head": report.protocol["head"]["name"]} if "head" in report.protocol else {}
    return {**attacks, **head, **size, **interval, "protocol": report.protocol_hash}


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


def _hub_datasets(dataset_name: str | None) -> list[str] | None:
    name = (dataset_name or "").partition("@")[0].partition(":")[0]
    return [name] if _is_hub_id(name) else None


def _licence(base_model: str) -> dict[str, str]:
    """`license`, and of an unusual one its name and link, as the base model's card says, if that can be read."""
    try:
        on_hub = _is_hub_id(base_model)
        readme = hf_hub_download(base_model, "README.md") if on_hub else Path(base_model) / "README.md"
        metadata = metadata_load(readme) or {}
    except Exception:  # offline, gated, without a card or with a broken one: the licence is not known
        return {}
    found = {key: metadata[key] for key in ("license", "license_name", "license_link") if metadata.get(key)}
    if on_hub and "://" not in found.get("license_link", "://"):  # a file of that repository
        found["license_link"] = f"https://huggingface.co/{base_model}/blob/main/{found['license_link']}"
    return found
