"""The options of `pmgaft train` beside those of `PMGAFTConfig`, and how `--help` groups all of them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from ..config import PMGAFTConfig
from ..models.processors import check_mean, check_std
from ..registry import check_count
from .set_options import HELP
from .suite_options import HELP as SUITE_HELP


@dataclass
class ModelArguments:
    """Which models a run takes, and what it writes beside the checkpoint."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Hub id, folder or file of weights of a CLIP; the embedded small CLIP if absent."},
    )
    revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of the model on the Hub; its newest if absent."}
    )
    processor: str | None = field(
        default=None, metadata={"help": "Hub id or folder of the processor, where the model has none."}
    )
    base: str | None = field(
        default=None,
        metadata={"help": "What the model was trained from, where its file holds weights alone or one tower."},
    )
    teacher_name_or_path: str | None = field(
        default=None, metadata={"help": "Frozen guide, named as a model; the model before training if not given."}
    )
    teacher_processor: str | None = field(
        default=None, metadata={"help": "Hub id or folder of the teacher's processor, where the teacher has none."}
    )
    teacher_base: str | None = field(default=None, metadata={"help": "What the teacher was trained from, as --base."})
    image_size: int | None = field(
        default=None, metadata={"help": "Train at another resolution, position embeddings interpolated once."}
    )
    image_mean: list[float] | None = field(
        default=None,
        metadata={"help": "Three means of pixels in [0,1] in place of the processor's; saved with the checkpoint."},
    )
    image_std: list[float] | None = field(
        default=None, metadata={"help": "Three standard deviations in place of the processor's; saved, too."}
    )
    lora_r: int = field(default=0, metadata={"help": "Rank of LoRA in the vision tower; 0 tunes the weights."})
    lora_alpha: int = field(default=16, metadata={"help": "LoRA's scaling numerator."})
    lora_dropout: float = field(default=0.0, metadata={"help": "LoRA's dropout."})
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
        metadata={"help": "Modules of the vision tower that LoRA adapts."},
    )
    merge_adapter: bool = field(
        default=True,
        metadata={
            "help": "Also save what serves without hf_pmgaft and peft: an adapter merged into a plain CLIPModel in "
            "OUTPUT_DIR/merged, or the class embeddings of learned prompts in OUTPUT_DIR/class_embeds.safetensors."
        },
    )
    push_merged: bool = field(
        default=False,
        metadata={"help": "With --push_to_hub, push what an adapter merges into, a plain CLIPModel, in its place."},
    )

    def __post_init__(self):
        if self.image_mean is not None:
            check_mean(self.image_mean)
        if self.image_std is not None:
            check_std(self.image_std)


@dataclass
class DataArguments:
    """Which sets a run trains on and evaluates, and how their rows are read."""

    dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "Fine-tuning set: a known set (tiny_imagenet, imagenet, ...), Hub id, ImageFolder, parquet or CSV "
            "file, save_to_disk or webdataset folder, [:config][@split][#revision]."
        },
    )
    eval_sets: list[str] = field(
        default_factory=list,
        metadata={"help": "Zero-shot sets, each known (dtd, food101, ...) or NAME[:config][@split][#revision]."},
    )
    suite: str | None = field(default=None, metadata={"help": SUITE_HELP["suite"]})
    suite_sets: list[str] = field(default_factory=list, metadata={"help": SUITE_HELP["suite_sets"]})
    data_root: str | None = field(default=None, metadata={"help": SUITE_HELP["data_root"]})
    limit: int | None = field(default=None, metadata={"help": SUITE_HELP["limit"]})
    final_attacks: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Attacks after training alone, each NAME[,option=value...], such as autoattack,version=standard; "
            "their report is robustness_final.json."
        },
    )
    eval_class_names: list[str] = field(default_factory=list, metadata={"help": HELP["eval_class_names"]})
    eval_image_column: list[str] = field(default_factory=list, metadata={"help": HELP["eval_image_column"]})
    eval_label_column: list[str] = field(default_factory=list, metadata={"help": HELP["eval_label_column"]})
    head: str | None = field(
        default=None,
        metadata={"help": "Classify by labelled images instead of class names: nearest_class_mean or linear_probe."},
    )
    support_sets: list[str] = field(
        default_factory=list, metadata={"help": "What --head is fitted on: for each of --eval_sets one set."}
    )
    retrieval_sets: list[str] = field(
        default_factory=list,
        metadata={"help": "Image-caption sets to measure recall on, beside --eval_sets, each NAME[:config][@split]."},
    )
    retrieval_captions: str = field(
        default="auto", metadata={"help": "Their caption columns, NAME[,NAME]; auto for the usual names."}
    )
    in_domain_set: str | None = field(
        default=None, metadata={"help": "The evaluation set whose classes are tuned on; a mean is given without it."}
    )
    image_column: str | None = field(default=None, metadata={"help": "Image column of the fine-tuning set."})
    label_column: str | None = field(default=None, metadata={"help": "Label column of the fine-tuning set."})
    caption_column: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Caption columns of the fine-tuning set, NAME[,NAME]; a cell is a text or a list of texts, a "
            "webdataset's json field json.FIELD; auto for the usual names."
        },
    )
    shots: int | None = field(
        default=None, metadata={"help": "Tune on so many images per class, drawn by --seed; all if not given."}
    )
    only_classes: str | None = field(
        default=None,
        metadata={
            "help": "Tune on some classes alone: base, the first half by label, new, the other one, or a text file of "
            "names."
        },
    )
    only_rows: str | None = field(
        default=None,
        metadata={"help": "Tune on rows alone whose column has one of some values: COLUMN=VALUE[,VALUE]."},
    )
    resize: int | None = field(
        default=None,
        metadata={
            "help": "Shortest edge of training images, in pixels, before the processor's crop; its own if absent."
        },
    )
    class_names: str | None = field(
        default=None,
        metadata={
            "help": "Text file with one class name per line, where the set has no ClassLabel or one of mere ids; or a "
            "list of the package, such as tiny_imagenet."
        },
    )
    accept_any_class_names: bool = field(default=False, metadata={"help": HELP["accept_any_class_names"]})
    prompt_template: str = field(default="This is a photo of a {}", metadata={"help": "How names become prompts."})
    guidance_names: str | None = field(
        default=None,
        metadata={"help": "Text file of names over which the guidance terms range instead of the classes."},
    )
    streaming: bool = field(default=False, metadata={"help": "Read the fine-tuning set while training."})
    shuffle_buffer: int = field(
        default=1000,
        metadata={
            "help": "With --streaming, draw each row from a buffer of so many, by --seed and in every pass anew; 0 "
            "reads them in order. Images wait in it as files, in every worker."
        },
    )
    cache_images: int = field(
        default=0,
        metadata={"help": "MiB of decoded images of the fine-tuning set that each process keeps; 0 decodes anew."},
    )
    check_data: bool = field(default=False, metadata={"help": "Read every row first and name those that are broken."})

    def __post_init__(self):
        check_count("cache_images", self.cache_images, least=0)
        for name in ("shots", "resize"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))


TYPES = (ModelArguments, DataArguments, PMGAFTConfig)
# Titles of `--help` for the options that PMGAFTConfig adds to those of Trainer, or reads otherwise.
GROUPS_OF_CONFIG = {
    "Threat model of training": (
        "attack",
        "norm",
        "eps",
        "num_steps",
        "step_size",
        "random_start",
        "attack_kwargs",
        "attack_precision",
    ),
    "Threat model of evaluation": (
        "eval_eps",
        "eval_num_steps",
        "eval_step_size",
        "eval_loss",
        "eval_restarts",
        "eval_max_samples",
    ),
    "Objective and tuning": (
        "objective",
        "objective_kwargs",
        "tuning",
        "tuning_kwargs",
        "ema_decay",
        "wise_ft",
        "augmentation",
        "noise_sigma",
    ),
    "Batch": ("total_train_batch_size", "per_device_train_batch_size", "gradient_accumulation_steps"),
    "Output": ("overwrite",),
}


def help_groups() -> dict[str, list[str]]:
    """The options by the title under which `--help` lists them: this package's first, then Trainer's."""
    groups = {
        "Model": _names(ModelArguments),
        "Data": _names(DataArguments),
        **{title: list(names) for title, names in GROUPS_OF_CONFIG.items()},
    }
    listed = {name for names in groups.values() for name in names}
    groups["Trainer (see transformers.TrainingArguments)"] = [
        name for name in _names(PMGAFTConfig) if name not in listed
    ]
    return groups


def _names(arguments: type) -> list[str]:
    return [entry.name for entry in fields(arguments) if entry.init]
