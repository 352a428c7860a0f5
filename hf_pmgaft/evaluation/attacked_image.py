"""`AttackedImage`: a picture before and after an attack, as 8-bit files hold it; `Seen`: what a model says of one."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from ..attacks.ball import distance
from ..attacks.spec import AttackSpec
from ..fingerprints import digest
from .protocol import describe_attack, versions


@dataclass(frozen=True, eq=False)
class Seen:
    """What one model makes of one picture.

    Args:
        probabilities (`dict[str, float]`): By class name, in the order that was passed: the softmax of the logits,
            also of a model that was trained with a sigmoid.
        attention (`torch.Tensor`, *optional*): `[h,w]`, cosines of the patch tokens with the text of one class
            (TGA-ZSR, arXiv 2410.21802); none of an encoder without such tokens, and where no class was passed.
        logits (`dict[str, float]`): By class name.

    Example:
        >>> seen = Seen({"cat": 0.73, "dog": 0.27}, None, {"cat": 2.0, "dog": 1.0})
        >>> seen.prediction, seen.margin("dog")
        ('cat', -1.0)
    """

    probabilities: dict[str, float]
    attention: torch.Tensor | None
    logits: dict[str, float]

    @property
    def prediction(self) -> str:
        """The class of the largest logit."""
        return max(self.logits, key=self.logits.__getitem__)

    def top(self, count: int) -> list[tuple[str, float]]:
        """The most likely classes with their probabilities."""
        names = sorted(self.logits, key=self.logits.__getitem__, reverse=True)
        return [(name, self.probabilities[name]) for name in names[:count]]

    def margin(self, label: str) -> float:
        """The logit of a class minus the largest of the others: above 0 it is predicted."""
        return self.logits[label] - max(logit for name, logit in self.logits.items() if name != label)


@dataclass(frozen=True, eq=False)
class AttackedImage:
    """A picture and what an attack on one model made of it, and what that model says of both.

    Args:
        label (`str`): The right class; where none was passed, what the model said of the clean picture.
        target (`str`, *optional*): The class to reach, of a targeted attack.
        attack (`AttackSpec`): The attack.
        images (`torch.Tensor`): `[2,3,H,W]` in [0,1], float32, on levels of 8 bits: the clean picture and the
            adversarial one at the model's own size, inside the ball.
        before, after (`Seen`): What the model says of exactly these images.
        margins (`list[float]`): The margin at each forward pass of the attack, of several points at once the lowest,
            and at the end that of the adversarial image as it is here. It is the logit of `label` minus the best
            other; of a targeted attack the best other minus that of `target`. Below 0 the attack has what it wants.
        seed (`int`), row (`int`): What all noise of the attack follows from.
        reads_back (`bool`): Whether the model's processor makes this very image of the saved file. One that resizes to
            more than it crops does not: it enlarges the file first.

    Example:
        >>> from hf_pmgaft.evaluation import attack_image
        >>> picture, attack = dataset[1]["image"], "fgsm,eps=8/255"
        >>> attacked = attack_image(model, processor, picture, class_names, attack, label="green disc")
        >>> attacked.label, attacked.images.shape, attacked.png()[1:4]
        ('green disc', torch.Size([2, 3, 16, 16]), b'PNG')
    """

    label: str
    target: str | None
    attack: AttackSpec
    images: torch.Tensor
    before: Seen
    after: Seen
    margins: list[float]
    seed: int = 0
    row: int = 0
    reads_back: bool = True

    @property
    def fell(self) -> bool:
        """Whether the attack has what it wants: another class than the label or, if it has one, its target."""
        if self.target is not None:
            return self.after.prediction == self.target
        return self.after.prediction != self.label

    @property
    def verdict(self) -> str:
        """What the model says of exactly these 8-bit images, in a sentence or two that name the attack."""
        before, after = self.before.prediction, self.after.prediction
        said = f"{before!r} ({self.before.probabilities[before]:.1%}) before the attack"
        then = f"{after!r} ({self.after.probabilities[after]:.1%}) after {self.attack.name}"
        if self.target is not None:
            reached = "reaches" if self.fell else "does not reach"
            verdict = f"The attack {reached} its target {self.target!r}: the model says {said}, {then}."
        elif before != self.label:
            verdict = f"The model is wrong without an attack: {self.label!r} is right, it says {said}, {then}."
        elif self.fell:
            verdict = f"The model is fooled: it says {said}, {then}."
        else:
            verdict = (
                f"The model stands against this attack, which is no proof against others: it says {said}, {then}."
            )
        if torch.equal(*self.images):
            verdict += " No pixel of the 8-bit image has changed."
        return verdict

    @property
    def clean_picture(self) -> Image.Image:
        """The clean picture at the model's own size."""
        return to_picture(self.images[0])

    @property
    def picture(self) -> Image.Image:
        """The adversarial picture at the model's own size."""
        return to_picture(self.images[1])

    @property
    def magnification(self) -> float:
        """By what the perturbation is multiplied in its picture, so that its largest change is black or white."""
        largest = (self.images[1] - self.images[0]).abs().amax().item()
        return 0.5 / largest if largest else 1.0

    @property
    def perturbation_picture(self) -> Image.Image:
        """The magnified perturbation around mid-grey."""
        return to_picture(0.5 + self.magnification * (self.images[1] - self.images[0]))

    def png(self) -> bytes:
        """The adversarial picture as an 8-bit PNG."""
        return png_of(self.picture)

    def to_dict(self) -> dict[str, Any]:
        """All that is to be known of it, in types that JSON has; images by their digests."""
        norms = {name: distance(*self.images.split(1), name).item() for name in ("linf", "l2", "l1")}
        return {
            "attack": {"name": self.attack.name, "threat": self.attack.threat, **describe_attack(self.attack)},
            "label": self.label,
            "target": self.target,
            "seed": self.seed,
            "row": self.row,
            "verdict": self.verdict,
            "fell": self.fell,
            "before": {"prediction": self.before.prediction, "probabilities": self.before.probabilities},
            "after": {"prediction": self.after.prediction, "probabilities": self.after.probabilities},
            "margins": self.margins,
            "perturbation": {**norms, "largest_change_in_levels": round(255 * norms["linf"])},
            "sha256": {"clean": digest([png_of(self.clean_picture)]), "adversarial": digest([self.png()])},
            "reads_back": self.reads_back,
            "dtype": "float32",
            "versions": versions(),
        }


def to_picture(image: torch.Tensor) -> Image.Image:
    """An image `[3,H,W]` in [0,1] as a picture of 8 bits.

    Example:
        >>> to_picture(images[0]).size
        (16, 16)
    """
    levels = image.detach().clamp(0, 1).mul(255).round().byte()
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().cpu().numpy())


def png_of(picture: Image.Image) -> bytes:
    """A picture as the content of a PNG file.

    Example:
        >>> png_of(to_picture(images[0])) == png_of(to_picture(images[0]))
        True
    """
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
