"""Make the tiny LLaVA of the embedded default: a language model that names and describes emoji through the CLIP tower.

    python examples/emoji/make/llava.py                     # train, install in ../llava, measure; under half an hour
    python examples/emoji/make/llava.py --steps check       # measure the shipped model, rewrite its card

The vision tower is that of ../model, frozen; projector and language model are trained from scratch, to answer three
questions about the drawings of the training styles, augmented as in pre-training, and whether something is in them.
What comes out is an ordinary `LlavaForConditionalGeneration` with its `LlavaProcessor`.

Steps, in this order:
  train     if .build/ does not hold the drawings, `build.py --steps fetch,data` first; then train, install in ../llava
  check     how often it is right in drawing styles that no training saw, and without an image; writes the card

../../studies/costs.py attacks it through robust towers. Choices were made on the validation style.
"""

import argparse
import json
import os
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve each other on a shared machine

import build
import cards
import numpy as np
import pretrain
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    CLIPImageProcessor,
    CLIPModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from hf_pmgaft import swap_vision_tower, vision_tower
from hf_pmgaft.cli import emoji_questions as questions
from hf_pmgaft.data import LabelledImages
from hf_pmgaft.downstream.answers import caption_score
from hf_pmgaft.downstream.pope import SAMPLINGS, is_there, object_questions, read_yes_no
from hf_pmgaft.evaluation.intervals import wilson_interval
from hf_pmgaft.evaluation.tables import render

MODEL = Path(__file__).parents[1] / "llava"
STYLES = {"validation": "noto-v1", "test": "twemoji"}
WIDTH, LAYERS, HEADS, INNER, CONTEXT = 128, 2, 4, 384, 96
VOCABULARY = 2000
IMAGE_TOKENS = 1 + (pretrain.IMAGE_SIZE // pretrain.PATCH) ** 2
END, IMAGE = "<|endoftext|>", "<image>"
# How often each question is asked.
IS_THERE = "is there"
SHARES = {questions.DESCRIBE: 0.3, questions.NAME: 0.25, questions.GROUP: 0.1, IS_THERE: 0.35}
TURNS = 4  # questions whether something is there, one after the other
YES, NO = "Yes", "No"
# The image, the question and a line's end; then the answer.
TEMPLATE = (
    "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '\\n' if message['role'] == 'user' else '<|endoftext|>' }}{% endfor %}"
)
SETTINGS = {
    "seed": (0, "of weights, batches, questions and augmentation"),
    "train_steps": (1500, "steps of 128 drawings"),
    "muon_lr": (5e-3, "learning rate of the matrices"),
    "adam_lr": (2e-3, "learning rate of all else"),
    "strength": (1.0, "of the augmentation"),
}


# ----------------------------------------------------------------------------------------------------------- the data


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, which writes every text and gives it back as it was."""
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = Counter(word for text in texts for word, _ in split.pre_tokenize_str(text))
    base = [END, IMAGE, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = build.learn_merges(words, VOCABULARY - len(base), end="")
    tokens = dict.fromkeys(base + ["".join(pair) for pair in merges])
    backend = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer, backend.decoder = split, decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=END,
        pad_token=END,
        additional_special_tokens=[IMAGE],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


# ---------------------------------------------------------------------------------------------------------- the model


def build_model(clip: CLIPModel, tokenizer) -> LlavaForConditionalGeneration:
    """A LLaVA whose tower is that of `clip`; it reads the last block, the only one whose class token names things."""
    config = LlavaConfig(
        vision_config=clip.config.vision_config,
        text_config=LlamaConfig(
            hidden_size=WIDTH,
            intermediate_size=INNER,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            vocab_size=len(tokenizer),
            max_position_embeddings=CONTEXT,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=True,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=IMAGE_TOKENS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )

    model = LlavaForConditionalGeneration(config)
    swap_vision_tower(model, clip)
    model.model.vision_tower.requires_grad_(False)
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.05)
    return model


class Trainer:
    """Projector and language model on questions about augmented drawings."""

    def __init__(self, args):
        self.args = args
        torch.manual_seed(args.seed)
        emojis = json.loads((build.BUILD / "emoji.json").read_text())
        self.drawings = pretrain.Drawings(emojis, np.load(build.BUILD / "art.npz"), args.seed)
        known = [questions.answers(emoji["label"], emoji["tags"], emoji["group"]) for emoji in emojis]
        self.objects = questions.objects([emoji["tags"] for emoji in emojis])
        self.others = [
            [other for other, names in enumerate(self.objects) if not set(names) <= set(there)]
            for there in self.objects
        ]
        texts = [text for answers in known for text in answers.values()]
        texts += [*questions.QUESTIONS, is_there("thing"), is_there("object"), YES, NO] * 50
        self.tokenizer = train_tokenizer(texts)

        clip = CLIPModel.from_pretrained(build.MODEL)
        self.model = build_model(clip, self.tokenizer)
        self.rng = np.random.default_rng(args.seed)
        self.known = [{asked: self.sequence((asked, text)) for asked, text in of.items()} for of in known]
        self.yes_no = torch.tensor(self.tokenizer.convert_tokens_to_ids([YES, NO]))

        # Muon for matrices, Adam for the rest
        named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        matrices = [name for name, p in named.items() if p.ndim == 2 and "embed" not in name]
        rest = [p for name, p in named.items() if name not in matrices]
        self.trained = list(named.values())
        self.muon = pretrain.Muon([named[name] for name in matrices], args.muon_lr)
        self.adam = torch.optim.AdamW(rest, args.adam_lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)

    def sequence(self, *turns: tuple[str, str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids of an image, questions and answers, and the tokens to learn, -100 elsewhere."""
        ids = [self.tokenizer.convert_tokens_to_ids(IMAGE)] * IMAGE_TOKENS
        labels = [-100] * len(ids)
        for question, answer in turns:
            asked = self.tokenizer(question + "\n").input_ids
            answered = [*self.tokenizer(answer).input_ids, self.tokenizer.eos_token_id]
            ids += asked + answered
            labels += [-100] * len(asked) + answered
        return torch.tensor(ids), torch.tensor(labels)

    def answered(self, index: int, question: str) -> tuple[torch.Tensor, torch.Tensor]:
        """A sequence about an emoji. What has no object in it is named instead."""
        if question == IS_THERE and self.objects[index]:
            return self.sequence(*(self.yes_or_no(index) for _ in range(TURNS)))
        return self.known[index][questions.NAME if question == IS_THERE else question]

    def yes_or_no(self, index: int) -> tuple[str, str]:
        """Asks for an object that is there, or as often for one of another emoji, every fourth time of its group."""
        there = self.objects[index]
        if self.rng.random() < 0.5:
            return is_there(self.rng.choice(there)), YES
        others = self.others[index]
        if self.rng.random() < 0.25:
            groups = self.drawings.groups
            others = [other for other in others if groups[other] == groups[index]] or others
        absent = [name for name in self.objects[self.rng.choice(others)] if name not in there]
        return is_there(self.rng.choice(absent)), NO

    def batch(self, emoji: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """`input_ids` `[B,L]`, and the tokens to learn, -100 elsewhere."""
        asked = self.rng.choice([*SHARES], len(emoji), p=[*SHARES.values()])
        chosen = [self.answered(index, question) for index, question in zip(emoji, asked, strict=True)]
        ids, labels = zip(*chosen, strict=True)
        return (
            pad_sequence(ids, batch_first=True, padding_value=self.tokenizer.pad_token_id),
            pad_sequence(labels, batch_first=True, padding_value=-100),
        )

    def step(self, index: int) -> float:
        """Makes a step, and returns its loss."""
        used = index / self.args.train_steps

        # A batch
        strength = self.args.strength * pretrain.augmentation_strength(used)
        emoji, pixel_values = self.drawings.batch(False, strength)
        ids, labels = self.batch(emoji)

        # The loss on the answers' tokens: the mean over "Yes" and "No", which are few, and that over all others
        states = self.model.model(input_ids=ids, pixel_values=pixel_values, use_cache=False).last_hidden_state
        wanted = labels[:, 1:] != -100
        logits = self.model.lm_head(states[:, :-1][wanted])
        losses = F.cross_entropy(logits, labels[:, 1:][wanted], reduction="none")
        is_yes_no = torch.isin(labels[:, 1:][wanted], self.yes_no)
        loss = losses[is_yes_no].mean() + losses[~is_yes_no].mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0, foreach=True)

        scale = pretrain.learning_rate(used, index)
        self.muon.step(scale)
        self.adam.param_groups[0]["lr"] = self.args.adam_lr * scale
        self.adam.step()
        self.model.zero_grad()
        return loss.item()

    def run(self) -> None:
        """Makes all steps, and prints the loss every hundred."""
        start = time.monotonic()
        losses = []
        self.model.train()
        for index in range(self.args.train_steps):
            losses.append(self.step(index))
            if (index + 1) % 100 == 0:
                minutes = (time.monotonic() - start) / 60
                print(f"step {index + 1} {minutes:.1f} min loss {np.mean(losses[-100:]):.3f}", flush=True)
        self.model.eval()

    def processor(self) -> LlavaProcessor:
        """The processor of the model: the CLIP's images, its own tokenizer, and how a question is put."""
        images = CLIPImageProcessor.from_pretrained(build.MODEL)
        return LlavaProcessor(
            images,
            self.tokenizer,
            patch_size=pretrain.PATCH,
            vision_feature_select_strategy="full",
            chat_template=TEMPLATE,
            image_token=IMAGE,
            num_additional_image_tokens=1,
        )


def train(args) -> None:
    """Trains the model, from drawings that are fetched if they are not there, and installs it in ../llava."""
    torch.set_num_threads(args.threads)
    if not (build.BUILD / "art.npz").exists():
        build.fetch(args)
        build.data(args)

    trainer = Trainer(args)
    trainer.run()

    trainer.model.save_pretrained(MODEL)
    trainer.processor().save_pretrained(MODEL)
    settings = {name: getattr(args, name) for name in SETTINGS}
    record = {"drawings": trainer.drawings.summary(), "settings": settings}
    (MODEL / "training.json").write_text(json.dumps(record, indent=1) + "\n")


# ----------------------------------------------------------------------------------------------------------- measuring


def check(args) -> None:
    """Counts right answers in both held-out styles, with the image and with a white one, and writes the card."""
    from hf_pmgaft import VisionLanguageModel

    torch.set_num_threads(args.threads)
    llava, report = LlavaForConditionalGeneration.from_pretrained(MODEL, output_loading_info=True)
    if report["missing_keys"] or report["unexpected_keys"]:
        raise RuntimeError(f"{MODEL} is not a plain LLaVA checkpoint: {report}")

    ours, original = (vision_tower(m).state_dict() for m in (llava, CLIPModel.from_pretrained(build.MODEL)))
    if any(not torch.equal(ours[name], value) for name, value in original.items()):
        raise RuntimeError(f"The vision tower in {MODEL} is not that of {build.MODEL}. Train it again.")

    model = VisionLanguageModel(llava, LlavaProcessor.from_pretrained(MODEL))
    blind = ["right without image", "chrF++ without image", "most frequent answer"]
    rows = [["style", "question", "images", "right", "95 %", "chrF++", *blind]]
    for split in ("validation", "test"):
        data = questions.load_rows(split)
        of_objects = [row for row in data if row[questions.OBJECTS]]
        measured = [measure(model, data, question) for question in questions.QUESTIONS]
        measured += [measure_yes_no(model, of_objects, sampling) for sampling in SAMPLINGS]
        rows += [[f"{split} ({STYLES[split]})", *row] for row in measured]
    print(render(rows))

    parameters = sum(p.numel() for p in llava.parameters())
    record = json.loads((MODEL / "training.json").read_text())
    card = cards.fill(
        "llava_card.md",
        figures=cards.table(rows[0], rows[1:]),
        millions=f"{parameters / 1e6:.2f}",
        megabytes=f"{4 * parameters / 1e6:.1f}",
        steps=f"{record['settings']['train_steps']:,}",
        drawings=f"{record['drawings']['images']:,}",
        styles=str(record["drawings"]["styles"]),
    )
    (MODEL / "README.md").write_text(card)


def pixels_of(model, data: list[dict]) -> torch.Tensor:
    """The images `[N,3,H,W]` in [0,1]."""
    reader = LabelledImages(data, model.processor, normalize=False, needs_labels=False)
    return torch.stack([reader.pixels(row["image"], place) for place, row in enumerate(data)]).clamp(0, 1)


def write(model, images: torch.Tensor, asked: list[str]) -> list[str]:
    """Answers to a question about each image."""
    starts = range(0, len(images), 128)
    return [text for at in starts for text in model.write(images[at : at + 128], asked[at : at + 128])]


def measure_yes_no(model, data: list[dict], sampling: str) -> list[str]:
    """A row of the table, on a question for what is there and one for what is not, of each image."""
    made = object_questions([row[questions.OBJECTS] for row in data], sampling, per_image=2)
    asked = [is_there(one.object) for one in made]
    images = pixels_of(model, data)[[one.place for one in made]]

    right, blind = (
        np.mean([read_yes_no(text) == one.label for text, one in zip(texts, made, strict=True)])
        for texts in (write(model, images, asked), write(model, torch.ones_like(images), asked))
    )
    low, high = wilson_interval(right, len(made))
    span = f"{100 * low:.1f} to {100 * high:.1f}"
    question = f"is it there? ({sampling})"
    return [question, str(len(data)), f"{100 * right:.1f}", span, "", f"{100 * blind:.1f}", "", "50.0"]


def measure(model, data: list[dict], question: str) -> list[str]:
    """A row of the table, on one question: how many answers are right to the letter, and how near the others come."""
    images = pixels_of(model, data)
    expected = [row[question] for row in data]

    # Answers about each image, and about a white one
    texts = write(model, images, [question] * len(images))
    (guess,) = model.write(torch.ones_like(images[:1]), [question])

    # Figures
    right = np.mean([text == answer for text, answer in zip(texts, expected, strict=True)])
    near, guessed = (
        np.mean([caption_score(text, [answer]) for text, answer in zip(written, expected, strict=True)])
        for written in (texts, [guess] * len(texts))
    )
    low, high = wilson_interval(right, len(data))
    blind = expected.count(guess) / len(data)
    most_frequent = Counter(expected).most_common(1)[0][1] / len(data)

    span = f"{100 * low:.1f} to {100 * high:.1f}"
    percents = [f"{100 * value:.1f}" for value in (right, near, blind, guessed, most_frequent)]
    return [question, str(len(data)), percents[0], span, *percents[1:]]


STEPS = {"train": train, "check": check}


def main() -> None:
    """Runs the steps that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=["train", "check"], help="default: train check")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    for name, (default, meaning) in SETTINGS.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{meaning}; default: %(default)s")
    args = parser.parse_args()

    for step in args.steps:
        print(f"== {step}", flush=True)
        STEPS[step](args)


if __name__ == "__main__":
    main()
