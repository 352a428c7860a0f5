"""The protocol of an evaluation: everything that its figures depend on but the model."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import __version__
from ..attacks.options import AUTOATTACK
from ..attacks.spec import AttackSpec
from ..fingerprints import digest_of_list, fingerprint
from ..models.backbones import get_encoder, unwrap_peft
from ..models.processors import pixel_statistics
from .plan import Plan
from .verdicts import VERDICTS

_FILES = ("file", "font")  # options of attacks that are paths
PACKAGES = ("torch", "transformers", "datasets", "pillow", "torchvision")


def make_protocol(
    model: nn.Module, plans: Sequence[Plan], attacks: Sequence[AttackSpec], verdict: str, eight_bit: bool, seed: int
) -> dict[str, Any]:
    """The protocol in types that JSON has. Reports of one protocol can be compared."""
    eight_bit: bool | str = eight_bit
    if eight_bit and any(spec.norm in ("l1", "l2") for spec in attacks):
        eight_bit = "inside the ball"  # where earlier versions rounded out of it
    return {
        "attacks": [describe_attack(spec) for spec in attacks],
        "headline": attacks[0].threat,
        "verdict": VERDICTS[verdict],
        "eight_bit": eight_bit,
        **conditions(model, plans, seed),
    }


def conditions(model: nn.Module, plans: Sequence[Plan], seed: int) -> dict[str, Any]:
    """What figures depend on whatever is measured: sets, seed, device and versions.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset
        >>> plan = Plan.of(ZeroShotDataset(dataset, processor, name="food"), [])
        >>> list(conditions(model, [plan], seed=0))
        ['sets', 'seed', 'dtype', 'device', 'versions']
    """
    image_size = get_encoder(model).image_size(unwrap_peft(model))
    device = next(model.parameters()).device
    return {
        "sets": {plan.name: _describe_set(plan, image_size) for plan in plans},
        "seed": seed,
        "dtype": "float32",
        "device": device.type if device.type == "cpu" else torch.cuda.get_device_name(device),
        "versions": versions(plans),
    }


def describe_model(model: nn.Module, processor: Any) -> dict[str, Any]:
    """The model: a fingerprint of its weights, its logit scale and its processor's statistics.

    Example:
        >>> list(describe_model(model, processor))
        ['fingerprint', 'logit_scale', 'image_mean', 'image_std']
    """
    mean, std = pixel_statistics(processor)
    backbone = get_encoder(model)
    plain = unwrap_peft(model)
    bias = backbone.logit_bias(plain).item()

    described = {"fingerprint": fingerprint(model), "logit_scale": round(backbone.logit_scale(plain).item(), 4)}
    if bias:
        described["logit_bias"] = round(bias, 4)
    return {**described, "image_mean": mean, "image_std": std}


def _describe_set(plan: Plan, image_size: int) -> dict[str, Any]:
    """One set in the protocol. Captions of a gallery stand under the keys of classes, as in older reports."""
    data = plan.data
    entry = {
        "num_samples": len(plan.rows),
        "sample_ids": digest_of_list(plan.rows),
        "class_names": digest_of_list(plan.texts),
        "num_classes": len(plan.texts),
        "prompt_templates": data.prompt_templates,
        "attacked_at": _attacked_at(plan, image_size),
    }

    # Named only where it is in use, so that the hashes of all other sets are those of older reports.
    if data.resize is not None:
        entry["resize"] = data.resize
    if data.border:
        entry["border"] = data.border
    if data.is_counted:
        entry["num_images"] = len(data)
    if plan.gallery is not None:
        entry["retrieval"] = plan.gallery.describe()
    entry["attacks"] = plan.names
    return entry


def describe_attack(spec: AttackSpec) -> dict[str, Any]:
    """An attack in the protocol, without the folders of its files, so that no report tells about a machine.

    Example:
        >>> describe_attack(AttackSpec.parse("fgsm,eps=4/255,source=/home/me/robust"))["source"]
        'robust'
    """
    entry = spec.to_dict()
    if spec.source is not None:
        entry["source"] = spec.source_name
    return {key: Path(value).name if key in _FILES and value else value for key, value in entry.items()}


def _attacked_at(plan: Plan, image_size: int) -> int | list[int] | str:
    if plan.is_segmented:
        return "the size of each image"
    return list(plan.data.shape[-2:]) if plan.data.native_size else image_size


def versions(plans: Sequence[Plan] = ()) -> dict[str, str | None]:
    """The versions of what figures depend on.

    Example:
        >>> list(versions())[:3]
        ['hf_pmgaft', 'python', 'torch']
    """
    packages = list(PACKAGES)
    if any(spec.attack in AUTOATTACK for plan in plans for spec in plan.attacks):
        packages.append("pyautoattack")
    own = {"hf_pmgaft": __version__, "python": platform.python_version()}
    return {**own, **{name: _version(name) for name in packages}}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
