"""What `pmgaft attack` prints and writes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..evaluation.attacked_image import AttackedImage, Seen, png_of
from ..evaluation.protocol import describe_model
from ..evaluation.single_image import PictureClassifier
from ..evaluation.tables import render
from ..files import whole_folder
from ..models.record import model_record

REPORT = "attack.json"


@dataclass(frozen=True)
class Attacked:
    """A picture that was attacked on some models.

    Args:
        title (`str`): What the picture is called.
        images (`dict` of `AttackedImage`): By the model's name.
        places (`list[str]`): Where the models are from, in the same order.
        classifiers (`dict` of `PictureClassifier`): By the model's name.
    """

    title: str
    images: Mapping[str, AttackedImage]
    places: Sequence[str]
    classifiers: Mapping[str, PictureClassifier]

    @cached_property
    def transfer(self) -> dict[str, dict[str, Seen]]:
        """What each model says of the adversarial picture that was made on each: by source, and then by judge."""
        if len(self.images) < 2:
            return {}
        return {source: self._judged(source) for source in self.images}

    def _judged(self, source: str) -> dict[str, Seen]:
        attacked = self.images[source]
        return {
            judge: attacked.after if judge == source else classifier.classify(attacked.picture)
            for judge, classifier in self.classifiers.items()
        }


# ---- Files ----


def write(attacked: Attacked, folder: str) -> dict[str, list[Path]]:
    """Writes the adversarial picture and the perturbation of each model, and the whole as JSON.

    Returns:
        `dict` of `list[Path]`: The two pictures by the model's name.
    """
    files = {}
    with whole_folder(folder) as unfinished:
        for name, stem in zip(attacked.images, stems_of(list(attacked.images)), strict=True):
            image = attacked.images[name]
            (unfinished / f"{stem}.png").write_bytes(image.png())
            (unfinished / f"{stem}-perturbation.png").write_bytes(png_of(image.perturbation_picture))
            files[name] = [Path(folder) / f"{stem}.png", Path(folder) / f"{stem}-perturbation.png"]
        report = _report(attacked, files)
        (unfinished / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return files


def _report(attacked: Attacked, files: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """All that was asked and seen, in types that JSON has."""
    # Each model under its own attack
    models = {}
    for (name, image), place in zip(attacked.images.items(), attacked.places, strict=True):
        classifier = attacked.classifiers[name]
        models[name] = {
            "model": {
                **model_record(classifier.model, place),
                **describe_model(classifier.model, classifier.processor),
            },
            "files": [file.name for file in files[name]],
            "magnification": image.magnification,
            **image.to_dict(),
        }

    # And on the images that were made on the others
    transfer = {
        source: {
            judge: {"prediction": seen.prediction, "probabilities": seen.probabilities, "fooled": fooled}
            for judge, seen in judged.items()
            for fooled in [_fooled(attacked.images[source], seen)]
        }
        for source, judged in attacked.transfer.items()
    }

    first = next(iter(attacked.classifiers.values()))
    return {
        "picture": attacked.title,
        "class_names": first.class_names,
        "prompt_templates": first.prompt_templates,
        "models": models,
        "transfer": transfer,
    }


def stems_of(names: Sequence[str]) -> list[str]:
    """What the files of models are called, each differently.

    Example:
        >>> stems_of(["emoji/model", "user/clip"])
        ['emoji-model', 'user-clip']
    """
    stems = [re.sub(r"[^\w.]+", "-", name).strip("-.") or "model" for name in names]
    files = [f"{stem.lower()}{end}" for stem in stems for end in ("", "-perturbation")]
    if len(set(files)) < len(files):
        return [f"{number}-{stem}" for number, stem in enumerate(stems, start=1)]
    return stems


# ---- What is printed ----


def show(attacked: Attacked, files: Mapping[str, Sequence[Path]], top: int, style: str) -> None:
    """Prints predictions before and after, the margin and the verdict of each model, and what others say."""
    for name, image in attacked.images.items():
        classes = f"{len(image.before.logits)} classes, seed {image.seed}"
        print(f"{name} on {attacked.title}: {image.attack.name}, {classes}")
        print(render(prediction_rows(image, top), style), end="\n\n")
        print(margin_line(image))
        print(f"Of the 8-bit file {files[name][0]}: {image.verdict}")
        if not image.reads_back:
            print("The model's processor enlarges that file before it crops: give it the file without resizing.")
        factor = f"{image.magnification:.4g}"
        print(f"The perturbation by {image.attack.name}, times {factor} around grey: {files[name][1]}", end="\n\n")

    if attacked.transfer:
        (attack,) = {image.attack.name for image in attacked.images.values()}
        print(f"Made by {attack} on the model of a row, judged by that of a column:")
        print(render(transfer_rows(attacked), style), end="\n\n")
    folder = next(iter(files.values()))[0].parent
    print(f"All figures are in {folder / REPORT}.")


def prediction_rows(image: AttackedImage, top: int) -> list[list[str]]:
    """The most likely classes before and after, with their probabilities in percent.

    Example:
        >>> from hf_pmgaft.evaluation import attack_image
        >>> attack, options = "pgd,eps=32/255,num_steps=5", {"prompt_templates": "a photo of the {}"}
        >>> attacked = attack_image(model, processor, dataset[1]["image"], class_names, attack, **options)
        >>> for row in prediction_rows(attacked, top=1):
        ...     print(" | ".join(row))
        class | before, % | after PGD-5 ce linf 32/255, %
        green disc (label) | 100.0 | 0.0
        blue square | 0.0 | 100.0
    """
    rows = [["class", "before, %", f"after {image.attack.name}, %"]]
    names = dict.fromkeys(name for seen in (image.before, image.after) for name, _ in seen.top(top))
    for name in names:
        mark = {image.label: " (label)", image.target: " (target)"}.get(name, "")
        values = [100 * seen.probabilities[name] for seen in (image.before, image.after)]
        rows.append([name + mark, *(f"{value:.1f}" for value in values)])
    return rows


def margin_line(image: AttackedImage) -> str:
    """The margin at the clean picture and at the adversarial one, in a sentence."""
    passes = len(image.margins) - 1
    if image.target is None:
        what, first = f"Logit of {image.label!r} above the best other", image.before.margin(image.label)
    else:
        what, first = f"Best other logit above that of {image.target!r}", -image.before.margin(image.target)
    name = image.attack.name
    return f"{what}: {first:.3f} before, {image.margins[-1]:.3f} after {name}, by {passes} forward passes."


def transfer_rows(attacked: Attacked) -> list[list[str]]:
    """What each model says of the pictures that were made on each."""
    rows = [["made on", *attacked.classifiers]]
    for source, judged in attacked.transfer.items():
        cells = []
        for judge, seen in judged.items():
            said = seen.prediction
            was_fooled = attacked.images[judge].before.prediction != attacked.images[source].label
            is_fooled = _fooled(attacked.images[source], seen)
            state = "stands" if not is_fooled else "wrong before" if was_fooled else "fooled"
            cells.append(f"{said} {seen.probabilities[said]:.1%}, {state}")
        rows.append([source, *cells])
    return rows


def _fooled(attacked: AttackedImage, seen: Seen) -> bool:
    """Whether a judge says what the attack wants."""
    if attacked.target is not None:
        return seen.prediction == attacked.target
    return seen.prediction != attacked.label
