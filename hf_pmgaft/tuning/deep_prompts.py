"""Learned tokens in the first blocks of both towers, one tower's a projection of the other's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import nn

from .base import Attachment, Tuning, check_at_least_one
from .prompt_tokens import TokenVectors, has_room, insert_text_tokens


@dataclass
class DeepPrompts(Tuning):
    """Learned tokens in the first blocks of both towers, coupled by a projection (FAP, arXiv 2403.14774; CAPT).

    In the input of each of the first `depth` blocks there are `num_tokens` of its own: in the text tower after the
    start token, before the class name; in the vision tower after the patches. One tower's are learned, drawn from
    N(0, 0.02^2), the other's are a linear projection of them, learned too.

    Args:
        num_tokens (`int`): Tokens per block.
        depth (`int`): Blocks, of the towers' own number at most.
        coupling (`"vision_to_text"` or `"text_to_vision"`): Where tokens are learned. FAP: on the vision side, but for
            the first block, where it is the other way. CAPT *(inferred)*: on the text side, as in MaPLe.

    Example:
        >>> tuned = DeepPrompts(num_tokens=2, depth=1).prepare(model)
        >>> sorted(name for name, parameter in tuned.named_parameters() if parameter.requires_grad)
        ['tuning.blocks.0.projection.bias', 'tuning.blocks.0.projection.weight', 'tuning.blocks.0.vectors.weight']
    """

    num_tokens: int = 2
    depth: int = 9
    coupling: Literal["vision_to_text", "text_to_vision"] = "vision_to_text"

    def __post_init__(self):
        check_at_least_one(self, "num_tokens", "depth")

    def prepare(self, model: nn.Module) -> nn.Module:
        return DeepPromptTokens(self, model).attach(model)

    def describe(self) -> str:
        return f"{self.num_tokens} prompt tokens in {self.depth} blocks of both towers, {self.coupling}; no weights"


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
        self.num_text_tokens = options.num_tokens
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

    def forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        learned = self.vectors()
        projected = self.projection(learned)
        return (learned, projected) if self.learned_on_text else (projected, learned)
