"""Whole checkpoints with harmless buffers or a compiled model's prefix are refused with advice that does not help."""

import os
import pathlib
import sys
import tempfile

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
import torch

from hf_pmgaft import load_model, load_open_clip, to_open_clip

base = load_model("examples/emoji/model")
theirs, ours, number = to_open_clip(base), dict(base.state_dict()), torch.tensor
positions = {f"{tower}_model.embeddings.position_ids": torch.arange(24)[None] for tower in ("text", "vision")}
files = {
    "open_clip, as saved": theirs,
    "OpenAI's own state dict": theirs
    | {"input_resolution": number(40), "context_length": number(24), "vocab_size": number(9)},
    "transformers before 4.31 (position_ids)": ours | positions,
    "a model after torch.compile": {f"_orig_mod.{name}": value for name, value in theirs.items()},
    "compiled, under DDP": {f"module._orig_mod.{name}": value for name, value in theirs.items()},
}
bad = 0
for name, state in files.items():
    file = pathlib.Path(tempfile.mkdtemp()) / "model.pt"
    torch.save(state, file)
    try:
        loaded = load_open_clip(file, base).state_dict()
        fault, outcome = not all(torch.equal(loaded[key], value) for key, value in ours.items()), "opened"
    except ValueError as error:
        fault, outcome = True, str(error).partition("model: ")[2][:40] + " ... " + str(error)[-67:]
    bad += fault
    print(f"{'WRONG' if fault else 'right'}: {name}: {outcome}")
file = pathlib.Path(tempfile.mkdtemp()) / "ViT-B-32.pt"
torch.jit.script(torch.nn.Linear(2, 2)).save(str(file))  # OpenAI's own files are such archives
try:
    load_open_clip(file, base)
except ValueError as error:
    bad += "damaged" in str(error)
    print(f"{'WRONG' if 'damaged' in str(error) else 'right'}: a whole TorchScript archive: ...{str(error)[-130:]}")
print("WRONG" if bad else "RIGHT")
sys.exit(bool(bad))
