"""Pre-train the tiny CLIP of the embedded default from scratch on two CPU cores.

    python examples/emoji/make/pretrain.py --minutes 70

Reads what the `data` step of build.py left in `.build/`, writes checkpoints and the best model there, and resumes from
the last checkpoint. The learning rate follows the share of the wall-clock budget that is used, so that a run ends on
time on a busy machine too; the number of steps is what differs. Every choice is made on the validation style.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve each other on a shared machine

import art
import augment
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from hf_pmgaft.models.processors import save_processor

BUILD = Path(__file__).parent / ".build"
TEMPLATES = ("an emoji of {}", "a picture of {}", "an icon of {}", "a drawing of {}", "a photo of {}")
PROMPT = TEMPLATES[0]
IMAGE_SIZE, PATCH, WIDTH, CONTEXT = 40, 8, 128, 24
BATCH = 128
MEAN, STD = 0.5, 0.25
SETTINGS = {
    "seed": (0, "of weights, batches, captions and augmentation"),
    "muon_lr": (3e-3, "learning rate of the matrices"),
    "adam_lr": (1.5e-3, "learning rate of all else"),
    "ema": (0.998, "decay of the averaged weights"),
    "kept_patches": (15, "of 25, for the first 75 %% of the budget"),
    "strength": (0.8, "of the augmentation"),
    "bank_weight": (1.0, "weight of classifying images among the names of all emoji"),
    "bank_every": (20, "steps between refreshes of the names' embeddings"),
    "label_smoothing": (0.05, "of that classification"),
}
UNFLIPPABLE = {"symbols", "flags"}
UNFLIPPABLE_SUBGROUPS = {"time", "arrow"}


# ---------------------------------------------------------------------------------------------------------- the model


def build_config(tokenizer) -> CLIPConfig:
    """A CLIP of four vision blocks and two text blocks."""
    tower = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_attention_heads": 4,
        "hidden_act": "gelu",
        "projection_dim": WIDTH,
    }
    return CLIPConfig(
        text_config=dict(
            tower,
            num_hidden_layers=2,
            vocab_size=len(tokenizer),
            max_position_embeddings=CONTEXT,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        ),
        vision_config=dict(tower, num_hidden_layers=4, image_size=IMAGE_SIZE, patch_size=PATCH),
        projection_dim=WIDTH,
        logit_scale_init_value=math.log(16),
    )


def build_processor(tokenizer) -> CLIPProcessor:
    """The processor of the model's image size and pixel statistics."""
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    images = CLIPImageProcessor(size=size, crop_size=size, image_mean=[MEAN] * 3, image_std=[STD] * 3)
    return CLIPProcessor(images, tokenizer)


@torch.no_grad()
def initialise(model: CLIPModel, pixel_values: torch.Tensor):
    """Sets the first weights: whitening patch filters, sine-cosine positions, token embeddings of a useful size."""
    vision, text = model.vision_model.embeddings, model.text_model.embeddings

    # Filters that whiten the patches
    patches = F.unfold(pixel_values, PATCH, stride=PATCH).transpose(1, 2).reshape(-1, 3 * PATCH * PATCH)
    values, vectors = torch.linalg.eigh(torch.cov(patches.T))
    values, vectors = values.flip(0)[:WIDTH], vectors.flip(1)[:, :WIDTH]
    filters = vectors / (values + 1e-3 * values[0]).sqrt()
    vision.patch_embedding.weight.copy_(filters.T.reshape(vision.patch_embedding.weight.shape))

    # Positions
    side = torch.arange(IMAGE_SIZE // PATCH)
    grid = torch.cartesian_prod(side, side)
    vision.position_embedding.weight[0] = 0
    vision.position_embedding.weight[1:] = 0.5 * torch.cat([sine_cosine(grid[:, 0]), sine_cosine(grid[:, 1])], 1)
    text.position_embedding.weight.copy_(0.05 * sine_cosine(torch.arange(CONTEXT), WIDTH))

    text.token_embedding.weight.normal_(std=0.1)


def sine_cosine(positions: torch.Tensor, width: int = WIDTH // 2) -> torch.Tensor:
    """Sines and cosines of positions `[N]` at several frequencies, `[N, width]`."""
    angles = positions[:, None] / 100 ** torch.linspace(0, 1, width // 2)
    return torch.cat([angles.sin(), angles.cos()], 1)


def attend(attention, x, queries, mask=None, causal=False):
    """An attention layer of the model, of `queries` `[B, Q, D]` to all of `x` `[B, L, D]`."""

    def heads(states):
        return states.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)

    q, k, v = heads(attention.q_proj(queries)), heads(attention.k_proj(x)), heads(attention.v_proj(x))
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    return attention.out_proj(mixed.transpose(1, 2).flatten(2))


def encode(layers, x, pooled, mask, causal):
    """Run encoder layers, the last one only at the position `pooled` `[B]` that is read: `[B, L, D]` -> `[B, D]`."""
    for layer in layers[:-1]:
        normed = layer.layer_norm1(x)
        x = x + attend(layer.self_attn, normed, normed, causal=causal)
        x = x + layer.mlp(layer.layer_norm2(x))
    layer = layers[-1]
    rows = torch.arange(len(x))
    normed = layer.layer_norm1(x)
    last = x[rows, pooled] + attend(layer.self_attn, normed, normed[rows, pooled][:, None], mask)[:, 0]
    return last + layer.mlp(layer.layer_norm2(last))


def encode_images(model: CLIPModel, pixel_values: torch.Tensor, kept_patches: int | None = None) -> torch.Tensor:
    """Image embeddings `[B, D]`, unit norm. With `kept_patches`, each image is seen through so many random patches."""
    vision = model.vision_model
    x = vision.embeddings(pixel_values)
    if kept_patches:
        keep = torch.rand(len(x), x.shape[1] - 1).argsort(1)[:, :kept_patches] + 1
        keep = torch.cat([torch.zeros(len(x), 1, dtype=torch.long), keep], 1)
        x = x.gather(1, keep[..., None].expand(-1, -1, x.shape[-1]))
    first = torch.zeros(len(x), dtype=torch.long)
    x = encode(vision.encoder.layers, vision.pre_layrnorm(x), first, None, False)
    return F.normalize(model.visual_projection(vision.post_layernorm(x)), dim=-1)


def encode_texts(model: CLIPModel, input_ids: torch.Tensor) -> torch.Tensor:
    """Text embeddings `[B, D]` of tokens `[B, L]`, unit norm."""
    text = model.text_model
    end = (input_ids == text.eos_token_id).int().argmax(1)
    mask = (torch.arange(input_ids.shape[1]) <= end[:, None])[:, None, None]
    x = encode(text.encoder.layers, text.embeddings(input_ids), end, mask, True)
    return F.normalize(model.text_projection(text.final_layer_norm(x)), dim=-1)


# ----------------------------------------------------------------------------------------------------------- the data


class Drawings:
    """The training drawings, and batches of distinct emoji each in a random style."""

    def __init__(self, emojis: list[dict], arrays, seed: int):
        styles = list(art.load_styles().values())
        roles = np.array([style["role"] for style in styles])[arrays["style"]]
        train = np.flatnonzero(roles == "train")
        self.frames = torch.from_numpy(arrays["frames"][train]).permute(0, 3, 1, 2).contiguous()
        self.emoji = arrays["emoji"][train]
        style = arrays["style"][train]
        self.styles = len(np.unique(style))
        self.ink = torch.tensor([bool(styles[index].get("ink")) for index in style])

        # How likely each drawing of an emoji is, by the weights of the styles
        weight = np.array([styles[index].get("weight", 1.0) for index in style])
        self.order = np.argsort(self.emoji, kind="stable")
        totals = np.bincount(self.emoji, weight, len(emojis))
        shares = (weight / totals[self.emoji])[self.order]
        self.cumulative = np.cumsum(shares)  # the drawings of the k-th drawn emoji end at k + 1
        self.drawn = np.flatnonzero(totals)

        # What a drawing may be mirrored, and how emoji are grouped
        flippable = [e["group"] not in UNFLIPPABLE and e["subgroup"] not in UNFLIPPABLE_SUBGROUPS for e in emojis]
        self.flip = torch.tensor(flippable)
        self.groups = np.array([e["group"] for e in emojis])
        self.rng = np.random.default_rng(seed)

    def summary(self) -> dict[str, int]:
        """How many drawings of how many emoji there are, in how many styles."""
        return {"images": len(self.emoji), "emoji": len(self.drawn), "styles": self.styles}

    def sample_emoji(self, two_groups: bool) -> np.ndarray:
        """Distinct emoji of a batch, of all groups or of two, which are harder to tell apart."""
        pool = self.drawn
        if two_groups:
            chosen = self.rng.choice(sorted(set(self.groups)), 2, replace=False)
            pool = pool[np.isin(self.groups[pool], chosen)]
        return self.rng.choice(pool, BATCH, replace=False)

    def sample_rows(self, emoji: np.ndarray) -> torch.Tensor:
        """One drawing of each emoji, styles drawn by their weights."""
        points = np.searchsorted(self.drawn, emoji) + self.rng.uniform(1e-6, 1 - 1e-6, len(emoji))
        return torch.from_numpy(self.order[np.searchsorted(self.cumulative, points)])

    def batch(self, two_groups: bool, strength: float) -> tuple[np.ndarray, torch.Tensor]:
        """Emoji indices `[B]` and augmented `pixel_values`."""
        emoji = self.sample_emoji(two_groups)
        rows, others = self.sample_rows(emoji), self.sample_rows(emoji)
        frames, other_frames = self.frames[rows].float() / 255, self.frames[others].float() / 255
        flip = self.flip[emoji]
        images = augment.augment(frames, other_frames, self.ink[rows], self.ink[others], flip, IMAGE_SIZE, strength)
        return emoji, (images - MEAN) / STD


class Captions:
    """Random captions of an emoji: mostly its name in a template, else its name, its tags, or its subgroup."""

    def __init__(self, emojis: list[dict], tokenizer, seed: int):
        self.emojis = emojis
        self.names = [e["label"].replace("flag: ", "flag of ") for e in emojis]
        self.tokenizer = tokenizer
        self.known, self.blocks = {}, []
        self.rng = np.random.default_rng(seed)

    def caption(self, index: int) -> str:
        """One caption of an emoji."""
        emoji = self.emojis[index]
        draw = self.rng.random()
        template = TEMPLATES[self.rng.integers(len(TEMPLATES))]
        tags = emoji["tags"] or [self.names[index]]
        if draw < 0.55:
            # The prompts that users write carry the Unicode label itself: "flag: france".
            return template.format(emoji["label"] if self.rng.random() < 0.5 else self.names[index])
        if draw < 0.70:
            return self.names[index]
        if draw < 0.85:
            return ", ".join(self.rng.permutation(tags)[: self.rng.integers(1, 4)])
        return template.format(emoji["subgroup"] if self.rng.random() < 0.3 else tags[self.rng.integers(len(tags))])

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, which is tokenized once."""
        if text not in self.known:
            self.known[text] = self.tokenizer(text, truncation=True, max_length=CONTEXT).input_ids
        return self.known[text]

    def pad(self, texts: list[str]) -> torch.Tensor:
        """The tokens of texts, padded to the longest, `[B, L]`."""
        ids = [torch.tensor(self.ids(text)) for text in texts]
        return torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self.tokenizer.pad_token_id)

    def batch(self, indices) -> torch.Tensor:
        """The tokens of one caption of each emoji."""
        return self.pad([self.caption(index) for index in indices])

    def prompts(self) -> list[torch.Tensor]:
        """Tokens of the prompt of every emoji, in blocks of like ones, since a block is as long as its longest."""
        if not self.blocks:
            texts = [PROMPT.format(emoji["label"]) for emoji in self.emojis]
            self.blocks = [self.pad(texts[start : start + 64]) for start in range(0, len(texts), 64)]
        return self.blocks


# ------------------------------------------------------------------------------------------------------- optimisation


@torch.no_grad()
def orthogonalise(matrices: torch.Tensor, steps: int = 4) -> torch.Tensor:
    """Newton-Schulz iteration of Muon (Jordan et al. 2024) on a stack of wide matrices `[N, rows, columns]`."""
    x = matrices / (matrices.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


class Muon:
    """Muon in fp32 for the 2-D weights of the layers, batched over equal shapes."""

    def __init__(self, parameters, lr: float, weight_decay: float = 0.05, momentum: float = 0.95):
        self.lr, self.weight_decay, self.momentum = lr, weight_decay, momentum
        shapes = {}
        for parameter in parameters:
            shapes.setdefault(tuple(sorted(parameter.shape)), []).append(parameter)
        self.stacks = list(shapes.values())
        self.buffers = [torch.zeros(len(stack), *shape) for shape, stack in shapes.items()]

    @torch.no_grad()
    def step(self, scale: float):
        for stack, buffer in zip(self.stacks, self.buffers, strict=True):
            wide = [p.shape[0] <= p.shape[1] for p in stack]
            gradient = torch.stack([p.grad if flat else p.grad.mT for p, flat in zip(stack, wide, strict=True)])
            buffer.lerp_(gradient, 1 - self.momentum)
            update = orthogonalise(gradient.lerp(buffer, self.momentum))
            size = 0.2 * max(buffer.shape[1:]) ** 0.5
            for parameter, delta, flat in zip(stack, update, wide, strict=True):
                parameter.mul_(1 - self.lr * scale * self.weight_decay)
                parameter.add_(delta if flat else delta.mT, alpha=-self.lr * scale * size)

    def state_dict(self):
        return {"buffers": self.buffers}

    def load_state_dict(self, state):
        self.buffers = state["buffers"]


def make_optimisers(model: CLIPModel, args) -> tuple[Muon, torch.optim.AdamW]:
    """Muon for the matrices of the layers, AdamW for all else."""
    named = dict(model.named_parameters())
    matrices = [name for name, p in named.items() if p.ndim == 2 and "embedding" not in name]
    rest = [p for name, p in named.items() if name not in matrices]
    muon = Muon([named[name] for name in matrices], args.muon_lr)
    return muon, torch.optim.AdamW(rest, args.adam_lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)


def learning_rate(used: float, step: int) -> float:
    """Warm-up, constant, linear decay over the last 40 % of the budget; `used` is the share of it that is gone."""
    return min(1.0, (step + 1) / 20, max(0.0, (1 - used) / 0.4))


def augmentation_strength(used: float) -> float:
    """Grows over the first 15 % of the budget; halves over the last 15 %, to end near the images that will be seen."""
    return min(1.0, 0.4 + 4 * used, 0.5 + (1 - used) / 0.3)


# ----------------------------------------------------------------------------------------------------------- training


def contrastive_loss(images, texts, scale):
    """CLIP's loss: each image is to be told by its text among those of the batch, and each text by its image."""
    logits = scale * images @ texts.T
    target = torch.arange(len(images))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


@torch.no_grad()
def encode_names(model: CLIPModel, captions: Captions) -> torch.Tensor:
    """Text embeddings of all emoji, prompted as in the evaluation, `[1526, D]`."""
    return torch.cat([encode_texts(model, ids) for ids in captions.prompts()])


class Validation:
    """Top-1 among the labels of the group, per group, on the validation style (images as the processor makes them)."""

    def __init__(self, emojis: list[dict], arrays, processor, captions: Captions):
        roles = np.array([style["role"] for style in art.load_styles().values()])
        rows = np.flatnonzero(roles[arrays["style"]] == "validation")
        images = [Image.fromarray(image) for image in art.on_white(arrays["frames"][rows])]
        self.pixel_values = processor.image_processor(images, return_tensors="pt").pixel_values
        self.target = torch.from_numpy(arrays["emoji"][rows])
        self.captions = captions

        groups = [emoji["group"] for emoji in emojis]
        self.groups = {name: torch.tensor([group == name for group in groups]) for name in dict.fromkeys(groups)}

    @torch.no_grad()
    def __call__(self, model) -> dict[str, float]:
        logits = encode_images(model, self.pixel_values) @ encode_names(model, self.captions).T
        accuracy = {}
        for name, members in self.groups.items():
            rows = members[self.target]
            best = logits[rows].masked_fill(~members, -torch.inf).argmax(1)
            accuracy[name] = 100 * (best == self.target[rows]).float().mean().item()
        accuracy["mean without flags"] = np.mean([value for name, value in accuracy.items() if name != "flags"]).item()
        return accuracy


class Run:
    """All that changes during pre-training, so that a checkpoint is complete."""

    def __init__(self, args):
        torch.manual_seed(args.seed)
        self.args = args
        self.emojis = json.loads((BUILD / "emoji.json").read_text())
        arrays = np.load(BUILD / "art.npz")
        tokenizer = CLIPTokenizer.from_pretrained(BUILD / "tokenizer")
        self.processor = build_processor(tokenizer)
        self.captions = Captions(self.emojis, tokenizer, args.seed)
        self.drawings = Drawings(self.emojis, arrays, args.seed)
        self.validation = Validation(self.emojis, arrays, self.processor, self.captions)

        self.model = CLIPModel(build_config(tokenizer))
        initialise(self.model, torch.cat([self.drawings.batch(False, 1.0)[1] for _ in range(8)]))
        self.ema = CLIPModel(self.model.config)
        self.ema.load_state_dict(self.model.state_dict())
        self.muon, self.adam = make_optimisers(self.model, args)

        self.generators = [self.drawings.rng, self.captions.rng]
        self.step = 0
        self.elapsed = 0.0  # seconds
        self.history = []  # of validation
        self.bank = None  # embeddings of all names

    def save(self, path: Path):
        """Writes a checkpoint, which replaces the one before when it is whole."""
        state = {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(),
            "progress": [self.step, self.elapsed, self.history],
            "rng": [torch.get_rng_state(), *(rng.bit_generator.state for rng in self.generators)],
        }
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)

    def load(self, path: Path):
        """Takes back what `save` wrote."""
        state = torch.load(path)
        for part in ("model", "ema", "muon", "adam"):
            getattr(self, part).load_state_dict(state[part])
        self.step, self.elapsed, self.history = state["progress"]
        torch.set_rng_state(state["rng"][0])
        for rng, rng_state in zip(self.generators, state["rng"][1:], strict=True):
            rng.bit_generator.state = rng_state

    def train_step(self, used: float) -> tuple[float, float]:
        """Makes a step, and returns the contrastive loss and that among the names; `used` is the budget's share."""
        args, model = self.args, self.model
        if self.bank is None or self.step % args.bank_every == 0:
            self.bank = encode_names(model, self.captions)

        # Images and texts
        strength = args.strength * augmentation_strength(used)
        emoji, pixel_values = self.drawings.batch(self.step % 2 == 1, strength)
        images = encode_images(model, pixel_values, args.kept_patches if used < 0.75 else None)
        texts = encode_texts(model, self.captions.batch(emoji))

        # Losses. The emoji's index in the bank of names is its class.
        scale = model.logit_scale.exp()
        loss = contrastive_loss(images, texts, scale)
        bank_logits = scale * images @ self.bank.T
        bank_loss = F.cross_entropy(bank_logits, torch.from_numpy(emoji), label_smoothing=args.label_smoothing)

        (loss + args.bank_weight * bank_loss).backward()
        self.update(learning_rate(used, self.step))
        return loss.item(), bank_loss.item()

    @torch.no_grad()
    def update(self, scale: float):
        """Moves the weights by their gradients, and the averaged weights towards them."""
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        self.muon.step(scale)
        self.adam.param_groups[0]["lr"] = self.args.adam_lr * scale
        self.adam.step()
        self.model.zero_grad()
        self.model.logit_scale.clamp_(max=math.log(100))

        self.step += 1
        keep = min(self.args.ema, self.step / (self.step + 10))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), 1 - keep)

    def report(self, losses):
        """Measures both kinds of weights on the validation style, and prints and notes how well they do."""
        raw, ema = self.validation(self.model), self.validation(self.ema)
        key = "mean without flags"
        minutes = round(self.elapsed / 60, 1)
        self.history.append({"step": self.step, "minutes": minutes, "raw": raw[key], "ema": ema[key]})
        groups = " ".join(f"{name} {value:.0f}" for name, value in ema.items() if name != key)
        print(
            f"step {self.step} {self.elapsed / 60:.1f} min loss {np.mean(losses, 0).round(3)} "
            f"scale {self.model.logit_scale.exp():.1f} val raw {raw[key]:.1f} ema {ema[key]:.1f} | {groups}",
            flush=True,
        )

    def export(self, folder: Path):
        """Save the better of raw and averaged weights, by the validation style, as a plain CLIP folder."""
        use_ema = self.history[-1]["ema"] >= self.history[-1]["raw"]
        (self.ema if use_ema else self.model).save_pretrained(folder)
        save_processor(self.processor, folder)

        record = {
            "steps": self.step,
            "minutes": round(self.elapsed / 60, 1),
            "weights": "EMA" if use_ema else "raw",
            "drawings": self.drawings.summary(),
            "settings": {name: getattr(self.args, name) for name in SETTINGS},
            "validation": self.history,
        }
        (folder / "pretraining.json").write_text(json.dumps(record, indent=1) + "\n")


def train(args):
    """Trains until the budget is used, from the last checkpoint if there is one, and writes the model."""
    torch.set_num_threads(args.threads)
    run = Run(args)
    checkpoint = BUILD / f"{args.name}.pt"
    if checkpoint.exists() and not args.restart:
        run.load(checkpoint)
        print(f"resumed {checkpoint.name} at step {run.step}, {run.elapsed / 60:.1f} minutes", flush=True)

    budget = 60 * args.minutes
    losses = []
    previous = time.monotonic()
    next_report = run.elapsed + 60 * args.report_minutes
    while run.elapsed < budget:
        losses.append(run.train_step(run.elapsed / budget))
        now = time.monotonic()
        run.elapsed, previous = run.elapsed + now - previous, now
        if run.elapsed >= next_report:
            run.report(losses)
            run.save(checkpoint)
            losses, next_report = [], run.elapsed + 60 * args.report_minutes

    if losses:
        run.report(losses)
        run.save(checkpoint)
    run.export(BUILD / args.name)


def main():
    """Trains as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    train(parser.parse_args())


def add_arguments(parser):
    """Adds the options of pre-training, which build.py takes too."""
    parser.add_argument("--minutes", type=float, default=70, help="wall-clock budget; default: %(default)s")
    parser.add_argument("--report-minutes", type=float, default=4, help="between validations; default: %(default)s")
    parser.add_argument("--name", default="pretrained", help="of the run's files in .build/; default: %(default)s")
    parser.add_argument("--restart", action="store_true", help="ignore an existing checkpoint")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    for name, (default, meaning) in SETTINGS.items():
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=type(default), default=default, help=f"{meaning}; default: %(default)s")


if __name__ == "__main__":
    main()
