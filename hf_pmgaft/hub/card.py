"""The model card: what was trained, how robust it is, and under which protocol."""

from __future__ import annotations

import inspect
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from string import Template
from typing import Any

from huggingface_hub import ModelCard, ModelCardData, hf_hub_download, metadata_load
from transformers.models.auto.modeling_auto import MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES

from ..config import PMGAFTConfig
from ..evaluation.report import RobustnessReport, has_other_statistics
from ..evaluation.tables import percent, render, span
from ..files import write_whole
from ..models.backbones import BACKBONES, ENCODERS
from ..objectives import OBJECTIVES
from ..objectives.base import Objective
from ..tuning.base import Tuning
from .results import FIGURES, ZERO_SHOT_TASK, listed, mean_name, model_index

TEMPLATES = Path(__file__).parent / "templates"
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")
NOT_EVALUATED = "This checkpoint was not evaluated."
MARKS = ("<!-- figures of {} -->", "<!-- end of figures of {} -->")  # of the block of one protocol
ANY_NAMES = '["cat", "dog"]'
LEARNED_NAMES = "model.tuning.options.class_names  # each has a context of its own"


def model_card(
    *,
    base_model: str,
    objective: Objective,
    tuning: Tuning,
    config: PMGAFTConfig,
    report_before: RobustnessReport | None = None,
    report_after: RobustnessReport | None = None,
    report_final: RobustnessReport | None = None,
    dataset_name: str | None = None,
    plots: Sequence[str] = (),
    licence: str | None = None,
    train_dataset: Any = None,
    training: Mapping[str, Any] | None = None,
    adapter: str | None = None,
    class_names: str = ANY_NAMES,
    model_class: str = "CLIPModel",
    library_name: str = "transformers",
) -> ModelCard:
    """The card of a robust checkpoint, with its figures as `model-index`.

    Args:
        base_model (`str`): Hub id or folder of the model that was tuned; of a folder only the last name is written.
        objective (`Objective`), tuning (`Tuning`), config (`PMGAFTConfig`): How it was tuned.
        report_before, report_after (`RobustnessReport`, *optional*): Of one protocol.
        report_final (`RobustnessReport`, *optional*): Of other attacks, after training alone.
        dataset_name (`str`, *optional*): Hub id or folder of the fine-tuning set.
        plots (`list[str]`): Pictures, by their path relative to the card.
        licence (`str`, *optional*): The base model's; that of its own card, in its folder or on the Hub, if not given.
        train_dataset (*optional*): What was tuned on, for its size and classes.
        training (`dict`, *optional*): What [`training_record`] gives: class names, templates, pixel statistics, batch.
        adapter (`str`, *optional*): What the checkpoint is if no plain model, such as `"a LORA adapter"`.
        class_names (`str`): Code for the class names in the usage of such an adapter.
        model_class (`str`): Class of the plain model.
        library_name (`str`): What loads it.

    Example:
        >>> from hf_pmgaft import PMGAFTConfig
        >>> from hf_pmgaft.objectives import make_objective
        >>> from hf_pmgaft.tuning import make_tuning
        >>> card = model_card(
        ...     base_model="openai/clip-vit-base-patch32",
        ...     objective=make_objective("tecoa"),
        ...     tuning=make_tuning("vision_tower"),
        ...     config=PMGAFTConfig(output_dir="robust-clip", use_cpu=True),
        ...     licence="mit",
        ... )
        >>> card.data.model_name, card.data.base_model
        ('robust-clip', 'openai/clip-vit-base-patch32')
    """
    method = next((name for name, cls in OBJECTIVES.items() if type(objective) is cls), type(objective).__name__)
    title = config.hub_model_id or Path(config.output_dir).resolve().name
    is_encoder = model_class in ENCODERS  # without text
    is_on_hub = _is_hub_id(base_model)

    # Metadata, which the Hub reads
    data = ModelCardData(
        library_name=library_name,
        pipeline_tag="image-feature-extraction" if is_encoder else ZERO_SHOT_TASK,
        **({"license": licence} if licence else _licence(base_model)),
        base_model=base_model if is_on_hub else None,
        base_model_relation=("adapter" if adapter else "finetune") if is_on_hub else None,
        datasets=_hub_datasets(dataset_name),
        metrics=["accuracy"],
        tags=["hf-pmgaft", "adversarial-robustness", *(["clip"] if "clip" in model_class.lower() else []), method],
        model_name=title,
        eval_results=[result for report in (report_after, report_final) if report for result in model_index(report)]
        or None,
    )

    # Text, which people read
    pictures = [Path(plot) for plot in plots]
    text = _template(
        "model_card",
        title=title,
        method=method,
        base_model=_public_name(base_model),
        what="An image encoder" if is_encoder else "A model of images and texts",
        kind=f"{adapter} beside its base model, which is loaded with it" if adapter else f"a plain `{model_class}`",
        usage=_usage(title, model_class, adapter, class_names),
        use="Image features" if is_encoder else "Zero-shot classification, and image features",
        dataset=f" on `{_public_name(dataset_name)}`" if dataset_name else "",
        paper=_paper(objective),
        training=_training_rows(objective, tuning, config, _data(dataset_name, train_dataset), training or {}),
        results=all_results(report_before, report_after, report_final),
        plots="".join(f"\n![{path.stem}]({path.name if path.is_absolute() else path})\n" for path in pictures),
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")


def save_model_card(output_dir: str | os.PathLike, **options: Any) -> ModelCard:
    """Writes the card of [`model_card`] as `README.md`; an adapter or learned prompts in the folder are named so.

    Example:
        >>> from hf_pmgaft import PMGAFTConfig
        >>> from hf_pmgaft.objectives import make_objective
        >>> from hf_pmgaft.tuning import make_tuning
        >>> how = {"objective": make_objective("tecoa"), "tuning": make_tuning("vision_tower")}
        >>> config = PMGAFTConfig(output_dir="robust-clip", use_cpu=True)
        >>> card = save_model_card(".", base_model="clip", config=config, licence="mit", **how)
        >>> print(card.text.splitlines()[1])
        # robust-clip
    """
    card = model_card(**{**_what_is_saved(Path(output_dir)), **options})
    write_whole(Path(output_dir) / "README.md", str(card))
    return card


def _what_is_saved(folder: Path) -> dict[str, str]:
    """The options of [`model_card`] that name an adapter or learned prompts in a folder; none for a plain model."""
    tuning = folder / "tuning.json"
    if tuning.is_file():
        saved = json.loads(tuning.read_text(encoding="utf-8"))
        is_class_specific = saved["options"].get("class_specific")
        return {
            "adapter": f"the tuning `{saved['tuning']}`",
            "class_names": LEARNED_NAMES if is_class_specific else ANY_NAMES,
            "library_name": "hf_pmgaft",
        }

    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        kind = json.loads(adapter.read_text(encoding="utf-8"))["peft_type"]
        return {"adapter": f"a {kind} adapter", "library_name": "peft"}
    return {}


# ---- Parts of the text ----


def _template(name: str, **values: str) -> str:
    return Template((TEMPLATES / f"{name}.md").read_text(encoding="utf-8")).substitute(values)


def _usage(title: str, model_class: str, adapter: str | None, class_names: str) -> str:
    """Code that uses the checkpoint."""
    if model_class in ENCODERS:
        return _template("usage_encoder", title=title).rstrip("\n")
    if adapter:
        return _template("usage_adapter", title=title, names=class_names).rstrip("\n")

    # Some models learned whether an image fits a text, from texts with their padding.
    is_sigmoid = model_class in BACKBONES and BACKBONES[model_class].full_text
    name = "usage_sigmoid" if is_sigmoid else "usage_softmax"
    usage = _template(name, title=title, model_class=model_class).rstrip("\n")
    if model_class in MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES.values():
        usage = _template("usage_pipeline", title=title) + "\n" + usage
    return usage


def _paper(objective: Objective) -> str:
    """The method's title, paper and equation, and where this run departs from it; the Hub finds papers by links."""
    paragraphs = inspect.cleandoc(type(objective).__doc__ or "").split("\n\n")[:2]
    changed = [f"`{name}={value}`" for name, value in _changed_options(objective).items()]
    if changed:
        paragraphs.append(f"The equation is that of the default options. This run has {', '.join(changed)}.")
    if objective.sums:
        summed = " and ".join(f"`{name}`" for name in sorted(objective.sums))
        paragraphs.append(f"Here {summed} are sums over the batch, not means.")
    text = "\n\n".join(paragraphs)
    return ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def _changed_options(objective: Objective) -> dict[str, Any]:
    """The options of an objective that are not its defaults."""
    if not is_dataclass(objective):
        return {}
    values = {field.name: getattr(objective, field.name) for field in fields(objective)}
    return {field.name: values[field.name] for field in fields(objective) if values[field.name] != field.default}


def _data(name: str | None, dataset: Any) -> str:
    """The data set in words: name, size, classes and captions, as far as they are known."""
    words = [f"`{_public_name(name)}`"] if name else []
    if hasattr(dataset, "__len__"):
        words.append(f"{len(dataset):,} images")
    class_names = getattr(dataset, "class_names", None)
    if class_names:
        words.append(f"{len(class_names)} classes")
    if getattr(dataset, "captions", None):
        words.append("captions")
    commit = (getattr(dataset, "source", None) or {}).get("commit")
    if commit:
        words.append(f"commit {commit}")
    return ", ".join(words) or "not named"


def _weights(config: PMGAFTConfig) -> str:
    tuned = "of the last step" if config.ema_decay is None else f"moving average, decay {config.ema_decay}"
    return tuned if config.wise_ft is None else f"{config.wise_ft} of the tuned ({tuned}), the rest the original's"


def _threat(objective: Objective, config: PMGAFTConfig) -> str:
    """The threat model of training; radii as they were written, since 4/255 says more than 0.0157."""
    if not objective.uses_attack:
        noise = "" if config.noise_sigma is None else f"; normal noise of sigma {config.noise_sigma} on each image"
        return f"none: no adversarial images{noise}"
    attack = {
        "attack": config.attack,
        "loss": "ce",
        **config.attack_options(),
        "eps": config.eps,
        "step_size": config.step_size,
        "precision": None if config.attack_precision == "follow" else config.attack_precision,
    }
    if objective.steers_attack:
        attack["loss"] = "the objective's"
    return listed(attack)


def _texts(training: Mapping[str, Any]) -> dict[str, str]:
    """Class names, prompts, captions and pixel statistics of a record, as far as it has them."""
    rows = {}
    if "class_names" in training:
        names = training["class_names"]
        first = ", ".join(f"`{name}`" for name in names["first"])
        more = ", ..." if names["count"] > len(names["first"]) else ""
        rows["class names"] = f"{names['count']}: {first}{more} (digest `{names['digest']}`)"
        templates = ", ".join(f"`{template}`" for template in training["prompt_templates"])
        learned = training.get("learned_context")
        rows["prompts"] = f"{learned} learned tokens and the name; without them {templates}" if learned else templates
    if "captions" in training:
        rows["captions"] = ", ".join(f"`{column}`" for column in training["captions"])
    if "image_mean" in training:
        rows["pixel statistics"] = _statistics(training)
    return rows


def _statistics(values: Mapping[str, Any]) -> str:
    """Mean and standard deviation of a record or of a report's model."""
    mean, std = (", ".join(f"{value:.4g}" for value in values[key]) for key in ("image_mean", "image_std"))
    return f"mean {mean}; standard deviation {std}"


def _training_rows(
    objective: Objective, tuning: Tuning, config: PMGAFTConfig, data: str, training: Mapping[str, Any]
) -> str:
    length = f"{config.max_steps} steps" if config.max_steps > 0 else f"{config.num_train_epochs} epochs"
    rows = {
        "data": data,
        **_texts(training),
        "objective options": listed(vars(objective)) or "none",
        "threat model of training": _threat(objective, config),
        "trained": tuning.describe(),
        "weights": _weights(config),
        "optimizer": f"{config.optim.value}, learning rate {config.learning_rate}, weight decay {config.weight_decay}",
        "gradient clipping": f"to norm {config.max_grad_norm:g}" if config.max_grad_norm else "none",
        "schedule": f"{config.lr_scheduler_type.value}, warm-up {config.warmup_steps:g}, {length}",
        "batch": _batch(config),
        "augmentation, seed": f"{config.augmentation}, {config.seed}",
        "precision": "bf16" if config.bf16 else "fp16" if config.fp16 else "fp32",
    }
    return "\n".join(f"| {key} | {value} |" for key, value in rows.items())


def _batch(config: PMGAFTConfig) -> str:
    """Images per step, and how they come about."""
    factors = (config.train_batch_size, config.gradient_accumulation_steps, config.world_size)
    return f"{math.prod(factors)} = {' x '.join(map(str, factors))} (a device, accumulated, devices)"


def all_results(
    before: RobustnessReport | None, after: RobustnessReport | None, final: RobustnessReport | None = None
) -> str:
    """The text of a card's results: a block for each protocol, between marks by which it is found again."""
    if after is None and final is None:
        return NOT_EVALUATED
    blocks = []
    if after is not None:
        blocks.append(result_block(after, before))
    if final is not None:
        blocks.append(result_block(final))
    return "\n\n".join(blocks)


def result_block(report: RobustnessReport, before: RobustnessReport | None = None) -> str:
    """The figures of one report, and those before training of the same protocol, between marks."""
    start, end = (mark.format(report.protocol_hash) for mark in MARKS)
    return f"{start}\n{_results(before, report)}\n{end}"


def _results(before: RobustnessReport | None, after: RobustnessReport) -> str:
    """Protocol, figures before and after, what each attack left standing, and flags."""
    # By which protocol
    lines = [f"{after.measure} in %, protocol `{after.protocol_hash}`. Robust is the worst case over:", ""]
    lines += [f"- {spec.name} ({listed(spec.to_dict())})" for spec in after.headline_attacks]
    lines += ["", f"Verdict: {after.verdict}."]
    if "seed" in after.protocol:
        lines += ["", f"`pmgaft evaluate` draws noise and images as here with `--seed {after.protocol['seed']}`."]
    how = [*after.defence, *after.transfer, *after.retrieval, *after.segmentation]
    if how:
        lines += ["", *(f"- {text}" for text in how)]
    if "suite" in after.provenance:
        lines += ["", f"Suite: `{after.provenance['suite']}`, {len({result.dataset for result in after.sets})} sets."]
    if before and before.protocol_hash != after.protocol_hash:
        lines += [f"The figures before are of another protocol (`{before.protocol_hash}`): do not compare them."]
    if before and has_other_statistics(before, after):
        lines += ["", f"The figures before are of the model as it came, with {_statistics(before.model)}."]

    # Figures
    lines += ["", *_result_table(before, after)]
    standing = after.attack_rows()
    if len(standing) > 2:  # the header and more than one attack
        lines += ["", "What each attack left standing in %, mean over the sets:", "", render(standing, "markdown")]

    written = after.written_rows()
    if written:
        lines += ["", "Of images that were written on, in %, mean over the sets:", "", render(written, "markdown")]

    # What is not in them
    for name, reason in after.provenance.get("missing", {}).items():
        lines += ["", f"**{name} is missing** from these figures: {reason}"]

    # Whether to believe them
    if after.flags:
        lines += ["", "**Do not believe these figures yet:**", ""]
        lines += [f"- {flag['flag']} ({flag['set']}): {flag['message']}" for flag in after.flags]
    else:
        lines += ["", "No flag was raised."]
    return "\n".join(lines)


def _result_table(before: RobustnessReport | None, after: RobustnessReport) -> list[str]:
    """A line per set, before and after side by side, and one of the means."""
    counted = "images" if all(figure.counts_images for figure in after.figures) else "queries"
    lines = [
        f"| set | {counted} | clean before | clean after | robust before | robust after | 95 % interval |",
        "|" + 7 * "---|",
    ]

    old_sets = {result.name: result for result in before.sets} if before else {}
    for new in after.sets:
        old = old_sets.get(new.name)
        cells = [percent(getattr(result, key, None)) for key in FIGURES for result in (old, new)]
        lines.append(f"| {new.name} | {new.num_samples} | {' | '.join(cells)} | {span(*new.robust_interval)} |")

    means = [percent(report.mean(key) if report else None) for key in FIGURES for report in (before, after)]
    lines.append(f"| {mean_name(after)} | | {' | '.join(means)} | |")
    return lines


# ---- Names and licence ----


def _public_name(name: str) -> str:
    """A Hub id as it is; of a path only its last name, so that no card tells about a machine."""
    path = _without_config(name)
    return name if _is_hub_id(path) else Path(path).resolve().name


def _is_hub_id(name: str) -> bool:
    return HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def _hub_datasets(dataset_name: str | None) -> list[str] | None:
    name = _without_config(dataset_name or "")
    return [name] if _is_hub_id(name) else None


def _without_config(name: str) -> str:
    """The Hub id or path of `NAME[:config][@split][#revision]`."""
    return name.partition("#")[0].partition("@")[0].partition(":")[0]


def _licence(base_model: str) -> dict[str, str]:
    """`license`, and of an unusual one its name and link, as the base model's card says, if that can be read."""
    is_on_hub = _is_hub_id(base_model)
    try:
        readme = hf_hub_download(base_model, "README.md") if is_on_hub else Path(base_model) / "README.md"
        metadata = metadata_load(readme) or {}
    except Exception:  # offline, gated, without a card or with a broken one: the licence is not known
        return {}

    licence = {key: metadata[key] for key in ("license", "license_name", "license_link") if metadata.get(key)}
    link = licence.get("license_link")
    if is_on_hub and link is not None and "://" not in link:  # a file of that repository
        licence["license_link"] = f"https://huggingface.co/{base_model}/blob/main/{link}"
    return licence
