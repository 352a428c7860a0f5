"""Learned tokens in the first blocks of both towers, one tower's a projection of the other's."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import nn

from .base import ONLY_IF_SET, Attachment, check_at_least_one
from .prompt_tokens import PromptTuning, TokenVectors, embeddings_of_words, has_room, insert_text_tokens


@dataclass
class DeepPrompts(PromptTuning):
    """Learned tokens in the first blocks of both towers, coupled by a projection (FAP, arXiv 2403.14774; CAPT).

    In the input of each of the first `depth` blocks there are `num_tokens` of its own: in the text tower after the
    start token, before the class name; in the vision tower after the patches. One tower's are learned, drawn from
    N(0, 0.02^2), the other's are a linear projection of them, learned too.

    Args:
        num_tokens (`int`, *optional*): Tokens per block; 2, or the number of the words' tokens.
        depth (`int`): Blocks, of the towers' own number at most.
        coupling (`"vision_to_text"` or `"text_to_vision"`): Where tokens are learned. FAP: on the vision side, but for
            the first block, where it is the other way. CAPT *(inferred)*: on the text side, as in MaPLe.
        context_words (`str`, *optional*): Words as which the text tokens of the first block begin.
        context_ids (`list[int]`, *optional*): Their token ids, which training fills in.
        full_stop (`bool`): Whether a full stop follows the class name.
        vision_start (`"random"` or `"class_token"`): Where the vision tokens begin: wherever the draw puts them, or
            around the class token's own state in that block for a grey image, which hardly disturbs the tower.

    Example:
        >>> tuned = DeepPrompts(num_tokens=2, depth=1).prepare(model)
        >>> sorted(name for name, parameter in tuned.named_parameters() if parameter.requires_grad)
        ['tuning.blocks.0.projection.bias', 'tuning.blocks.0.projection.weight', 'tuning.blocks.0.vectors.weight']
    """

    depth: int = 9
    coupling: Literal["vision_to_text", "text_to_vision"] = "vision_to_text"
    vision_start: Literal["random", "class_token"] = field(
        default="random", kw_only=True, metadata={ONLY_IF_SET: True}
    )

    DEFAULT_TOKENS = 2

    def __post_init__(self):
        super().__post_init__()
        check_at_least_one(self, "depth")

    def prepare(self, model: nn.Module) -> nn.Module:
        return DeepPromptTokens(self, model).attach(model)

    def describe(self) -> str:
        number = "" if self.num_tokens is None else f"{self.num_tokens} "
        where = f"{self.depth} blocks of both towers, {self.coupling}"
        return f"{number}prompt tokens in {where}{self.describe_prompts()}; no weights"


class DeepPromptTokens(Attachment):
    """One coupled set of tokens per block.

    Example:
        >>> text, vision = DeepPromptTokens(DeepPrompts(num_tokens=2, depth=1), model).blocks[0]()
        >>> text.shape, vision.shape
        (torch.Size([2, 16]), torch.Size([2, 32]))
    """

    takes_captions = False

    def __init__(self, options: DeepPrompts, model: nn.Module):
        super().__init__(options)
        options.check_is_ready()
        self.num_text_tokens = options.num_tokens
        self.full_stop = options.full_stop
        text, vision = model.text_model, model.vision_model

        text_blocks = len(text.encoder.layers)
        vision_blocks = len(vision.encoder.layers)
        most = min(text_blocks, vision_blocks)
        if options.depth > most:
            raise ValueError(
                f"You passed depth={options.depth}, but the text tower has {text_blocks} blocks and the vision tower "
                f"{vision_blocks}. Pass {most} or fewer."
            )

        self.blocks = nn.ModuleList()
        for block in range(options.depth):
            learned_on_text = block == 0 or options.coupling == "text_to_vision"
            widths = (text.config.hidden_size, vision.config.hidden_size)
            self.blocks.append(CoupledTokens(options.num_tokens, *widths, learned_on_text=learned_on_text))

        if options.context_ids is not None:
            self.blocks[0].vectors.begin_at(embeddings_of_words(model, options))
        if options.vision_start == "class_token":
            states = class_token_states(vision, options.depth)
            for block, state in zip(self.blocks, states, strict=True):
                block.begin_vision_at(state)

    def add_hooks(self, model: nn.Module) -> None:
        text, vision = model.text_model, model.vision_model
        text.embeddings.token_embedding.register_forward_hook(self._insert_in_text)
        vision.embeddings.register_forward_hook(self._append_to_image)
        for block in range(1, self.options.depth):
            text.encoder.layers[block].register_forward_pre_hook(partial(self._replace_in_text, block))
            vision.encoder.layers[block].register_forward_pre_hook(partial(self._replace_in_image, block))

    def _insert_in_text(self, module, args, output: torch.Tensor) -> torch.Tensor:
        return insert_text_tokens(output, self._text_tokens(0)) if has_room(self, output) else output

    def _append_to_image(self, module, args, output: torch.Tensor) -> torch.Tensor:
        return self._with_image_tokens(output, 0) if self.enabled else output

    def _replace_in_text(self, block: int, module, args):
        hidden, *others = args
        if not has_room(self, hidden):
            return None
        return insert_text_tokens(hidden, self._text_tokens(block)), *others

    def _replace_in_image(self, block: int, module, args):
        hidden, *others = args
        if not self.enabled:
            return None
        return self._with_image_tokens(hidden[:, : -self.num_text_tokens], block), *others

    def _text_tokens(self, block: int) -> torch.Tensor:
        return self.blocks[block]()[0]

    def _with_image_tokens(self, hidden: torch.Tensor, block: int) -> torch.Tensor:
        tokens = self.blocks[block]()[1].to(hidden.dtype)
        return torch.cat([hidden, tokens.expand(len(hidden), *tokens.shape)], dim=1)


class CoupledTokens(nn.Module):
    """Tokens of one block for both towers: `() -> text [M,d_text], vision [M,d_vision]`."""

    def __init__(self, num_tokens: int, text_width: int, vision_width: int, learned_on_text: bool):
        super().__init__()
        self.learned_on_text = learned_on_text
        learned_width, projected_width = text_width, vision_width
        if not learned_on_text:
            learned_width, projected_width = vision_width, text_width
        self.vectors = TokenVectors(num_tokens, learned_width)
        self.projection = nn.Linear(learned_width, projected_width)

    @torch.no_grad()
    def begin_vision_at(self, state: torch.Tensor) -> None:
        """Moves the vision tokens around a state `[d_vision]`, as they are spread, and leaves those of the text."""
        vectors, projection = self.vectors.weight, self.projection
        state = state.to(vectors)
        if self.learned_on_text:
            projection.bias.copy_(state - projection.weight @ vectors.mean(dim=0))
        else:
            projection.bias.sub_(projection.weight @ state)
            vectors.add_(state)

    def forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        learned = self.vectors()
        projected = self.projection(learned)
        return (learned, projected) if self.learned_on_text else (projected, learned)


@torch.no_grad()
def class_token_states(vision: nn.Module, depth: int) -> list[torch.Tensor]:
    """The class token's state `[d]` for a grey image, where prompts of each of the first blocks come in.

    Example:
        >>> [state.shape for state in class_token_states(model.vision_model, depth=2)]
        [torch.Size([32]), torch.Size([32])]
    """
    states = []

    def keep(module, inputs):
        states.append(inputs[0][0, 0])

    # Prompts of the first block join before the norm that leads into it.
    entries = [vision.pre_layrnorm, *vision.encoder.layers[1:depth]]
    hooks = [entry.register_forward_pre_hook(keep) for entry in entries]
    try:
        size = vision.config.image_size
        dtype = vision.embeddings.patch_embedding.weight.dtype
        vision(torch.zeros(1, vision.config.num_channels, size, size, dtype=dtype, device=vision.device))
    finally:
        for hook in hooks:
            hook.remove()
    return states
