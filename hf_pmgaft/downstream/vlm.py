"""A vision-language model as functions of images: how likely it finds an answer, and what it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import PartialState
from PIL import Image
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from ..models.sources import Source
from ..modes import frozen
from ..registry import check_choice
from .answers import contains
from .families import family_named, family_of
from .gradient_check import check_gradient
from .pixels import FilePixels, TowerPixels, check_no_options

# Where no loss is computed.
_IGNORED = -100

# How the loss of an answer sums up its tokens'.
REDUCTIONS = ("mean", "sum")


@dataclass(frozen=True)
class Prompt:
    """The tokens of a question about an image of one size, the image's among them.

    Args:
        ids (`torch.Tensor`): `[L]`.
        types (`torch.Tensor`, *optional*): `[L]`, what each token is, of families whose model is told.
    """

    ids: torch.Tensor
    types: torch.Tensor | None


class VisionLanguageModel:
    """A vision-language model as functions of images in [0,1]: how likely it finds an answer, and what it writes.

    A LLaVA takes images of its tower's size. Models of the other families of `FAMILIES` take those of a file, all of
    one size in a batch, through the graph of their own processor. That it passes a gradient on is checked by finite
    differences on one image.

    Args:
        model (`PreTrainedModel`): An `AutoModelForImageTextToText` of a family of `FAMILIES`, in float32.
        processor (`ProcessorMixin`): Its processor, whose chat template turns questions into prompts.
        image_options (`dict`, *optional*): Options of the image processor in place of its own, such as
            `{"crop_to_patches": False}` of InternVL or `{"do_pan_and_scan": True}` of Gemma 3.

    Attributes:
        pixels: How images become what the model takes, [`TowerPixels`] or [`FilePixels`].

    Raises:
        TypeError: if the model is of no such family, or no gradient comes through its processor.
        ValueError: if the model is not in float32, or an image option has no effect.
        ImportError: if the family needs torchvision or a newer transformers.

    Example:
        >>> from hf_pmgaft.downstream.vlm import load_vlm
        >>> from hf_pmgaft.embedded import emoji_folder
        >>> llava = load_vlm(str(emoji_folder() / "llava"))
        >>> llava.write(torch.ones(1, 3, 40, 40), ["which group is it?"])
        ['symbols']
    """

    def __init__(self, model: nn.Module, processor: Any, image_options: Mapping[str, Any] | None = None):
        self.family = family_of(model)
        if model.dtype != torch.float32:
            raise ValueError(
                f"You passed a {type(model).__name__} in {model.dtype}, in which small gradients vanish and attacks "
                "look weak. Load it with dtype=torch.float32."
            )
        self.model = model
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.image_options = dict(image_options or {})
        self.pixels: TowerPixels | FilePixels
        if self.family.own_size:
            check_no_options(self.image_options)
            self.pixels = TowerPixels(model, processor)
        else:
            self.pixels = FilePixels(self.family, processor, self.image_options)

        self.padding = self.tokenizer.pad_token_id
        if self.padding is None:
            self.padding = self.tokenizer.eos_token_id
        self._prompts: dict[tuple[str, tuple[int, int]], Prompt] = {}
        if not self.family.own_size:
            check_gradient(self)

    @property
    def image_size(self) -> int | None:
        """Edge of the images that it takes, in pixels; `None` for a model of images of any size."""
        return self.pixels.image_size

    @property
    def context(self) -> int:
        """How many tokens, those of the image included, the language model takes."""
        return self.model.config.get_text_config().max_position_embeddings

    def prompt(self, question: str) -> str:
        """A question as the model is asked it; a text with the image's token is a prompt already.

        Raises:
            ValueError: if it has no image's token and the processor no chat template.
        """
        if self.processor.image_token in question:
            return question
        if not self.processor.chat_template and self.family.prompt:
            return self.family.prompt.format(question=question)
        if not self.processor.chat_template:
            raise ValueError(
                f"You passed the question {question!r}, but the processor has no chat template to make a prompt of "
                f"it. Pass the whole prompt, with {self.processor.image_token} where the image stands."
            )
        content = [{"type": "image"}, {"type": "text", "text": question}]
        return self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)

    def prompt_ids(self, question: str, size: tuple[int, int] | None = None) -> torch.Tensor:
        """The tokens of a question's prompt, `[L]`, the image's among them.

        Args:
            question (`str`): See `prompt`.
            size (`tuple[int, int]`, *optional*): Height and width of the image, from which the number of its tokens
                may follow; the tower's, or 224 x 224 for a model of images of any size.

        Raises:
            ValueError: if they leave no room in the model's context.
        """
        return self._prompt(question, size).ids

    def _prompt(self, question: str, size: tuple[int, int] | None = None) -> Prompt:
        height, width = self.pixels.usual_size if size is None else size
        if (question, (height, width)) not in self._prompts:
            text = self.prompt(question)
            # A template may have written what the tokenizer begins with.
            begins = self.tokenizer.bos_token is not None and text.startswith(self.tokenizer.bos_token)
            options = {"add_special_tokens": False, **self.image_options} if begins else self.image_options
            blank = Image.new("RGB", (width, height))
            tokens = self.processor(images=blank, text=text, return_tensors="pt", **options)
            types = tokens[self.family.token_types][0] if self.family.token_types else None
            self._prompts[question, (height, width)] = Prompt(tokens["input_ids"][0], types)

        prompt = self._prompts[question, (height, width)]
        if len(prompt.ids) >= self.context:
            raise ValueError(
                f"You asked {question!r:.60} about an image of {height} x {width} pixels, which are {len(prompt.ids)} "
                f"tokens, but the model's context of {self.context} is to hold the answer too. Shorten the question, "
                "or take smaller images."
            )
        return prompt

    def answer_ids(self, answer: str, end_token: bool = False) -> torch.Tensor:
        """The tokens of an answer, `[L]`, and the one after which nothing is written, if asked for.

        Raises:
            ValueError: if the tokenizer has no such token.
        """
        ids = list(self.tokenizer(answer, add_special_tokens=False)["input_ids"])
        if end_token:
            if self.tokenizer.eos_token_id is None:
                raise ValueError(
                    "You passed end_token=True, but the model's tokenizer has no eos_token. Leave end_token out, or "
                    "give the tokenizer the token that ends an answer."
                )
            ids.append(self.tokenizer.eos_token_id)
        return torch.tensor(ids, dtype=torch.long)

    def check_target(
        self, target: str, question: str, max_new_tokens: int, size: tuple[int, int] | None = None
    ) -> None:
        """Raises `ValueError` for a target that the model cannot write in answer to a question; `size` as above."""
        ids = self.answer_ids(target)
        if not target.strip() or not len(ids):
            raise ValueError("You passed an empty target, which every text contains. Pass a text to be written.")

        # Its length
        shown = target if len(target) <= 60 else f"{target[:60]}..."
        if len(ids) > max_new_tokens:
            raise ValueError(
                f"You passed the target {shown!r} of {len(ids)} tokens, but the model is to write at most "
                f"{max_new_tokens}. Raise max_new_tokens, or shorten the target."
            )
        asked = len(self.prompt_ids(question, size))
        if asked + len(ids) > self.context:
            raise ValueError(
                f"You passed the target {shown!r} of {len(ids)} tokens, which with the {asked} of image and prompt "
                f"is longer than the model's context of {self.context}. Shorten the target or the prompt."
            )

        # Its alphabet
        again = self.tokenizer.decode(ids, skip_special_tokens=True)
        if not contains(again, target):
            raise ValueError(
                f"You passed the target {target!r}, which the model's tokenizer can only write as {again!r}. Pass a "
                "target in its alphabet."
            )

    def check_room(self, question: str, max_new_tokens: int, size: tuple[int, int] | None = None) -> None:
        """Raises `ValueError` if a question leaves no room for so many tokens of answer; `size` as above."""
        asked = len(self.prompt_ids(question, size))
        if asked + max_new_tokens > self.context:
            raise ValueError(
                f"You passed max_new_tokens={max_new_tokens}, which with the {asked} tokens of image and prompt is "
                f"more than the model's context of {self.context}. Lower it, or shorten {question!r}."
            )

    def answer_loss(
        self,
        images: torch.Tensor,
        questions: Sequence[str],
        answers: Sequence[str],
        reduction: str = "mean",
        end_token: bool = False,
    ) -> torch.Tensor:
        """Cross-entropy of each answer's tokens, with a gradient to the images.

        Args:
            images (`torch.Tensor`): `[B,3,H,W]` in [0,1], of the tower's size where the model takes one alone. Others
                may be of 8 bits, as `pixels.as_judged` makes them for a verdict.
            questions (`list[str]`), answers (`list[str]`): B of each.
            reduction (`str`): `"mean"` over an answer's tokens, or their `"sum"`: minus the answer's log-likelihood.
            end_token (`bool`): Whether the token that ends an answer belongs to it.

        Returns:
            `torch.Tensor`: `[B]`, float32.

        Raises:
            ValueError: for another reduction, or an end token that the tokenizer does not have.
        """
        check_choice("reduction", reduction, REDUCTIONS)
        prompts = [self._prompt(question, tuple(images.shape[-2:])) for question in questions]
        answer_ids = [self.answer_ids(answer, end_token) for answer in answers]

        # Prompt and answer side by side, padded on the right; only answers have labels.
        sequences = [self._with_answer(prompt, ids) for prompt, ids in zip(prompts, answer_ids, strict=True)]
        tokens = self._tokens(sequences, "right")
        labels = torch.full_like(tokens["input_ids"], _IGNORED)
        for row, (prompt, ids) in enumerate(zip(prompts, answer_ids, strict=True)):
            labels[row, len(prompt.ids) : len(prompt.ids) + len(ids)] = ids

        # Logits from the last token of the shortest prompt on
        first = min(len(prompt.ids) for prompt in prompts)
        logits = self.model(
            **{name: value.to(images.device) for name, value in tokens.items()},
            **self.pixels.inputs(images),
            logits_to_keep=labels.shape[1] - first + 1,
            use_cache=False,
        ).logits.float()

        labels = labels[:, first:].to(images.device)
        loss = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels, ignore_index=_IGNORED, reduction="none")
        loss = loss.sum(1)
        return loss / (labels != _IGNORED).sum(1) if reduction == "mean" else loss

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """The tower's tokens that the language model reads, before they are projected to its width.

        They are those of the layers that it reads, without the class token where it reads none.

        Args:
            images (`torch.Tensor`): As in `answer_loss`.

        Returns:
            `torch.Tensor`: `[B,N,D]`, with a gradient to the images.
        """
        read: list[torch.Tensor] = []
        projector = self.model.get_submodule(self.family.projector)
        hook = projector.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
        try:
            self.model.get_image_features(**self.pixels.inputs(images))
        finally:
            hook.remove()
        return read[0].float().reshape(len(images), -1, read[0].shape[-1])

    @torch.no_grad()
    def write(self, images: torch.Tensor, questions: Sequence[str], max_new_tokens: int = 30) -> list[str]:
        """What the model writes by greedy decoding, a text per image."""
        prompts = [self._prompt(question, tuple(images.shape[-2:])) for question in questions]
        tokens = self._tokens(prompts, "left")
        with frozen(self.model):
            written = self.model.generate(
                **{name: value.to(images.device) for name, value in tokens.items()},
                **self.pixels.inputs(self.pixels.as_judged(images)),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                pad_token_id=self.padding,
            )
        new = written[:, tokens["input_ids"].shape[1] :]
        return [text.strip() for text in self.tokenizer.batch_decode(new, skip_special_tokens=True)]

    def _with_answer(self, prompt: Prompt, answer_ids: torch.Tensor) -> Prompt:
        types = prompt.types
        if types is not None:
            types = torch.cat([types, torch.full_like(answer_ids, self.family.answer_type)])
        return Prompt(torch.cat([prompt.ids, answer_ids]), types)

    def _tokens(self, prompts: Sequence[Prompt], padding_side: str) -> dict[str, torch.Tensor]:
        """Prompts side by side, `[B,L]` each, as the model is told them."""

        def padded(rows: list[torch.Tensor], value: int = 0) -> torch.Tensor:
            return pad_sequence(rows, batch_first=True, padding_value=value, padding_side=padding_side)

        tokens = {
            "input_ids": padded([prompt.ids for prompt in prompts], self.padding),
            "attention_mask": padded([torch.ones_like(prompt.ids) for prompt in prompts]),
        }
        if self.family.token_types:
            tokens[self.family.token_types] = padded([prompt.types for prompt in prompts])
        return tokens


def load_vlm(name: str, image_options: Mapping[str, Any] | None = None) -> VisionLanguageModel:
    """Opens a vision-language model in float32, by its Hub id or folder, on the device of this process.

    Args:
        name (`str`): Hub id or folder.
        image_options (`dict`, *optional*): See [`VisionLanguageModel`].

    Raises:
        OSError: for a name that is neither here nor on the Hub.
        TypeError, ImportError: if it is of a family that does not work, which is seen before its weights are read.

    Example:
        >>> from hf_pmgaft.embedded import emoji_folder
        >>> load_vlm(str(emoji_folder() / "llava")).image_size
        40
    """
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except OSError as error:
        raise Source.of(name).unreachable(error) from error
    family_named(config.model_type)
    model = AutoModelForImageTextToText.from_pretrained(name, dtype=torch.float32, trust_remote_code=False)
    processor = AutoProcessor.from_pretrained(name, trust_remote_code=False)
    return VisionLanguageModel(model.to(PartialState().device).eval(), processor, image_options)
