"""A LLaVA as a function of images, and attacks on what it writes: PGD through its language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import PartialState
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoProcessor, CLIPVisionConfig, LlavaForConditionalGeneration

from ..attacks.pgd import pgd
from ..attacks.spec import AttackSpec
from ..models.processors import pixel_statistics
from ..models.sources import Source
from ..modes import frozen
from ..registry import check_choice
from .answers import contains
from .towers import vision_tower

# Where no loss is computed.
_IGNORED = -100

# How the loss of an answer sums up its tokens'.
REDUCTIONS = ("mean", "sum")


class VisionLanguageModel:
    """A LLaVA as functions of images in [0,1]: how likely it finds an answer, and what it writes.

    Args:
        model (`LlavaForConditionalGeneration`): In float32, on any device, with a CLIP as vision tower.
        processor (`LlavaProcessor`): Its chat template turns questions into prompts.

    Raises:
        TypeError: if the model is another, or its tower no CLIP.
        ValueError: if the model is not in float32.

    Example:
        >>> from hf_pmgaft.downstream.llava import load_llava
        >>> from hf_pmgaft.embedded import emoji_folder
        >>> llava = load_llava(str(emoji_folder() / "llava"))
        >>> llava.write(torch.ones(1, 3, 40, 40), ["which group is it?"])
        ['symbols']
    """

    def __init__(self, model: LlavaForConditionalGeneration, processor: Any):
        if not isinstance(model, LlavaForConditionalGeneration):
            raise TypeError(
                f"You passed a {type(model).__name__}, but the attack goes through the language model of a "
                "LlavaForConditionalGeneration. Pass one whose vision tower is a CLIP."
            )
        vision_config = model.config.vision_config
        if not isinstance(vision_config, CLIPVisionConfig):
            raise TypeError(
                f"You passed a LLaVA whose vision tower is a {vision_config.model_type}, but another CLIP's "
                "tower is to take its place. Pass a LLaVA that was built on a CLIP."
            )
        if model.dtype != torch.float32:
            raise ValueError(
                f"You passed a LLaVA in {model.dtype}, in which small gradients vanish and attacks look weak. Load it "
                "with dtype=torch.float32."
            )
        self.model = model
        self.processor = processor
        self.tokenizer = processor.tokenizer

        mean, std = pixel_statistics(processor)
        self.mean = torch.tensor(mean, device=model.device).view(1, -1, 1, 1)
        self.std = torch.tensor(std, device=model.device).view(1, -1, 1, 1)

        self.padding = self.tokenizer.pad_token_id
        if self.padding is None:
            self.padding = self.tokenizer.eos_token_id
        self._prompts: dict[str, torch.Tensor] = {}

    @property
    def image_size(self) -> int:
        """Edge of the images that the tower takes, in pixels."""
        return vision_tower(self.model).config.image_size

    @property
    def context(self) -> int:
        """How many tokens, those of the image included, the language model takes."""
        return self.model.config.text_config.max_position_embeddings

    def prompt(self, question: str) -> str:
        """A question as the model is asked it; a text with the image's token is a prompt already.

        Raises:
            ValueError: if it has no image's token and the processor no chat template.
        """
        if self.processor.image_token in question:
            return question
        if not self.processor.chat_template:
            raise ValueError(
                f"You passed the question {question!r}, but the processor has no chat template to make a prompt of "
                f"it. Pass the whole prompt, with {self.processor.image_token} where the image stands."
            )
        content = [{"type": "image"}, {"type": "text", "text": question}]
        return self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)

    def prompt_ids(self, question: str) -> torch.Tensor:
        """The tokens of a question's prompt, `[L]`, the image's among them."""
        if question not in self._prompts:
            blank = Image.new("RGB", (self.image_size, self.image_size))
            tokens = self.processor(images=blank, text=self.prompt(question), return_tensors="pt")
            self._prompts[question] = tokens["input_ids"][0]
        return self._prompts[question]

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

    def check_target(self, target: str, question: str, max_new_tokens: int) -> None:
        """Raises `ValueError` for a target that the model cannot write in answer to the question."""
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
        asked = len(self.prompt_ids(question))
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

    def check_room(self, question: str, max_new_tokens: int) -> None:
        """Raises `ValueError` if a question leaves no room for so many tokens of answer."""
        asked = len(self.prompt_ids(question))
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
            images (`torch.Tensor`): `[B,3,H,W]` in [0,1], of the tower's size.
            questions (`list[str]`), answers (`list[str]`): B of each.
            reduction (`str`): `"mean"` over an answer's tokens, or their `"sum"`: minus the answer's log-likelihood.
            end_token (`bool`): Whether the token that ends an answer belongs to it.

        Returns:
            `torch.Tensor`: `[B]`, float32.

        Raises:
            ValueError: for another reduction, or an end token that the tokenizer does not have.
        """
        check_choice("reduction", reduction, REDUCTIONS)
        prompts = [self.prompt_ids(question) for question in questions]
        answer_ids = [self.answer_ids(answer, end_token) for answer in answers]

        # Prompt and answer side by side, padded on the right; only answers have labels.
        sequences = [torch.cat(pair) for pair in zip(prompts, answer_ids, strict=True)]
        ids = pad_sequence(sequences, batch_first=True, padding_value=self.padding)
        labels = torch.full_like(ids, _IGNORED)
        mask = torch.zeros_like(ids)
        for row, (prompt, answer) in enumerate(zip(prompts, answer_ids, strict=True)):
            end = len(prompt) + len(answer)
            labels[row, len(prompt) : end] = answer
            mask[row, :end] = 1

        # Logits from the last token of the shortest prompt on
        first = min(len(prompt) for prompt in prompts)
        logits = self.model(
            input_ids=ids.to(images.device),
            attention_mask=mask.to(images.device),
            pixel_values=(images - self.mean) / self.std,
            logits_to_keep=ids.shape[1] - first + 1,
            use_cache=False,
        ).logits.float()

        labels = labels[:, first:].to(images.device)
        loss = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels, ignore_index=_IGNORED, reduction="none")
        loss = loss.sum(1)
        return loss / (labels != _IGNORED).sum(1) if reduction == "mean" else loss

    @torch.no_grad()
    def write(self, images: torch.Tensor, questions: Sequence[str], max_new_tokens: int = 30) -> list[str]:
        """What the model writes by greedy decoding, a text per image."""
        prompts = [self.prompt_ids(question) for question in questions]
        ids = pad_sequence(prompts, batch_first=True, padding_value=self.padding, padding_side="left")
        mask = pad_sequence([torch.ones_like(prompt) for prompt in prompts], batch_first=True, padding_side="left")
        with frozen(self.model):
            written = self.model.generate(
                input_ids=ids.to(images.device),
                attention_mask=mask.to(images.device),
                pixel_values=(images - self.mean) / self.std,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                pad_token_id=self.padding,
            )
        texts = self.tokenizer.batch_decode(written[:, ids.shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in texts]


def load_llava(name: str) -> VisionLanguageModel:
    """Opens a LLaVA in float32, by its Hub id or folder, on the device of this process.

    Raises:
        OSError: for a name that is neither here nor on the Hub.
        TypeError: if it is another model, which transformers would open as a LLaVA with random weights.
    """
    try:
        kind = AutoConfig.from_pretrained(name, trust_remote_code=False).model_type
    except OSError as error:
        raise Source.of(name).unreachable(error) from error
    if kind != LlavaForConditionalGeneration.config_class.model_type:
        raise TypeError(f"You passed the model {name!r}, which is a {kind} and no llava. Pass a LLaVA.")
    model = LlavaForConditionalGeneration.from_pretrained(name, dtype=torch.float32, trust_remote_code=False)
    processor = AutoProcessor.from_pretrained(name, trust_remote_code=False)
    return VisionLanguageModel(model.to(PartialState().device).eval(), processor)


def attack_answers(
    model: VisionLanguageModel,
    images: torch.Tensor,
    questions: Sequence[str],
    answers: Sequence[Sequence[str]],
    *,
    eps: float | str,
    targeted: bool = False,
    num_steps: int = 100,
    seeds: torch.Tensor | None = None,
    **options: Any,
) -> torch.Tensor:
    """Perturbs images until a LLaVA finds the answers unlikely or, `targeted`, likely; as 8-bit files hold them.

    It is [`pgd`] in L-inf, whose loss is the cross-entropy of the answers under the language model: targeted as in
    Schlarmann and Hein (2023, arXiv 2308.10741), untargeted on captions and answers as in FARE (arXiv 2402.12336).

    Args:
        model (`VisionLanguageModel`): Left as it was.
        images (`torch.Tensor`): `[B,3,H,W]` in [0,1], of the tower's size.
        questions (`list[str]`): B.
        answers (list of `list[str]`): For each image one or more; their losses are averaged.
        eps (`float` or `str`): Radius.
        seeds (`torch.Tensor`, *optional*): `[B]`, int64, from which all randomness of an image follows.
        options: `step_size`, `random_start`, `restarts`, `momentum` of [`pgd`].

    Returns:
        `torch.Tensor`: `[B,3,H,W]`, detached, inside the ball.

    Raises:
        ValueError: if there are no images, or their size, number or radius does not fit.
        RuntimeError: if an image leaves the ball.

    Example:
        >>> from hf_pmgaft.downstream.llava import load_llava
        >>> from hf_pmgaft.embedded import emoji_folder
        >>> llava = load_llava(str(emoji_folder() / "llava"))
        >>> images = torch.ones(1, 3, 40, 40)
        >>> attacked = attack_answers(llava, images, ["what is it called?"], [["cat"]], eps="4/255", num_steps=2)
        >>> bool((attacked - images).abs().max() <= 4.01 / 255)
        True
    """
    _check_batch(model, images, questions, answers)

    # An image with several answers is asked several times.
    owner = torch.tensor([i for i, of_image in enumerate(answers) for _ in of_image], device=images.device)
    asked = [questions[i] for i in owner.tolist()]
    listed = [answer for of_image in answers for answer in of_image]
    counts = torch.tensor([len(of_image) for of_image in answers], device=images.device)

    def loss(points: torch.Tensor) -> torch.Tensor:
        losses = model.answer_loss(points[owner], asked, listed)
        mean = torch.zeros(len(points), device=points.device).index_add(0, owner, losses) / counts
        return -mean if targeted else mean

    adversarial = pgd(model.model, images, None, eps=eps, num_steps=num_steps, loss_fn=loss, seeds=seeds, **options)

    # As 8-bit files hold them
    threat = AttackSpec("pgd", {"eps": eps, "norm": "linf"})
    rounded = threat.round_to_8_bits(images, adversarial)
    if not threat.allows(images, rounded).all():
        raise RuntimeError("An adversarial image left its ball or [0,1]; images must have the grey levels of 8 bits.")
    return rounded


def _check_batch(
    model: VisionLanguageModel, images: torch.Tensor, questions: Sequence[str], answers: Sequence[Sequence[str]]
) -> None:
    edge = model.image_size
    if not len(images):
        raise ValueError("You passed no images, so there is nothing to attack. Pass at least one.")
    if images.shape[1:] != (3, edge, edge) or images.amin() < 0 or images.amax() > 1:
        raise ValueError(
            f"You passed images of shape {tuple(images.shape)} from {images.amin():.2f} to {images.amax():.2f}; the "
            f"model takes [B,3,{edge},{edge}] in [0,1]. Resize or scale them."
        )
    if not len(images) == len(questions) == len(answers) or not all(answers):
        raise ValueError(
            f"You passed {len(questions)} questions and {len(answers)} lists of answers for {len(images)} images. "
            "Pass a question and at least one answer for each."
        )
