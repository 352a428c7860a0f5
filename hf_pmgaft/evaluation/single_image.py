"""One picture and one model: what it says of the picture, and what an attack makes of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..attacks.expected import attack_to_the_end
from ..attacks.losses import margin
from ..attacks.passes import most_passes
from ..attacks.spec import AttackSpec
from ..data.pictures import open_picture
from ..models.backbones import get_backbone, get_encoder, unwrap, unwrap_peft
from ..models.processors import check_crop, check_image_size, image_processor_of
from ..modes import frozen, full_precision, without_tf32
from ..noise import sample_seeds
from ..prompts import DEFAULT_PROMPT_TEMPLATES, check_class_names, check_prompt_templates, check_readable
from ..registry import check_count
from ..zero_shot.classifier import ZeroShotClassifier
from ..zero_shot.text import ClassPrompts, encode_prompts
from ..zero_shot.views import text_attention
from .attacked_image import AttackedImage, Seen, to_picture
from .bare_models import check_zero_shot, in_float32
from .levels import to_floats, to_levels
from .single_image_checks import Attack, check_attack, check_image_of_set, check_name, check_target

# The number of a forward pass of an attack, from 1, and the margin there.
OnPass = Callable[[int, float], None]


class PictureClassifier:
    """One model with the texts of its classes, encoded once: it says what pictures show, and attacks them.

    All is in float32 and eval mode, as in [`evaluate_robustness`]; the model is left as it was.

    Args:
        model (dual encoder or PEFT model): On any device.
        processor (`CLIPProcessor`): Makes images of the model's size, and token ids.
        class_names (`list[str]`): Two or more.
        prompt_templates (`str` or `list[str]`, *optional*): Each with one `{}`; the package's own if not given.
        accept_any_class_names (`bool`): Whether names that a text tower cannot know, such as `n01443537`, are taken.

    Raises:
        TypeError: for a model without a text tower.
        ValueError: for class names that cannot be told apart, templates without a place for one, and a processor of
            another model.

    Example:
        >>> classifier = PictureClassifier(model, processor, class_names, "a photo of the {}")
        >>> seen = classifier.classify(dataset[1]["image"])
        >>> attacked = classifier.attack(dataset[1]["image"], "pgd,eps=32/255,num_steps=5")
        >>> seen.prediction, attacked.label, attacked.fell
        ('green disc', 'green disc', True)
    """

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        class_names: Sequence[str],
        prompt_templates: str | Sequence[str] | None = None,
        *,
        accept_any_class_names: bool = False,
    ):
        # Checks, before anything is computed
        self.class_names = check_class_names(class_names)
        if not accept_any_class_names:
            check_readable(self.class_names)
        self.prompt_templates = check_prompt_templates(
            DEFAULT_PROMPT_TEMPLATES if prompt_templates is None else prompt_templates
        )
        check_zero_shot(model, processor)
        self.processor = processor
        self.processor = processor
        self.image_processor = image_processor_of(processor)
        check_crop(self.image_processor)
        check_image_size(processor, get_encoder(model).image_size(unwrap_peft(model)))

        self.model = in_float32(model)
        with self._at_work():
            prompts = ClassPrompts.of(self.model, processor, self.class_names, self.prompt_templates)
            texts = encode_prompts(self.model, prompts)
        self.classifier = ZeroShotClassifier.from_model(self.model, processor, texts)

    def classify(self, picture: Any, label: str | None = None) -> Seen:
        """What the model says of a picture, as the processor makes it.

        Args:
            picture: As [`open_picture`] takes it; or `[3,H,W]` in [0,1], as a set gives it.
            label (`str`, *optional*): The class to whose text the attention is shown.

        Raises:
            ValueError: for a broken picture, and a label that is none of the class names.
        """
        check_name("label", label, self.class_names)
        image = self._pixels(picture).to(self.classifier.device)
        with self._at_work():
            return self._look(image, label)

    def attack(
        self,
        picture: Any,
        attack: Attack,
        *,
        label: str | None = None,
        target: str | None = None,
        seed: int = 0,
        row: int = 0,
        on_pass: OnPass | None = None,
    ) -> AttackedImage:
        """Attacks a picture, and judges the adversarial image as a file of 8 bits holds it.

        The attack goes to its end, as in [`transfer_matrix`]: walks do not stop at the first misclassified point, near
        which rounding may undo it. The end is rounded to 8 bits inside the ball. Of the several attacks of AutoAttack
        the first that fools the model is kept, or else the one that leaves the lowest margin.

        Args:
            picture: As [`open_picture`] takes it; or `[3,H,W]` in [0,1], as a set gives it.
            attack (`AttackSpec`, `dict` or `str`): Any attack on images that are classified, such as
                `"pgd,eps=4/255,num_steps=20,loss=margin"`; see [`AttackSpec`].
            label (`str`, *optional*): The right class; what the model says of the clean picture if not given.
            target (`str`, *optional*): The class to reach, by PGD or FGSM; away from the label if not given.
            seed (`int`): Of the attack's noise. The same arguments give the same image.
            row (`int`): Where in its set the picture stands, so that noise is that of an evaluation of the set.
            on_pass (`Callable`, *optional*): Called with the number of each forward pass and the margin there. What it
                raises ends the attack at once.

        Raises:
            ValueError: for a broken picture, an attack that cannot serve, and a label or target that is none of the
                class names, before anything is computed.
            RuntimeError: if the attack returns what its threat does not allow.
        """
        # Checks, before anything is computed
        spec, parts = check_attack(attack, target, len(self.class_names))
        check_name("label", label, self.class_names)
        check_name("target", target, self.class_names)
        check_target(target, label)
        check_count("row", row, least=0)
        levels, table = _levels(self._pixels(picture))
        device = self.classifier.device

        with self._at_work():
            clean = to_floats(levels, table).to(device)
            if label is None:
                label = self._look(clean, None).prediction
                check_target(target, label)
            before = self._look(clean, label)

            watched = _Watched(self.classifier, self._number(label), self._number(target), on_pass)
            seeds = sample_seeds(seed, 0, torch.tensor([row], device=device))
            best, after = clean, before
            if spec.norm is None or spec.radius > 0:  # else the ball is a point
                best, after = self._strongest(parts, clean, table, watched, seeds, label, target)

        return AttackedImage(
            label=label,
            target=target,
            attack=spec,
            images=torch.stack([clean, best]).cpu(),
            before=before,
            after=after,
            margins=[*watched.margins, _margin(after, label, target)],
            seed=seed,
            row=row,
            reads_back=self._reads_back(best.cpu()),
        )

    def most_passes(self, attack: Attack) -> int:
        """How many forward passes an attack takes at most; it may take fewer.

        Raises:
            ValueError: for an attack that cannot serve.
        """
        _, parts = check_attack(attack, None, len(self.class_names))
        return sum(most_passes(part, len(self.class_names)).forward for part in parts)

    # ---- Steps ----

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        with without_tf32(), full_precision(self.model), frozen(self.model):
            yield

    def _pixels(self, picture: Any) -> torch.Tensor:
        """`[3,H,W]` in [0,1], at the size at which the model sees it."""
        if isinstance(picture, torch.Tensor):
            return check_image_of_set(picture)
        made = self.image_processor(images=open_picture(picture), return_tensors="pt", do_normalize=False)
        return torch.as_tensor(made["pixel_values"][0]).clamp(0, 1)

    @torch.no_grad()
    def _look(self, image: torch.Tensor, label: str | None) -> Seen:
        """What the model says of an image `[3,H,W]` in [0,1]; a second pass gives the attention."""
        logits = self.classifier(image[None])[0]
        return Seen(
            probabilities=self._by_name(logits.softmax(dim=0)),
            attention=None if label is None else self._attention(image, label),
            logits=self._by_name(logits),
        )

    def _attention(self, image: torch.Tensor, label: str) -> torch.Tensor | None:
        backbone = get_backbone(unwrap(self.model))
        if backbone.patches is None:
            return None
        _, patches = backbone.image_and_patch_embeds(self.model, self.classifier.pixel_values(image[None]))
        return text_attention(patches, self.classifier.class_embeds[self._number(label)][None])[0].cpu()

    def _strongest(
        self,
        parts: Sequence[AttackSpec],
        clean: torch.Tensor,
        table: torch.Tensor,
        watched: _Watched,
        seeds: torch.Tensor,
        label: str,
        target: str | None,
    ) -> tuple[torch.Tensor, Seen]:
        """The rounded image of the first attack that has what it wants, or of the best one, and what is seen in it."""
        found: list[tuple[torch.Tensor, Seen]] = []
        for part in parts:
            image = self._attacked(part, clean[None], table, watched, seeds)[0]
            found.append((image, self._look(image, label)))
            if _margin(found[-1][1], label, target) < 0:
                return found[-1]
        return min(found, key=lambda pair: _margin(pair[1], label, target))

    def _attacked(
        self, spec: AttackSpec, clean: torch.Tensor, table: torch.Tensor, watched: _Watched, seeds: torch.Tensor
    ) -> torch.Tensor:
        """The end of one attack, rounded to 8 bits, `[1,3,H,W]`."""
        if watched.is_targeted:
            points = spec.run(watched, clean, watched.labels, seeds, targeted=True)
        else:
            points = attack_to_the_end(spec, watched, clean, watched.labels, seeds, class_names=self.class_names)
        rounded = spec.round_to_8_bits(clean, points)
        rounded = to_floats((rounded * 255).round().byte(), table.to(clean.device))
        for images in (points, rounded):
            if not spec.allows(clean, images).all():
                raise RuntimeError(f"{spec.name} left its ball or [0,1] on this picture.")
        return rounded

    def _reads_back(self, image: torch.Tensor) -> bool:
        """Whether the processor makes an image of its own file."""
        again, levels = self._pixels(to_picture(image)), (image * 255).round()
        return again.shape == image.shape and torch.equal((again * 255).round(), levels)

    # ---- Names ----

    def _number(self, name: str | None) -> int | None:
        return None if name is None else self.class_names.index(name)

    def _by_name(self, values: torch.Tensor) -> dict[str, float]:
        return dict(zip(self.class_names, values.tolist(), strict=True))


def classify_image(
    model: nn.Module,
    processor: Any,
    image: Any,
    class_names: Sequence[str],
    prompt_templates: str | Sequence[str] | None = None,
    label: str | None = None,
) -> Seen:
    """What a model says of one picture. For several, [`PictureClassifier`] encodes the class names once.

    Args:
        model, processor, class_names, prompt_templates: As of [`PictureClassifier`].
        image, label: As of [`PictureClassifier.classify`].

    Example:
        >>> template = "a photo of the {}"
        >>> seen = classify_image(model, processor, dataset[1]["image"], class_names, template, label="green disc")
        >>> seen.prediction, seen.attention.shape
        ('green disc', torch.Size([4, 4]))
    """
    return PictureClassifier(model, processor, class_names, prompt_templates).classify(image, label)


def attack_image(
    model: nn.Module,
    processor: Any,
    image: Any,
    class_names: Sequence[str],
    attack: Attack,
    *,
    label: str | None = None,
    target: str | None = None,
    prompt_templates: str | Sequence[str] | None = None,
    seed: int = 0,
    row: int = 0,
    on_pass: OnPass | None = None,
) -> AttackedImage:
    """Attacks one picture. For several, [`PictureClassifier`] encodes the class names once.

    Args:
        model, processor, class_names, prompt_templates: As of [`PictureClassifier`].
        image, attack, label, target, seed, row, on_pass: As of [`PictureClassifier.attack`].

    Example:
        >>> picture, attack = dataset[1]["image"], "pgd,eps=64/255,num_steps=5"
        >>> options = {"target": "red disc", "prompt_templates": "a photo of the {}"}
        >>> attacked = attack_image(model, processor, picture, class_names, attack, **options)
        >>> attacked.before.prediction, attacked.after.prediction, attacked.fell
        ('green disc', 'red disc', True)
    """
    classifier = PictureClassifier(model, processor, class_names, prompt_templates)
    return classifier.attack(image, attack, label=label, target=target, seed=seed, row=row, on_pass=on_pass)


# ---- What is attacked, and how ----


class _Watched:
    """A classifier that notes the margin at each pass, and tells of it."""

    def __init__(self, classifier: ZeroShotClassifier, label: int, target: int | None, on_pass: OnPass | None):
        self.classifier = classifier
        self.is_targeted = target is not None
        self.labels = torch.tensor([label if target is None else target], device=classifier.device)
        self.on_pass = on_pass
        self.margins: list[float] = []

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.classifier(images)
        best_wrong = margin(logits.detach(), self.labels.expand(len(logits)))
        self.margins.append((best_wrong if self.is_targeted else -best_wrong).amin().item())
        if self.on_pass is not None:
            self.on_pass(len(self.margins), self.margins[-1])
        return logits

    def __getattr__(self, name: str) -> Any:
        return getattr(self.classifier, name)  # what else it can do


def _margin(seen: Seen, label: str, target: str | None) -> float:
    """Above 0 the model stands: by how much the label leads or, if there is one, the target lags."""
    return seen.margin(label) if target is None else -seen.margin(target)


def _levels(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The 8-bit levels of an image, and which table leads back to the floats that the processor makes of them."""
    exact = to_levels(image)
    if exact is None:  # it was resized as floats
        return image.mul(255).round().byte(), torch.tensor(0)
    return exact[0], torch.tensor(exact[1])
