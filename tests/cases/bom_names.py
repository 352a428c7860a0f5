"""A file of class names with a byte order mark (Notepad, Excel) changes the first class; other encodings: no name."""

import os
import pathlib
import sys
import tempfile

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
from transformers import AutoProcessor

from hf_pmgaft import encode_class_names, load_model
from hf_pmgaft.prompts import read_names

model, processor = load_model("examples/emoji/model"), AutoProcessor.from_pretrained("examples/emoji/model")
file, bad = pathlib.Path(tempfile.mkdtemp()) / "names.txt", 0
right = encode_class_names(model, processor, ["grapes", "melon"])
for encoding in ("utf-8", "utf-8-sig", "utf-16", "latin-1"):
    file.write_text("grapes\nmelon\n" + ("café\n" if encoding == "latin-1" else ""), encoding=encoding)
    try:
        names = read_names(file)
        embeds = encode_class_names(model, processor, names[:2])
        cosine = (embeds * right).sum(1).min().item()
        fault, outcome = cosine < 0.999, f"names {names}, cosine to the right embedding {cosine:.3f}"
    except ValueError as error:
        fault, outcome = "names.txt" not in str(error), f"{type(error).__name__}: {error}"
    bad += fault
    print(f"{'WRONG' if fault else 'right'}: {encoding}: {outcome}")
print("WRONG" if bad else "RIGHT")
sys.exit(bool(bad))
