"""A tiny random CLIP (hidden and projection widths unequal), its processor, and a small set that can be learned."""

import io
import re
from collections.abc import Iterable, Sequence

import datasets
import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from hf_pmgaft.prompts import prompt_name

CLASS_NAMES = ["red disc", "green disc", "blue square", "yellow square"]


WORDS = "a photo of this is an emoji the red green blue yellow disc square image".split()


SIZE = 16


def make_model(seed: int = 0, projection_dim: int = 24, text_layers: int = 1, vocab_size: int = 32) -> CLIPModel:
    torch.manual_seed(seed)
    text = dict(hidden_size=16, intermediate_size=32, num_attention_heads=2, vocab_size=vocab_size)
    text["num_hidden_layers"] = text_layers
    vision = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    config = CLIPConfig(
        text_config={**text, "max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1},
        vision_config={**vision, "image_size": SIZE, "patch_size": 4},
        projection_dim=projection_dim,
    )
    config.text_config.projection_dim = config.vision_config.projection_dim = projection_dim
    model = CLIPModel(config).eval()
    with torch.no_grad():  # the default initialisation is so small that no gradient would be seen
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return model


def make_processor(words: Sequence[str] = WORDS) -> CLIPProcessor:
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, "<unk>": 2}
    vocabulary.update({word: i + 3 for i, word in enumerate(words)})
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>", special_tokens=[("<|startoftext|>", 0), ("<|endoftext|>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        unk_token="<unk>",
        model_max_length=16,
    )
    size = {"shortest_edge": SIZE}
    images = CLIPImageProcessorPil(size=size, crop_size={"height": SIZE, "width": SIZE})
    return CLIPProcessor(image_processor=images, tokenizer=fast)


def make_pair_for(class_names: Iterable[str]) -> tuple[CLIPModel, CLIPProcessor]:
    """A model and a processor that know the words of these names too, so that no two of them are the same tokens."""
    words = {word: None for name in class_names for word in re.findall(r"\w+|[^\w\s]+", prompt_name(name))}
    processor = make_processor(list(dict.fromkeys([*WORDS, *words])))
    return make_model(vocab_size=len(processor.tokenizer)), processor


def draw(label: int, rng: np.random.Generator) -> Image.Image:
    """A noisy disc or square in the class's colour on white, somewhere near the middle."""
    pixels = np.full((20, 20, 3), 230.0)
    colour = np.array([(210, 40, 40), (40, 180, 60), (50, 70, 210), (220, 200, 40)][label])
    y, x = np.mgrid[:20, :20] - rng.integers(8, 12, size=2)[:, None, None]
    mask = x**2 + y**2 < 36 if label < 2 else (abs(x) < 6) & (abs(y) < 6)
    pixels[mask] = colour
    pixels += rng.normal(0, 12, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def make_images(size: int = 32, seed: int = 0) -> datasets.Dataset:
    rng = np.random.default_rng(seed)
    labels = [i % len(CLASS_NAMES) for i in range(size)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASS_NAMES)})
    return datasets.Dataset.from_dict({"image": [draw(k, rng) for k in labels], "label": labels}, features=features)


def fit_model() -> tuple[CLIPModel, CLIPProcessor]:
    """A model that has learned the classes, so that there is something to lose."""
    model, processor, data = make_model(), make_processor(), make_images(64)
    pixels = processor.image_processor(list(data["image"]), return_tensors="pt")["pixel_values"]
    text = processor.tokenizer([f"a photo of the {n}" for n in CLASS_NAMES], return_tensors="pt", padding=True)
    labels = torch.tensor(data["label"])
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model(pixel_values=pixels, **text).logits_per_image, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    return model.eval(), processor


def encoded(picture: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, options.pop("format", "PNG"), **options)
    return buffer.getvalue()
