"""The base of every tuning, and of the modules that some attach to a model instead of moving its weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..models.backbones import BACKBONES, get_backbone, unwrap

# Metadata of an option that came later: at its default it is not written down, so that files are as they were before.
ONLY_IF_SET = "only_if_set"


@dataclass
class Tuning:
    """Says what of a dual encoder is trained. A subclass is a dataclass whose fields are its options.

    Example:
        >>> @dataclass
        ... class LogitScale(Tuning):
        ...     def prepare(self, model):
        ...         model.requires_grad_(False)
        ...         model.logit_scale.requires_grad_(True)
        ...         return model
        >>> tuned = LogitScale().prepare(model)
        >>> [name for name, parameter in tuned.named_parameters() if parameter.requires_grad]
        ['logit_scale']
    """

    def for_classes(self, class_names: Sequence[str] | None) -> Tuning:
        """The tuning for a class list, where it depends on one."""
        return self

    def for_tokenizer(self, tokenizer: Any) -> Tuning:
        """The tuning for a tokenizer, where its start is given as words."""
        return self

    def prepare(self, model: nn.Module) -> nn.Module:
        """Freezes all but what is trained, attaching it where need be, in place.

        Returns:
            `nn.Module`: `model`, or the model around it.
        """
        raise NotImplementedError

    def describe(self) -> str:
        """Says what is trained, for the model card."""
        raise NotImplementedError


class Attachment(nn.Module):
    """Prompts or adapters beside the weights of a `CLIPModel`, which stay as they are: the submodule `model.tuning`.

    Hooks bring it into the passes of the model. It can be switched off, which gives the frozen teacher back.

    Args:
        options (`Tuning`): Saved with the weights, so that loading knows what to build.

    Attributes:
        text_is_live (`bool`): Whether class embeddings change in training, and cannot be encoded once.
        num_text_tokens (`int`): Learned tokens between the start token and the class name, instead of a template.
        full_stop (`bool`): Whether a full stop follows the class name where there are such tokens.
        folds (`bool`): Whether a plain model can take it in.
        takes_captions (`bool`): Whether texts that are no class prompts can be encoded.
        enabled (`bool`): Whether it takes part in the passes of the model.
        at_test (`bool`): Whether it computes as it does in use, where training differs. A model that is loaded is
            there to be used, so training says otherwise.

    Example:
        >>> from hf_pmgaft.tuning import make_tuning
        >>> tuned = make_tuning("text_context", {"num_tokens": 4}).prepare(model)
        >>> attachment = attachment_of(tuned)
        >>> attachment is tuned.tuning, attachment.num_text_tokens, attachment.folds
        (True, 4, False)
    """

    text_is_live = True
    num_text_tokens = 0
    full_stop = True
    folds = False
    takes_captions = True

    def __init__(self, options: Tuning):
        super().__init__()
        self.options = options
        self.enabled = True
        self.at_test = True

    def attach(self, model: nn.Module) -> nn.Module:
        """Freezes the model and joins it: submodule and hooks."""
        if not get_backbone(model).takes_prompts:
            families = sorted(name for name, row in BACKBONES.items() if row.takes_prompts)
            raise ValueError(
                f"You passed a {type(model).__name__} with {type(self.options).__name__}, which is made for the "
                f"modules of {' and '.join(families)}. Pass one of these, or another tuning: 'vision_tower', "
                "'last_blocks', 'peft'."
            )
        earlier = attachment_of(model)
        if earlier is not None:
            raise ValueError(
                f"You passed a model that carries {type(earlier.options).__name__} already, and what a "
                "second one would mean is unclear. Pass the base model, or `fold_into_clip(model)` where that exists."
            )

        model.requires_grad_(False)
        model.tuning = self.to(next(model.parameters()).device)
        self.add_hooks(model)
        return model

    def add_hooks(self, model: nn.Module) -> None:
        """Registers the hooks.

        They are bound methods of this module or partials of them, which copies of the model carry over to their own.
        """
        raise NotImplementedError

    def check_classes(self, names: Sequence[str]) -> None:
        """Raises `ValueError` if prompts for these class names cannot be made."""

    def draw(self, seed: int, step: int) -> None:
        """Sets what is random in a training pass, a function of the run's seed and the step."""

    def fold(self, model: nn.Module) -> nn.Module:
        """Makes a plain model that computes the same; `model` is left as it was.

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
        """Switches it off for a while: the model is what it was before training."""
        before = self.enabled
        self.enabled = False
        try:
            yield
        finally:
            self.enabled = before

    @contextlib.contextmanager
    def as_at_test(self) -> Iterator[None]:
        """Lets it compute for a while as it does in use, where training differs."""
        before = self.at_test
        self.at_test = True
        try:
            yield
        finally:
            self.at_test = before


def attachment_of(model: nn.Module) -> Attachment | None:
    """Finds what a tuning attached to a model, wrapped or not; `None` if there is nothing.

    Example:
        >>> attachment_of(model) is None
        True
    """
    return unwrap(model)._modules.get("tuning")


def detach(model: nn.Module) -> nn.Module:
    """Takes away, in place, what a tuning attached to a plain model.

    Example:
        >>> from hf_pmgaft.tuning import make_tuning
        >>> attachment_of(detach(make_tuning("r_adapter").prepare(model))) is None
        True
    """
    removed = model._modules.pop("tuning")
    for module in model.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key, hook in list(hooks.items()):
                function = getattr(hook, "func", hook)  # inside a partial
                if getattr(function, "__self__", None) is removed:
                    del hooks[key]
    return model


def check_at_least_one(tuning: Tuning, *options: str) -> None:
    """Raises `ValueError` if an option of a tuning, which counts what is trained, is below 1.

    Example:
        >>> from hf_pmgaft.tuning import TextContext
        >>> check_at_least_one(TextContext(num_tokens=2), "num_tokens")
    """
    for option in options:
        value = getattr(tuning, option)
        if value < 1:
            raise ValueError(f"You passed {option}={value}, which trains nothing. Pass 1 or more.")
