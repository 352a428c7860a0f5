"""Trainers of every pair of an objective and a tuning."""

from hf_pmgaft import PMGAFTTrainer
from hf_pmgaft.objectives import OBJECTIVES
from support.tiny import CLASS_NAMES, make_images
from support.trainers import LORA, make_trainer

# Each tuning with options that fit a tiny model; those that train the text side are live.
OPTIONS = {
    "deep_prompts": {"num_tokens": 2, "depth": 1},
    "last_blocks": {"blocks": 1},
    "peft": LORA,
    "peft of both towers": {**LORA, "towers": "both"},
    "r_adapter": {"drop": 0.0},
    "text_context": {"num_tokens": 3},
    "vision_tower": {},
}


def images_for(objective: str):
    images = make_images()
    if not OBJECTIVES[objective].uses_captions:
        return images
    texts = [
        [f"a photo of the {CLASS_NAMES[label]}", f"an image of {CLASS_NAMES[label]}"] for label in images["label"]
    ]
    return images.add_column("captions", texts)


def make(folder, objective: str, tuning: str = "vision_tower", model=None, **options) -> PMGAFTTrainer:
    chosen = {"objective": objective, "tuning": tuning.split()[0], "tuning_kwargs": OPTIONS[tuning]}
    options = {"weight_decay": 0.0, "learning_rate": 5e-3, **options}
    return make_trainer(folder, images_for(objective), model, **chosen, **options)
