"""`evaluate_robustness`: zero-shot sets x attacks -> a report whose every number names its attack and protocol."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from tqdm.auto import tqdm

from .attacks import ATTACKS, frozen, parse_radius, sample_seeds
from .backbones import unwrap_peft
from .data import ZeroShotDataset
from .engines import full_precision
from .zero_shot import ZeroShotClassifier, encode_class_names, pixel_statistics

DEFAULT_ATTACK = {"attack": "pgd", "eps": "1/255", "norm": "linf", "num_steps": 20, "loss": "margin"}


@dataclass
class SetResult:
    """Figures of one set. Accuracies are fractions; `robust_accuracy` is the worst case per image over all attacks."""

    name: str
    num_classes: int
    num_samples: int
    clean_accuracy: float
    robust_accuracy: float
    attacks: dict[str, float]
    verdicts: dict[str, list] = field(default_factory=dict, repr=False)

    @property
    def robust_interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the robust accuracy."""
        return wilson_interval(self.robust_accuracy, self.num_samples)


@dataclass
class RobustnessReport:
    """What `evaluate_robustness` found, with the protocol that it followed."""

    protocol: dict[str, Any]
    sets: list[SetResult]

    @property
    def mean_clean_accuracy(self) -> float:
        """Mean over sets, each counting the same."""
        return self.mean("clean_accuracy")

    @property
    def mean_robust_accuracy(self) -> float:
        """Mean over sets of the worst case over attacks."""
        return self.mean("robust_accuracy")

    @property
    def protocol_hash(self) -> str:
        """Reports with equal hashes differ in the model alone."""
        text = json.dumps(self.protocol, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def mean(self, key: str, leave_out: str | None = None) -> float:
        """Mean of a figure over the sets, without the one named `leave_out`."""
        values = [getattr(result, key) for result in self.sets if result.name != leave_out]
        return sum(values) / len(values) if values else math.nan

    def metrics(self, prefix: str = "eval") -> dict[str, float]:
        """Flat figures for logs: `eval_<set>_clean_accuracy`, ..., and the means over sets."""
        flat = {}
        for result in self.sets:
            flat[f"{prefix}_{result.name}_clean_accuracy"] = result.clean_accuracy
            flat[f"{prefix}_{result.name}_robust_accuracy"] = result.robust_accuracy
        flat[f"{prefix}_mean_clean_accuracy"] = self.mean_clean_accuracy
        flat[f"{prefix}_mean_robust_accuracy"] = self.mean_robust_accuracy
        return flat

    def to_dict(self) -> dict[str, Any]:
        """Everything, in types that JSON has."""
        return {
            "protocol": self.protocol,
            "protocol_hash": self.protocol_hash,
            "mean_clean_accuracy": self.mean_clean_accuracy,
            "mean_robust_accuracy": self.mean_robust_accuracy,
            "sets": [asdict(result) | {"robust_interval_95": result.robust_interval} for result in self.sets],
        }

    def save(self, file: str | os.PathLike) -> None:
        """Writes the report as JSON."""
        Path(file).write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, file: str | os.PathLike) -> RobustnessReport:
        """Reads a report that `save` wrote."""
        data = json.loads(Path(file).read_text(encoding="utf-8"))
        names = SetResult.__dataclass_fields__
        return cls(
            data["protocol"], [SetResult(**{k: v for k, v in row.items() if k in names}) for row in data["sets"]]
        )


def evaluate_robustness(
    model: nn.Module,
    processor: Any,
    sets: Mapping[str, ZeroShotDataset] | Sequence[ZeroShotDataset],
    attacks: Sequence[Mapping[str, Any]] = (DEFAULT_ATTACK,),
    *,
    batch_size: int = 64,
    max_samples: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> RobustnessReport:
    """Clean and robust zero-shot accuracy of a dual encoder, in float32 and eval mode.

    An image counts as robust if it is classified correctly clean and after each attack (last iterate). Images that
    are misclassified clean, or fooled at a smaller radius of the same norm, count as fooled at once. All randomness
    follows from the seed and the image's row, so the verdicts depend neither on the batch size nor on the order.

    Args:
        model (`CLIPModel` or PEFT model): On any device; left as it was.
        processor (`CLIPProcessor`): Its tokenizer makes the prompts, its statistics normalise the images.
        sets (`dict` or list of `ZeroShotDataset`): Each with its own class names and templates.
        attacks (list of `dict`): Each `{"attack": name, "eps": "4/255", ...}` with the attack's own options.
        batch_size (`int`): Images at once.
        max_samples (`int`, *optional*): Images per set, chosen by the seed; all if not given.
        seed (`int`): Of the attacks' noise and the choice of images.
        progress (`bool`): Whether to show a progress bar.
    """
    sets = list(sets.values()) if isinstance(sets, Mapping) else list(sets)
    if not sets:
        raise ValueError("You passed no evaluation sets. Pass at least one `ZeroShotDataset`.")
    # An image that is fooled inside a ball is fooled inside every larger ball of the same norm.
    attacks = sorted(map(check_attack, attacks), key=lambda spec: parse_radius(spec["eps"], spec.get("norm", "linf")))
    samples = {data.name: sample_ids(len(data), max_samples, seed) for data in sets}
    if len(samples) != len(sets):
        raise ValueError(f"Two evaluation sets share a name: {[data.name for data in sets]}. Give each its own.")
    if next(model.parameters()).dtype != torch.float32:
        model = copy.deepcopy(model).float()
    results = []
    bar = tqdm(total=sum(map(len, samples.values())), desc="Evaluating", unit="img", disable=not progress)
    with full_precision(model), frozen(model), bar:
        for data in sets:
            bar.set_postfix_str(data.name)
            embeds = encode_class_names(model, processor, data.class_names, data.prompt_templates)
            classifier = ZeroShotClassifier.from_model(model, processor, embeds)
            results.append(_evaluate_set(classifier, data, samples[data.name], attacks, batch_size, seed, bar))
    return RobustnessReport(_protocol(model, processor, sets, samples, attacks, seed), results)


def check_attack(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of an attack's description, or a `ValueError` that says what is wrong with it."""
    spec = dict(spec)
    if spec.get("attack") not in ATTACKS:
        raise ValueError(f"There is no attack {spec.get('attack')!r}. Choose one of {sorted(ATTACKS)}.")
    if "eps" not in spec:
        raise ValueError(f"The attack {spec} has no radius. Add eps, such as '4/255'.")
    parse_radius(spec["eps"], spec.get("norm", "linf"))
    return spec


def attack_name(spec: Mapping[str, Any]) -> str:
    """An attack as tables name it, such as `PGD-20 margin linf 4/255`."""
    steps = f"-{spec['num_steps']}" if "num_steps" in spec else ""
    restarts = f" x{spec['restarts']}" if spec.get("restarts", 1) > 1 else ""
    return (
        f"{spec['attack'].upper()}{steps}{restarts} {spec.get('loss', 'ce')} {spec.get('norm', 'linf')} {spec['eps']}"
    )


def run_attack(
    spec: Mapping[str, Any], classifier: Any, images: torch.Tensor, labels: torch.Tensor, seeds: torch.Tensor
):
    """Adversarial images of one batch by an attack's description."""
    options = {name: value for name, value in spec.items() if name != "attack"}
    norm = options.get("norm", "linf")
    for name in ("eps", "step_size"):
        if options.get(name) is not None:
            options[name] = parse_radius(options[name], norm)
    return ATTACKS[spec["attack"]](classifier, images, labels, seeds=seeds, **options)


def sample_ids(size: int, max_samples: int | None, seed: int) -> list[int]:
    """Which rows of a set are evaluated: all, or `max_samples` of them, chosen by the seed."""
    if max_samples is None or max_samples >= size:
        return list(range(size))
    generator = torch.Generator().manual_seed(seed)
    return sorted(torch.randperm(size, generator=generator)[:max_samples].tolist())


def wilson_interval(accuracy: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval of a proportion (95 % by default)."""
    if n == 0:
        return (0.0, 1.0)
    centre = (accuracy + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(accuracy * (1 - accuracy) / n + z * z / (4 * n * n))
    return (max(0.0, centre - half), min(1.0, centre + half))


def _evaluate_set(classifier, data, ids, attacks, batch_size, seed, bar) -> SetResult:
    device = classifier.class_embeds.device
    clean, robust = [], {attack_name(spec): [] for spec in attacks}
    for start in range(0, len(ids), batch_size):
        rows = [data[i] for i in ids[start : start + batch_size]]
        images = torch.stack([row["images"] for row in rows]).to(device, torch.float32)
        labels = torch.tensor([row["labels"] for row in rows], device=device)
        seeds = sample_seeds(seed, 0, torch.tensor([row["sample_id"] for row in rows], device=device))
        with torch.no_grad():
            correct = classifier(images).argmax(1) == labels
        clean += correct.tolist()
        unfooled = {spec.get("norm", "linf"): correct for spec in attacks}
        for spec in attacks:
            norm = spec.get("norm", "linf")
            unfooled[norm] = _withstand(spec, classifier, images, labels, seeds, unfooled[norm])
            robust[attack_name(spec)] += unfooled[norm].tolist()
        bar.update(len(rows))
    worst = [all(verdicts) for verdicts in zip(clean, *robust.values(), strict=True)]
    verdicts = {"clean": clean, "robust": worst, **robust}
    return SetResult(
        name=data.name,
        num_classes=len(data.class_names),
        num_samples=len(ids),
        clean_accuracy=sum(clean) / len(ids),
        robust_accuracy=sum(worst) / len(ids),
        attacks={name: sum(verdicts) / len(ids) for name, verdicts in robust.items()},
        verdicts={"sample_id": ids, **{name: [*map(int, mask)] for name, mask in verdicts.items()}},
    )


def _withstand(spec, classifier, images, labels, seeds, candidates: torch.Tensor) -> torch.Tensor:
    """Which of the candidate images are classified correctly after an attack, as a mask over the batch."""
    verdict = candidates.clone()
    if candidates.any():
        kept = images[candidates]
        adversarial = run_attack(spec, classifier, kept, labels[candidates], seeds[candidates])
        _check_ball(spec, kept, adversarial)
        with torch.no_grad():
            verdict[candidates] = classifier(adversarial).argmax(1) == labels[candidates]
    return verdict


def _check_ball(spec: Mapping[str, Any], images: torch.Tensor, adversarial: torch.Tensor) -> None:
    norm = spec.get("norm", "linf")
    delta = (adversarial - images).flatten(1)
    length = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    inside = (length <= parse_radius(spec["eps"], norm) * (1 + 1e-5) + 1e-7) & torch.isfinite(length)
    if not inside.all() or adversarial.min() < 0 or adversarial.max() > 1:
        raise RuntimeError(f"{attack_name(spec)} returned images outside its ball or outside [0,1].")


def _protocol(model, processor, sets, samples, attacks, seed) -> dict[str, Any]:
    mean, std = pixel_statistics(processor)
    plain = unwrap_peft(model)
    return {
        "attacks": [{name: value for name, value in spec.items() if value is not None} for spec in attacks],
        "verdict": "last iterate; misclassified clean or fooled at a smaller radius of the norm counts as fooled",
        "sets": {
            data.name: {
                "num_samples": len(samples[data.name]),
                "sample_ids": _digest(samples[data.name]),
                "class_names": _digest(data.class_names),
                "prompt_templates": data.prompt_templates,
                "attacked_at": "native size" if data.native_size else plain.config.vision_config.image_size,
            }
            for data in sets
        },
        "image_mean": mean,
        "image_std": std,
        "logit_scale": round(plain.logit_scale.detach().float().exp().item(), 4),
        "seed": seed,
        "dtype": "float32",
        "device": next(model.parameters()).device.type,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def _digest(values: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(list(values)).encode()).hexdigest()[:12]
