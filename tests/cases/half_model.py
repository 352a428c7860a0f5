"""A model object in half precision (what `from_pretrained` gives of a half checkpoint) is trained in it, unasked."""

import os
import sys
import tempfile

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
import datasets
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor, CLIPModel

from hf_pmgaft import PMGAFTConfig, PMGAFTTrainer

source, data = "examples/emoji/model", datasets.load_dataset("examples/emoji/data", "finetune", split="train")
moved, saved = {}, {}
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    folder = tempfile.mkdtemp()
    CLIPModel.from_pretrained(source, dtype=torch.bfloat16).to(dtype).save_pretrained(folder)  # equal weights
    model = CLIPModel.from_pretrained(folder)  # in the dtype that it was saved in
    before = {name: p.detach().float().clone() for name, p in model.named_parameters()}
    args = PMGAFTConfig(
        tempfile.mkdtemp(),
        eps="4/255",
        learning_rate=1e-5,
        lr_scheduler_type="constant",
        max_steps=10,
        weight_decay=0.0,
        per_device_train_batch_size=4,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        do_eval=False,
        logging_steps=100,
    )
    trainer = PMGAFTTrainer(
        model,
        args,
        train_dataset=data.select(range(40)),
        prompt_templates="an emoji of {}",
        processing_class=AutoProcessor.from_pretrained(source),
    )
    trainer.train()
    trainer.save_model()
    steps = [(p.detach().float() - before[n]).norm() for n, p in trainer.model.named_parameters() if p.requires_grad]
    moved[dtype] = torch.stack(steps).norm().item()
    saved[dtype] = {value.dtype for value in load_file(f"{args.output_dir}/model.safetensors").values()}
    print(f"{dtype}: the weights moved by {moved[dtype]:.4f}, saved as {saved[dtype]}")
bad = any(not 0.8 < moved[d] / moved[torch.float32] < 1.25 for d in moved)
print("WRONG: the same run moves the weights by another length" if bad else "RIGHT")
sys.exit(bad)
