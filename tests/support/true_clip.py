"""`openai/clip-vit-base-patch32` as it is but for its weights, which are random: true configuration and, where it can
be found, true vocabulary."""

from __future__ import annotations

import gzip
import importlib.util
import os
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from support.recipes import make_processor

VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"  # in the package open_clip_torch
NUM_MERGES = 48_894


def make_true_clip() -> tuple[CLIPModel, CLIPProcessor]:
    """A ViT-B/32 of 151 M random weights, and its processor for 224 pixels."""
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config={"eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1})).eval()
    return model, CLIPProcessor(image_processor=CLIPImageProcessorPil(), tokenizer=true_tokenizer())


def true_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer from the vocabulary of open_clip; that of the tests, of few words, where there is none."""
    file = find_vocabulary()
    if file is None:
        return make_processor().tokenizer
    lines = gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")
    merges = lines[1 : NUM_MERGES + 1]
    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(merge.split()) for merge in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=[tuple(merge.split()) for merge in merges],
        model_max_length=77,
    )


def find_vocabulary() -> Path | None:
    """The file that the variable `CLIP_VOCABULARY` names, or that of an installed open_clip."""
    if "CLIP_VOCABULARY" in os.environ:
        return Path(os.environ["CLIP_VOCABULARY"])
    spec = importlib.util.find_spec("open_clip")
    return None if spec is None else Path(spec.submodule_search_locations[0]) / VOCABULARY
