"""Trainers of the tiny CLIP, and what they did."""

import hashlib

import torch

from hf_pmgaft import PMGAFTConfig, PMGAFTTrainer
from support.tiny import make_images, make_model, make_processor

LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "fc1"], "init_lora_weights": "gaussian"}


OWN_ARGUMENTS = ("eval_dataset", "teacher", "compute_metrics", "callbacks", "data_collator", "optimizers")


def make_trainer(tmp_path, images=None, model=None, peft_config=None, **options) -> PMGAFTTrainer:
    images = make_images() if images is None else images
    defaults = dict(
        output_dir=str(tmp_path),
        eps="8/255",
        per_device_train_batch_size=8,
        per_device_eval_batch_size=8,
        learning_rate=2e-3,
        max_steps=3,
        logging_steps=1,
        eval_num_steps=3,
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_num_workers=0,
    )

    extra = {key: options.pop(key) for key in OWN_ARGUMENTS if key in options}
    return PMGAFTTrainer(
        model=make_model() if model is None else model,
        args=PMGAFTConfig(**{**defaults, **options}),
        train_dataset=images,
        processing_class=make_processor(),
        prompt_templates="a photo of the {}",
        peft_config=peft_config,
        **extra,
    )


def losses(trainer) -> list[float]:
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def state(model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def digest(trainer) -> str:
    found = hashlib.sha256()
    for name, value in sorted(trainer.plain_model().state_dict().items()):
        found.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
