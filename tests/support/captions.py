"""Images with captions, and what token ids say."""

import datasets
import torch

from support.tiny import make_images

# Images 0 to 5 have one, two, three, one, ... captions, of different lengths.
CAPTIONS = [[f"this is {' '.join(['the'] * k)} disc" for k in range(1, 2 + i % 3)] for i in range(6)]


def captioned(captions=CAPTIONS, column: str = "caption", labels: bool = False) -> datasets.Dataset:
    data = make_images(len(captions)).add_column(column, captions)
    return data if labels else data.remove_columns("label")


def words(processor, ids: torch.Tensor) -> str:
    return processor.tokenizer.decode(ids, skip_special_tokens=True)


def texts_of(processor, example) -> list[str]:
    return [words(processor, ids) for ids in example["input_ids"]]
