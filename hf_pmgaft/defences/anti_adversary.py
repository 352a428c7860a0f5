"""Anti-adversary: the image is moved so that its predicted class becomes more certain."""

from __future__ import annotations

import torch

from ..attacks.ball import parse_step_size
from ..attacks.losses import gradient_of
from ..modes import at_least_float32
from ..registry import check_count
from ..zero_shot.classifier import ZeroShotClassifier
from .defence import PixelDefence


class AntiAdversary(PixelDefence):
    """The anti-adversary layer (Alfarra et al., AAAI 2022, arXiv 2103.14347).

    With `y` the class predicted at x, from `d = 0` k times `d <- d - a sign grad CE(x + d, y)`; then predicts at
    `x + d`. There is no radius and no clipping to [0,1]: at the authors' step of 0.15 a pixel moves by up to 0.3, so
    that what is classified is no image any more. A small step, such as `step_size="1/255"` with `num_steps=4`, is
    another defence than theirs; tables name what is off the default.

    Signs have no derivative and nothing is clipped, so that `straight_through` is `through` again.

    Args:
        classifier (`ZeroShotClassifier`): The bare one.
        num_steps (`int`): k.
        step_size (`float` or `str`): a, in the scale of images in [0,1].

    Raises:
        ValueError: for what is no length, or no number of steps.

    Example:
        >>> from hf_pmgaft import ZeroShotClassifier, encode_class_names
        >>> class_embeds = encode_class_names(model, processor, class_names)
        >>> classifier = ZeroShotClassifier.from_model(model, processor, class_embeds)
        >>> defence = AntiAdversary(classifier, num_steps=4, step_size="1/255")
        >>> before, after = classifier(images).softmax(1), defence(images).softmax(1)
        >>> bool((after.amax(1) > before.amax(1)).all())
        True
    """

    title = "anti-adversary"
    attackers = ("unaware", "through")

    def __init__(self, classifier: ZeroShotClassifier, *, num_steps: int = 2, step_size: float | str = 0.15):
        super().__init__(classifier)
        self.num_steps = check_count("num_steps", num_steps)
        self.step_size = parse_step_size(step_size, eps=1.0)

    def purify(self, images: torch.Tensor, seeds: torch.Tensor | None) -> torch.Tensor:
        delta = torch.zeros_like(images)
        labels = None
        for _ in range(self.num_steps):
            with torch.enable_grad():
                points = (images.detach() + delta).requires_grad_()
                logits = at_least_float32(self.classifier(points))
                labels = logits.argmax(1, keepdim=True) if labels is None else labels

                # Cross-entropy is softplus of this: of the same signs, but round-off where the class is certain.
                others = logits.scatter(1, labels, -torch.inf).logsumexp(1)
                margin = (others - logits.gather(1, labels).squeeze(1)).sum()

            delta = delta - self.step_size * gradient_of(margin, points).sign().to(images.dtype)
        return images + delta
