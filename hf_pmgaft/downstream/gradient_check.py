"""Whether a gradient comes through the processor of a vision-language model: one central difference on one image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..modes import frozen, without_tf32
from ..noise import uniform_noise

if TYPE_CHECKING:
    from .vlm import VisionLanguageModel

EDGE = 64  # of the image, in pixels
QUESTION, ANSWER = "What is it?", "a"
# By how much the loss is to change: above round-off, and so little that its curvature does not count.
CHANGE = 1e-3
LONGEST = 0.5 / 255  # step to that
TOLERANCE = 0.1


def check_gradient(model: VisionLanguageModel) -> None:
    """Raises `TypeError` if the gradient of an answer's loss is not the change of the loss along it.

    A processor that leaves the graph, or of whose tiles one does not pass a gradient on, makes attacks look weak.

    Args:
        model (`VisionLanguageModel`): Left as it was.
    """
    seeds = torch.zeros(1, dtype=torch.long, device=model.model.device)
    image = 0.25 + 0.5 * uniform_noise(seeds, (3, EDGE, EDGE))
    image.requires_grad_()
    try:
        pixel_values = model.pixels.inputs(image)["pixel_values"]
    except (RuntimeError, TypeError, ValueError) as error:
        raise TypeError(_refusal(model, str(error))) from error
    if not pixel_values.requires_grad:
        raise TypeError(_refusal(model, "its pixel values have none"))

    def loss(point: torch.Tensor) -> torch.Tensor:
        return model.answer_loss(point, [QUESTION], [ANSWER])[0]

    with frozen(model.model), without_tf32(), torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss(image), image)
        slope = gradient.abs().sum().item()
        if not 0 < slope < torch.inf:
            raise TypeError(_refusal(model, f"the sum of its absolute values is {slope:g}"))

        # The slope along the gradient's signs
        step = min(LONGEST, CHANGE / slope)
        with torch.no_grad():
            found = (loss(image + step * gradient.sign()) - loss(image - step * gradient.sign())).item() / (2 * step)
    if abs(found - slope) > TOLERANCE * slope:
        raise TypeError(_refusal(model, f"it says {slope:.4g} where the loss changes by {found:.4g}"))


def _refusal(model: VisionLanguageModel, reason: str) -> str:
    return (
        f"You passed a {type(model.model).__name__} with a {type(model.pixels.image_processor).__name__}, through "
        f"which no right gradient goes from the answer to the image: {reason}. Pass the family's own processor, as "
        "AutoProcessor opens it."
    )
