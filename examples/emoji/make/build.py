"""Rebuild the embedded default, a tiny pre-trained CLIP and its emoji data sets, from pinned npm packages.

    python examples/emoji/make/build.py                                # all; pre-training takes an hour on two cores
    python examples/emoji/make/build.py --steps fetch,data             # only the data sets
    python examples/emoji/make/build.py --steps pretrain --minutes 5   # a quick, weaker model
    python examples/emoji/make/build.py --steps check                  # measure the shipped model, rewrite the cards

Steps, in this order:
  fetch     install the npm packages of styles.yaml (needs npm and node), refuse one whose licence has changed
  data      render the drawings, write ../data (sets, words for guidance) and the attributions, learn the tokenizer
  scenes    paste drawings into scenes with masks, write ../data/scenes
  pretrain  train from scratch or resume from the last checkpoint, install the model in ../model
  check     load model and data offline as a user does, measure, write both cards

Work files go to .build/ beside this file. Nothing is chosen on the test style: only `check` looks at it.
"""

import argparse
import json
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import art
import cards
import few_shots
import numpy as np
import pretrain
import scenes
import torch
from datasets import ClassLabel, Dataset, Features, Image, List, Value, load_dataset
from tokenizers import pre_tokenizers
from transformers import CLIPModel, CLIPProcessor, CLIPTokenizer, pipeline

from hf_pmgaft.prompts import prompt_name

EMOJI = Path(__file__).parents[1]
BUILD = pretrain.BUILD
DATA, MODEL, LICENSES = EMOJI / "data", EMOJI / "model", EMOJI / "LICENSES"
VOCABULARY = 2000
BOS, EOS = "<|startoftext|>", "<|endoftext|>"


# --------------------------------------------------------------------------------------------------------------- data


def fetch(args):
    """Installs the pinned packages, and refuses one whose licence has changed."""
    modules = art.fetch(BUILD)
    art.check_licences(modules)


def data(args):
    """Renders the drawings, and writes the sets, the words for guidance, the attributions and the tokenizer."""
    modules = BUILD / "npm/node_modules"
    emojis = art.load_emoji(modules)
    arrays = art.render_all(emojis, modules, BUILD / "scratch")

    # What pre-training reads
    np.savez(BUILD / "art.npz", **arrays)
    (BUILD / "emoji.json").write_text(json.dumps([vars(emoji) for emoji in emojis], ensure_ascii=False, indent=1))
    train_tokenizer(emojis).save_pretrained(BUILD / "tokenizer")

    # What is shipped
    write_sets(emojis, arrays)
    few = few_shots.choose(arrays)
    write_few_shots(emojis, arrays, few)
    (DATA / "class_names.txt").write_text("\n".join(emoji.label for emoji in emojis) + "\n")
    (DATA / "guidance_names.txt").write_text("\n".join(guidance_names(emojis)) + "\n")
    (LICENSES / "ATTRIBUTION.md").write_text(cards.attribution(few_shots.styles(arrays, few)))


def write_sets(emojis: list[art.Emoji], arrays: dict[str, np.ndarray]):
    """Writes the set to fine-tune on, those of each group, and those of the shifted styles."""
    styles = list(art.load_styles().values())
    images = art.on_white(arrays["frames"])
    groups = np.array([emoji.group for emoji in emojis])[arrays["emoji"]]
    roles = np.array([style["role"] for style in styles])[arrays["style"]]
    finetune = np.array([style.get("finetune", False) for style in styles])[arrays["style"]]

    # By group, with its classes
    rows = {("finetune", "train"): np.flatnonzero(finetune & (groups == "animals"))}
    for group in art.GROUPS.values():
        for role in ("test", "validation"):
            rows[group, role] = np.flatnonzero((groups == group) & (roles == role))
    for (config, split), chosen in rows.items():
        group = "animals" if config == "finetune" else config
        classes = [emoji.label for emoji in emojis if emoji.group == group]
        write_set(emojis, arrays, images, chosen, classes, DATA / config / f"{split}.parquet")

    # Shifted styles, with all classes and without copies of what was seen
    classes = [emoji.label for emoji in emojis]
    copied = art.copies(arrays)
    for style_id, (name, style) in enumerate(art.load_styles().items()):
        if style["role"] == "shift":
            drawn = arrays["style"] == style_id
            print(f"  {name}: {copied[drawn].sum()} copies left out", flush=True)
            chosen = np.flatnonzero(drawn & ~copied)
            write_set(emojis, arrays, images, chosen, classes, DATA / "shift" / f"{split_name(name)}.parquet")


def write_few_shots(emojis: list[art.Emoji], arrays: dict[str, np.ndarray], few: few_shots.FewShots):
    """Writes the splits of the few-shot set, and how many drawings the emoji have."""
    images = art.on_white(arrays["frames"])
    classes = [emojis[index].label for index in few.emoji]
    for split, rows in few.rows.items():
        write_set(emojis, arrays, images, rows, classes, DATA / "few_shots" / f"{split}.parquet", marked=True)
    (DATA / "few_shots" / "drawings.json").write_text(json.dumps(few.counted) + "\n")


def split_name(style: str) -> str:
    """A style's name as `datasets` allows it for a split."""
    return style.replace("-", "_")


def write_set(emojis, arrays, images, rows, classes: list[str], path: Path, marked: bool = False):
    """Write the images `rows`, in Unicode order, as one parquet file with the list of all classes to choose from.

    `marked` adds a column `seen`: whether pre-training saw the drawing.
    """
    styles = art.load_styles()
    names = list(styles)
    features = Features(
        image=Image(),
        label=ClassLabel(names=classes),
        emoji=Value("string"),
        style=Value("string"),
        tags=List(Value("string")),
        **({"seen": Value("bool")} if marked else {}),
    )

    records = []
    for row in sorted(rows, key=lambda row: (arrays["emoji"][row], arrays["style"][row])):
        emoji = emojis[arrays["emoji"][row]]
        style = names[arrays["style"][row]]
        records.append(
            {
                "image": {"bytes": art.webp(images[row]), "path": None},
                "label": classes.index(emoji.label),
                "emoji": emoji.character,
                "style": style,
                "tags": list(emoji.tags),
                **({"seen": styles[style]["role"] == "train"} if marked else {}),
            }
        )

    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(records, features=features).to_parquet(path)
    size = path.stat().st_size / 1e3
    print(f"  {path.relative_to(EMOJI)}: {len(records)} images, {len(classes)} classes, {size:.0f} kB", flush=True)


def guidance_names(emojis: list[art.Emoji]) -> list[str]:
    """All tags that are not the name of an emoji, as they stand in a prompt."""
    labels = {prompt_name(emoji.label) for emoji in emojis}
    tags = {prompt_name(tag) for emoji in emojis for tag in emoji.tags}
    return sorted(tags - labels - {""})


def train_tokenizer(emojis: list[art.Emoji]) -> CLIPTokenizer:
    """A CLIP tokenizer whose merges are learnt from the emoji's names, tags and prompts."""
    corpus = [text for emoji in emojis for text in (emoji.label, emoji.label, emoji.subgroup, *emoji.tags)]
    corpus += [template.format("") for template in pretrain.TEMPLATES] * 50
    backend = CLIPTokenizer().backend_tokenizer
    words = Counter(
        word
        for text in corpus
        for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))
    )

    # All bytes, inside and at the end of a word, so that no text needs the unknown token (which would end it).
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    base = [BOS, EOS, *alphabet, *(letter + "</w>" for letter in alphabet)]
    merges = learn_merges(words, VOCABULARY - len(base))
    tokens = dict.fromkeys(base + ["".join(pair) for pair in merges])

    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=merges,
        unk_token=EOS,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        model_max_length=pretrain.CONTEXT,
    )


def learn_merges(words: Counter, count: int, end: str = "</w>") -> list[tuple[str, str]]:
    """Byte-pair merges, most frequent first, equals in alphabetical order (which `BpeTrainer` leaves to chance).

    `end` marks the last letter of a word.
    """
    spelled = {word: [*word[:-1], word[-1] + end] for word in words}
    merges = []
    while len(merges) < count:
        pairs = Counter()
        for word, parts in spelled.items():
            for pair in pairwise(parts):
                pairs[pair] += words[word]
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word, parts in spelled.items():
            if best in pairwise(parts):
                spelled[word] = merge(parts, best)
    return merges


def merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """The parts of a word, with each occurrence of a pair made one part."""
    merged = []
    for part in parts:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return merged


def write_scenes(args):
    """Writes the scenes, from what the step `data` left."""
    emojis = [art.Emoji(**each) for each in json.loads((BUILD / "emoji.json").read_text())]
    with np.load(BUILD / "art.npz") as arrays:
        scenes.write(emojis, dict(arrays), DATA / "scenes")


# -------------------------------------------------------------------------------------------------------------- model


def train(args):
    """Pre-trains, and installs the model."""
    pretrain.train(args)
    install(BUILD / args.name)


def install(trained: Path):
    """Copies a trained folder to ../model; its card is written by the next step."""
    MODEL.mkdir(exist_ok=True)
    for source in trained.iterdir():
        shutil.copyfile(source, MODEL / source.name)

    tokenizer_config = json.loads((MODEL / "tokenizer_config.json").read_text())
    for key in ("is_local", "local_files_only"):  # say where the tokenizer was loaded from, not what it is
        tokenizer_config.pop(key, None)
    (MODEL / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=2) + "\n")


def check(args):
    """Measures the shipped model on both held-out styles, offline, as a user loads it, and writes both cards."""
    torch.set_num_threads(args.threads)
    model, report = CLIPModel.from_pretrained(MODEL, output_loading_info=True)
    if report["missing_keys"] or report["unexpected_keys"]:
        raise RuntimeError(f"{MODEL} is not a plain CLIP checkpoint: {report}")

    processor = CLIPProcessor.from_pretrained(MODEL)
    sets = {group: load_dataset(str(DATA), group) for group in art.GROUPS.values()}
    figures = {split: measure(model, processor, sets, split) for split in ("test", "validation")}
    for group in figures["test"]:
        print(f"  {group:11} test {figures['test'][group]:5.1f}   validation {figures['validation'][group]:5.1f}")

    check_pipeline(sets["food"]["test"][0])
    write_cards(figures, sets)


def measure(model, processor, sets, split: str) -> dict[str, float]:
    """Zero-shot top-1 in per cent per group and their mean (on `validation` without flags, of which it has 15)."""
    accuracy = {group: top1(model, processor, groups[split]) for group, groups in sets.items()}
    counted = [value for group, value in accuracy.items() if split == "test" or group != "flags"]
    return accuracy | {"mean": float(np.mean(counted))}


@torch.no_grad()
def top1(model, processor, dataset) -> float:
    """Zero-shot top-1 accuracy on a set in per cent."""
    prompts = [pretrain.PROMPT.format(name) for name in dataset.features["label"].names]
    inputs = processor(text=prompts, images=dataset["image"][:], return_tensors="pt", padding=True)
    predicted = model(**inputs).logits_per_image.argmax(1)
    return 100 * (predicted == torch.tensor(dataset["label"][:])).float().mean().item()


def check_pipeline(example):
    """Prints what a `pipeline` of transformers, made of the folder as it is, answers about one image."""
    classify = pipeline("zero-shot-image-classification", model=str(MODEL))
    answers = classify(example["image"], candidate_labels=["grapes", "pizza"], hypothesis_template=pretrain.PROMPT)
    print(f"  pipeline on {example['emoji']}: {answers}")


def write_cards(figures, sets):
    """Writes the cards of data and model, from what was counted and measured."""
    write_data_card(sets)
    record = json.loads((MODEL / "pretraining.json").read_text())
    (MODEL / "README.md").write_text(cards.model_card(figures, record))


def write_data_card(sets):
    """Writes the card of the data, from what was counted."""
    finetune = load_dataset(str(DATA), "finetune")
    few, of_scenes = (
        {
            split: Dataset.from_parquet(str(DATA / name / f"{split}.parquet"))
            for split in ("train", "validation", "test")
        }
        for name in ("few_shots", "scenes")
    )
    everything = {"finetune": finetune} | sets | {"few_shots": few}
    counts = {name: {split: len(rows) for split, rows in parts.items()} for name, parts in everything.items()}
    classes = {name: next(iter(parts.values())).features["label"].num_classes for name, parts in everything.items()}
    shift = {
        split_name(name): Dataset.from_parquet(str(DATA / "shift" / f"{split_name(name)}.parquet")).num_rows
        for name, style in art.load_styles().items()
        if style["role"] == "shift"
    }
    drawings = json.loads((DATA / "few_shots" / "drawings.json").read_text())
    scene_counts = {split: len(rows) for split, rows in of_scenes.items()}
    (DATA / "README.md").write_text(cards.data_card(counts, classes, shift, drawings, scene_counts))


STEPS = {"fetch": fetch, "data": data, "scenes": write_scenes, "pretrain": train, "check": check}


def parse_steps(text: str) -> list[str]:
    """The steps that a comma-separated text names, in the order in which they run."""
    chosen = text.split(",")
    unknown = sorted(set(chosen) - set(STEPS))
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown step {', '.join(unknown)}; choose from {','.join(STEPS)}")
    return [step for step in STEPS if step in chosen]


def main():
    """Runs the steps that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=parse_steps, default=list(STEPS), help="comma-separated; default: all")
    pretrain.add_arguments(parser.add_argument_group("pre-training"))
    args = parser.parse_args()

    for step in args.steps:
        print(f"== {step}", flush=True)
        STEPS[step](args)


if __name__ == "__main__":
    main()
