"""What every tuning has, and what those share that add something to a model instead of moving its weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from ..models.backbones import BACKBONES, get_backbone


@dataclass
class Tuning:
    """What of a dual encoder is trained. A subclass is a dataclass whose fields are its options."""

    def for_classes(self, class_names: Sequence[str] | None) -> Tuning:
        """The tuning for a class list, where it depends on one."""
        return self

    def prepare(self, model: nn.Module) -> nn.Module:
        """Freezes all but what is trained, adding it where need be, in place.

        Returns:
            `nn.Module`: `model`, or the model around it.
        """
        raise NotImplementedError

    def describe(self) -> str:
        """What is trained, for the model card."""
        raise NotImplementedError


class Attachment(nn.Module):
    """What a tuning adds to a `CLIPModel`, whose own weights stay as they are: the submodule `model.tuning`.

    Hooks bring it into the passes of the model. It can be switched off, which gives the frozen teacher back.

    Args:
        options (`Tuning`): Saved with the weights, so that loading knows what to build.
    """

    text_is_live = True  # class embeddings change in training, and cannot be encoded once
    num_text_tokens = 0  # learned tokens between the start token and the class name, instead of a template
    folds = False  # whether a plain model can take it in
    takes_captions = True  # whether texts that are no class prompts can be encoded

    def __init__(self, options: Tuning):
        super().__init__()
        self.options = options
        self.enabled = True
        self.at_test = True  # a model that is loaded is there to be used; training says otherwise

    def attach(self, model: nn.Module) -> nn.Module:
        """Freezes the model and joins it: submodule and hooks."""
        if not get_backbone(model).takes_prompts:
            fitting = sorted(name for name, row in BACKBONES.items() if row.takes_prompts)
            raise ValueError(
                f"You passed a {type(model).__name__} with {type(self.options).__name__}, which is made for the "
                f"modules of {' and '.join(fitting)}. Pass one of these, or another tuning: 'vision_tower', "
                "'last_blocks', 'peft'."
            )
        if attachment(model) is not None:
            raise ValueError(
                f"You passed a model that carries {type(attachment(model).options).__name__} already, and what a "
                "second one would mean is unclear. Pass the base model, or `fold_into_clip(model)` where that exists."
            )
        model.requires_grad_(False)
        model.tuning = self.to(next(model.parameters()).device)
        self.add_hooks(model)
        return model

    def add_hooks(self, model: nn.Module) -> None:
        """Registers the hooks: bound methods of this module or partials of them, which copies of the model carry over
        to their own."""
        raise NotImplementedError

    def check_classes(self, names: Sequence[str]) -> None:
        """Raises `ValueError` if prompts for these class names cannot be made."""

    def draw(self, seed: int, step: int) -> None:
        """Sets what is random in a training pass, a function of the run's seed and the step."""

    def fold(self, model: nn.Module) -> nn.Module:
        """A plain model that computes the same; `model` is left as it was.

        Raises:
            ValueError: if there is none.
        """
        raise ValueError(
            f"{type(self.options).__name__} cannot be folded into a plain CLIPModel, which has no place for learned "
            "prompts. Use the saved folder beside its base model (`load_model`), or export class embeddings "
            "(`export_class_embeds`)."
        )

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        """Switches it off: the model is what it was before training."""
        self.enabled, before = False, self.enabled
        try:
            yield
        finally:
            self.enabled = before

    @contextlib.contextmanager
    def as_at_test(self) -> Iterator[None]:
        """As it is when it is used, where that differs from training."""
        self.at_test, before = True, self.at_test
        try:
            yield
        finally:
            self.at_test = before


def attachment(model: nn.Module) -> Attachment | None:
    """What a tuning added to a plain model, if there is something."""
    return model._modules.get("tuning")


def detach(model: nn.Module) -> nn.Module:
    """Takes away, in place, what a tuning added."""
    added = model._modules.pop("tuning")
    for module in model.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key, hook in list(hooks.items()):
                if getattr(getattr(hook, "func", hook), "__self__", None) is added:
                    del hooks[key]
    return model
