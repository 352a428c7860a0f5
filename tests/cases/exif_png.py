"""Whole images whose EXIF block is broken are refused; CLIPProcessor, and so the pipeline, read them."""

import io
import os
import sys

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
import datasets
from PIL import Image
from transformers import AutoProcessor

from hf_pmgaft import ZeroShotDataset

processor = AutoProcessor.from_pretrained("examples/emoji/model")
image, bad = datasets.load_dataset("examples/emoji/data", "food", split="test")[0]["image"].convert("RGB"), 0
for kind in ("JPEG", "PNG", "WEBP"):
    file = io.BytesIO()
    image.save(file, kind, exif=b"Exif\x00\x00broken block")
    processor.image_processor(images=Image.open(io.BytesIO(file.getvalue())))  # no error
    rows = [{"image": file.getvalue(), "label": 0}, {"image": file.getvalue(), "label": 1}]
    try:
        ZeroShotDataset(rows, processor, ["a", "b"])[0]
        fault, outcome = False, "read"
    except ValueError as error:
        fault, outcome = True, str(error)
    bad += fault
    print(f"{'WRONG' if fault else 'right'}: {kind}: {outcome}")
print("WRONG" if bad else "RIGHT")
sys.exit(bool(bad))
