"""What a LLaVA writes, and attacks on it through its language model: by the package's own PGD, with another loss."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from transformers import CLIPVisionConfig, LlavaForConditionalGeneration

from ..attacks.pgd import pgd
from ..attacks.spec import AttackSpec
from ..models.processors import pixel_statistics
from ..modes import frozen
from .towers import vision_tower

_NUMBERS = "zero one two three four five six seven eight nine ten".split()
_DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMBERS)}}
_ARTICLES = {"a", "an", "the"}
_APART = str.maketrans(dict.fromkeys(set(string.punctuation) - set("'.:$%&#*~^|"), " "))


class VisionLanguageModel:
    """A LLaVA as functions of images in [0,1]: how likely it finds an answer, and what it writes.

    Args:
        model (`LlavaForConditionalGeneration`): In float32, on any device, with a CLIP as vision tower.
        processor (`LlavaProcessor`): Its chat template turns questions into prompts.

    Raises:
        TypeError: if the model is another, or its tower no CLIP.
        ValueError: if the model is not in float32.
    """

    def __init__(self, model: LlavaForConditionalGeneration, processor: Any):
        config = getattr(model, "config", None)
        if not isinstance(model, LlavaForConditionalGeneration):
            raise TypeError(
                f"You passed a {type(model).__name__}, but the attack goes through the language model of a "
                "LlavaForConditionalGeneration. Pass one whose vision tower is a CLIP."
            )
        if not isinstance(config.vision_config, CLIPVisionConfig):
            raise TypeError(
                f"You passed a LLaVA whose vision tower is a {config.vision_config.model_type}, but another CLIP's "
                "tower is to take its place. Pass a LLaVA that was built on a CLIP."
            )
        if model.dtype != torch.float32:
            raise ValueError(
                f"You passed a LLaVA in {model.dtype}, in which small gradients vanish and attacks look weak. Load it "
                "with dtype=torch.float32."
            )
        self.model, self.processor, self.tokenizer = model, processor, processor.tokenizer
        mean, std = pixel_statistics(processor)
        self.mean = torch.tensor(mean, device=model.device).view(1, -1, 1, 1)
        self.std = torch.tensor(std, device=model.device).view(1, -1, 1, 1)
        pad = self.tokenizer.pad_token_id
        self.padding = self.tokenizer.eos_token_id if pad is None else pad
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

    def answer_ids(self, answer: str) -> torch.Tensor:
        """The tokens of an answer, `[L]`."""
        return torch.tensor(self.tokenizer(answer, add_special_tokens=False)["input_ids"], dtype=torch.long)

    def check_target(self, target: str, question: str, max_new_tokens: int) -> None:
        """Raises `ValueError` for a target that the model cannot write in answer to the question."""
        ids = self.answer_ids(target)
        if not target.strip() or not len(ids):
            raise ValueError("You passed an empty target, which every text contains. Pass a text to be written.")
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

    def answer_loss(self, images: torch.Tensor, questions: Sequence[str], answers: Sequence[str]) -> torch.Tensor:
        """Cross-entropy of each answer, mean over its tokens, with a gradient to the images.

        Args:
            images (`torch.Tensor`): `[B,3,H,W]` in [0,1], of the tower's size.
            questions (`list[str]`), answers (`list[str]`): B of each.

        Returns:
            `torch.Tensor`: `[B]`, float32.
        """
        prompts, answers = [self.prompt_ids(q) for q in questions], [self.answer_ids(a) for a in answers]
        whole = [torch.cat(pair) for pair in zip(prompts, answers, strict=True)]
        ids = pad_sequence(whole, batch_first=True, padding_value=self.padding)
        labels = torch.full_like(ids, -100)
        mask = torch.zeros_like(ids)
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            end = len(prompt) + len(answer)
            labels[row, len(prompt) : end], mask[row, :end] = answer, 1
        first = min(map(len, prompts))
        logits = self.model(
            input_ids=ids.to(images.device),
            attention_mask=mask.to(images.device),
            pixel_values=(images - self.mean) / self.std,
            logits_to_keep=ids.shape[1] - first + 1,
            use_cache=False,
        ).logits.float()
        labels = labels[:, first:].to(images.device)
        loss = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels, ignore_index=-100, reduction="none")
        return loss.sum(1) / (labels != -100).sum(1)

    @torch.no_grad()
    def write(self, images: torch.Tensor, questions: Sequence[str], max_new_tokens: int = 30) -> list[str]:
        """What the model writes by greedy decoding, a text per image."""
        prompts = [self.prompt_ids(question) for question in questions]
        ids = pad_sequence(prompts, batch_first=True, padding_value=self.padding, padding_side="left")
        mask = pad_sequence([torch.ones_like(p) for p in prompts], batch_first=True, padding_side="left")
        with frozen(self.model):
            found = self.model.generate(
                input_ids=ids.to(images.device),
                attention_mask=mask.to(images.device),
                pixel_values=(images - self.mean) / self.std,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                pad_token_id=self.padding,
            )
        texts = self.tokenizer.batch_decode(found[:, ids.shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in texts]


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
    """Images on which a LLaVA finds the given answers unlikely or, `targeted`, likely, as 8-bit files hold them.

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
    """
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
    owner = torch.tensor([i for i, of_image in enumerate(answers) for _ in of_image], device=images.device)
    flat = [answer for of_image in answers for answer in of_image]
    counts = torch.tensor([len(of_image) for of_image in answers], device=images.device)

    def loss(points: torch.Tensor) -> torch.Tensor:
        each = model.answer_loss(points[owner], [questions[i] for i in owner.tolist()], flat)
        mean = torch.zeros(len(points), device=points.device).index_add(0, owner, each) / counts
        return -mean if targeted else mean

    found = pgd(model.model, images, None, eps=eps, num_steps=num_steps, loss_fn=loss, seeds=seeds, **options)
    spec = AttackSpec("pgd", {"eps": eps, "norm": "linf"})
    rounded = spec.round_to_8_bits(images, found)
    if not spec.allows(images, rounded).all():
        raise RuntimeError("An adversarial image left its ball or [0,1]; images must have the grey levels of 8 bits.")
    return rounded


def contains(text: str, target: str) -> bool:
    """Whether the target stands in a text, whatever the white space."""
    return " ".join(target.split()) in " ".join(text.split())


def caption_score(text: str, references: Sequence[str]) -> float:
    """chrF++ of a caption against the best of its references, from 0 to 1 (Popović, 2017), by `sacrebleu`."""
    try:
        from sacrebleu.metrics import CHRF
    except ImportError as error:
        raise ImportError("Captions are scored by sacrebleu. Install it with pip install 'hf_pmgaft[vlm]'.") from error
    return CHRF(word_order=2).sentence_score(text, list(references)).score / 100


def vqa_accuracy(text: str, answers: Sequence[str]) -> float:
    """VQA accuracy (Antol et al., 2015, arXiv 1505.00468) of an answer, from 0 to 1.

    The mean over the given answers of min(matches among the other ones / 3, 1); a single answer counts as all of them.
    """
    given, expected = normalise_answer(text), [normalise_answer(answer) for answer in answers]
    if len(expected) == 1:
        return float(given == expected[0])
    matches = sum(given == answer for answer in expected)
    return sum(min((matches - (given == answer)) / 3, 1.0) for answer in expected) / len(expected)


def normalise_answer(text: str) -> str:
    """An answer as the official VQA evaluation compares them: lower case, numbers as digits, without articles and
    punctuation. Its table of contractions is replaced by leaving apostrophes out on both sides."""
    text = re.sub(r"(?<=\d),(?=\d)|'|\.(?!\d)", "", text.lower()).translate(_APART)
    words = (_DIGITS.get(word, word) for word in text.split())
    return " ".join(word for word in words if word not in _ARTICLES)
