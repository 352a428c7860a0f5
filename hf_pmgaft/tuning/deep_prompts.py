from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import nn

from .base import Attachment, Tuning
from .text_context import Vectors, insert_text_tokens, is_prompt


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
    """

    num_tokens: int = 2
    depth: int = 9
    coupling: Literal["vision_to_text", "text_to_vision"] = "vision_to_text"

    def __post_init__(self):
        for name in ("num_tokens", "depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"You passed {name}={getattr(self, name)}, which learns nothing. Pass 1 or more.")

    def prepare(self, model: nn.Module) -> nn.Module:
        return Prompts(self, model).attach(model)

    def describe(self) -> str:
        return f"{self.num_tokens} prompt tokens in {self.depth} blocks of both towers, {self.coupling}; no weights"


class Prompts(Attachment):
    """One coupled set of tokens per block."""

    takes_captions = False

    def __init__(self, options: DeepPrompts, model: nn.Module):
        super().__init__(options)
        self.num_text_tokens = options.num_tokens
        widths = [tower.config.hidden_size for tower in (model.text_model, model.vision_model)]
        counts = [len(tower.encoder.layers) for tower in (model.text_model, model.vision_model)]
        if options.depth > min(counts):
            raise ValueError(
                f"You passed depth={options.depth}, but the text tower has {counts[0]} blocks and the vision tower "
                f"{counts[1]}. Pass {min(counts)} or fewer."
            )
        from_text = [True] + [options.coupling == "text_to_vision"] * (options.depth - 1)
        self.blocks = nn.ModuleList(Coupled(options.num_tokens, *widths, learned_on_text=side) for side in from_text)

    def add_hooks(self, model: nn.Module) -> None:
        text, vision = model.text_model, model.vision_model
        text.embeddings.token_embedding.register_forward_hook(self._insert_in_text)
        vision.embeddings.register_forward_hook(self._append_to_image)
        for i in range(1, self.options.depth):
            text.encoder.layers[i].register_forward_pre_hook(partial(self._replace_in_text, i))
            vision.encoder.layers[i].register_forward_pre_hook(partial(self._replace_in_image, i))

    def _insert_in_text(self, module, args, output: torch.Tensor) -> torch.Tensor:
        return insert_text_tokens(output, self.blocks[0]()[0]) if is_prompt(self, output) else output

    def _append_to_image(self, module, args, output: torch.Tensor) -> torch.Tensor:
        return self._with_image_tokens(output, 0) if self.enabled else output

    def _replace_in_text(self, i: int, module, args):
        hidden, *rest = args
        return (insert_text_tokens(hidden, self.blocks[i]()[0]), *rest) if is_prompt(self, hidden) else None

    def _replace_in_image(self, i: int, module, args):
        hidden, *rest = args
        return (self._with_image_tokens(hidden[:, : -self.num_text_tokens], i), *rest) if self.enabled else None

    def _with_image_tokens(self, hidden: torch.Tensor, i: int) -> torch.Tensor:
        tokens = self.blocks[i]()[1].to(hidden.dtype)
        return torch.cat([hidden, tokens.expand(len(hidden), *tokens.shape)], dim=1)


class Coupled(nn.Module):
    """Tokens of one block for both towers: `() -> text [M,d_text], vision [M,d_vision]`."""

    def __init__(self, num_tokens: int, text_width: int, vision_width: int, learned_on_text: bool):
        super().__init__()
        self.learned_on_text = learned_on_text
        widths = (text_width, vision_width) if learned_on_text else (vision_width, text_width)
        self.vectors = Vectors(num_tokens, widths[0])
        self.projection = nn.Linear(*widths)

    def forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        learned = self.vectors()
        projected = self.projection(learned)
        return (learned, projected) if self.learned_on_text else (projected, learned)
