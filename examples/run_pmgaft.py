"""Makes a CLIP robust to adversarial images, and says what was gained and lost.

With no arguments it tunes the small CLIP of examples/emoji by PMG-AFT, in a few minutes on two CPU cores:

    accelerate launch examples/run_pmgaft.py

The same script tunes a Hub model on a Hub data set, on one GPU or many:

    accelerate launch examples/run_pmgaft.py --config examples/configs/pmg_aft.yaml \
        --model_name_or_path openai/clip-vit-base-patch32 --dataset_name zh-plus/tiny-imagenet --bf16

A YAML file gives defaults (--config), flags override them. It writes into --output_dir: the checkpoint with its
processor and tokenizer, robustness_before.json and robustness.json, README.md (the model card) and pictures.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hf_pmgaft.arguments import parse_args
from hf_pmgaft.config import PMGAFTConfig, check_output_dir
from hf_pmgaft.evaluation.report import RobustnessReport
from hf_pmgaft.models.processors import image_processor_of
from hf_pmgaft.models.resolution import at_resolution
from hf_pmgaft.objectives import make_objective
from hf_pmgaft.plots import robustness_bars
from hf_pmgaft.tuning.saved import load_model

if TYPE_CHECKING:  # what brings in `datasets`, pandas and Trainer comes where it is used, so that --help is quick
    from hf_pmgaft import PMGAFTTrainer, RetrievalDataset, ZeroShotDataset
    from hf_pmgaft.data import EvaluationImages

EMOJI_CONFIG = Path(__file__).parent / "configs" / "emoji.yaml"


@dataclass
class ModelArguments:
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Hub id or folder of a CLIPModel; the small CLIP of examples/emoji if absent."}
    )
    teacher_name_or_path: str | None = field(
        default=None, metadata={"help": "Frozen guide; the model itself before training if not given."}
    )
    image_size: int | None = field(
        default=None, metadata={"help": "Train at another resolution, position embeddings interpolated once."}
    )
    image_mean: list[float] | None = field(
        default=None, metadata={"help": "Pixel mean in place of the processor's; saved with the checkpoint."}
    )
    image_std: list[float] | None = field(default=None, metadata={"help": "Likewise the standard deviation."})
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


@dataclass
class DataArguments:
    dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "Fine-tuning set: Hub id, ImageFolder, parquet or CSV file, save_to_disk or webdataset folder, "
            "[:config][@split]."
        },
    )
    eval_sets: list[str] = field(
        default_factory=list, metadata={"help": "Zero-shot sets, each NAME[:config][@split] as for --dataset_name."}
    )
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
    class_names: str | None = field(
        default=None, metadata={"help": "Text file with one class name per line, where the set has no ClassLabel."}
    )
    prompt_template: str = field(default="This is a photo of a {}", metadata={"help": "How names become prompts."})
    guidance_names: str | None = field(
        default=None,
        metadata={"help": "Text file of names over which the guidance terms range instead of the classes."},
    )
    streaming: bool = field(default=False, metadata={"help": "Read the fine-tuning set while training."})
    cache_images: int = field(
        default=0,
        metadata={"help": "MiB of decoded images of the fine-tuning set that each process keeps; 0 decodes anew."},
    )
    check_data: bool = field(default=False, metadata={"help": "Read every row first and name those that are broken."})


def main(argv: list[str] | None = None) -> None:
    try:
        trainer, model_args, data_args = set_up(sys.argv[1:] if argv is None else argv)
    except (OSError, ValueError, TypeError) as error:  # what was passed cannot work, and the message says why
        sys.exit(f"error: {error}")
    from hf_pmgaft import SamplePictures, ZeroShotDataset

    args, eval_sets, output_dir = trainer.args, trainer.eval_dataset, Path(trainer.args.output_dir)
    if not args.resume_from_checkpoint:
        forget_verdicts(trainer)

    before = trainer.evaluate_robustness(verdict_file=output_dir / "verdicts_before.jsonl") if eval_sets else None
    # The gallery shows classes that were not tuned on, if there are any.
    names = [name for name, data in (eval_sets or {}).items() if isinstance(data, ZeroShotDataset)]
    names.sort(key=lambda name: name == data_args.in_domain_set)
    shown = SamplePictures(trainer, eval_sets[names[0]]) if names else None
    if shown:
        shown.attack("before")
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    if trainer.interrupted:
        if trainer.is_world_process_zero():
            print(f"Stopped by SIGTERM after step {trainer.state.global_step}; --resume_from_checkpoint true goes on.")
        sys.exit(128 + signal.SIGTERM)
    trainer.save_model(_internal_call=True)  # the push comes last, with card and pictures
    if model_args.merge_adapter:
        trainer.save_standalone()
    after = trainer.evaluate_robustness(verdict_file=output_dir / "verdicts_after.jsonl") if eval_sets else None
    if eval_sets:
        trainer.log(after.metrics())  # to the trackers, with the picture below
    if shown:
        shown.attack("after")
        shown.show()
    trainer.save_reports()
    if eval_sets and trainer.is_world_process_zero():
        robustness_bars({"before": before, "after": after}, output_dir / "robustness.png")
        print(comparison_table(before, after, data_args.in_domain_set))
    forget_verdicts(trainer)
    trainer.create_model_card(finetuned_from=model_args.model_name_or_path, dataset=data_args.dataset_name)
    if trainer.is_world_process_zero():
        print(f"The robust checkpoint, its report, card and pictures are in {output_dir}.")
    if args.push_to_hub:
        try:
            trainer.push_to_hub(merged=model_args.push_merged)
        except OSError as error:  # the message says where all of it is and how to push it later
            sys.exit(f"error: {error}")


def set_up(argv: list[str]) -> tuple[PMGAFTTrainer, ModelArguments, DataArguments]:
    """Everything that can fail before the first step because of what was passed."""
    # No model, no data and no file of defaults named: the embedded default.
    if not any(flag.split("=")[0] in ("--config", "--model_name_or_path", "--dataset_name") for flag in argv):
        argv = ["--config", str(EMOJI_CONFIG), *argv]
    model_args, data_args, args = parse_args((ModelArguments, DataArguments, PMGAFTConfig), argv, __doc__)
    from transformers import AutoProcessor

    from hf_pmgaft import PMGAFTTrainer
    from hf_pmgaft.evaluation.heads import make_head

    check_output_dir(args.output_dir)
    args.resume_from_checkpoint = resume_argument(args)

    processor = load_processor(model_args)
    model = load_model(model_args.model_name_or_path)
    if model_args.image_size is not None:
        model, processor = at_resolution(model, processor, model_args.image_size)
    teacher = model_args.teacher_name_or_path
    objective = make_objective(args.objective, args.objective_kwargs)
    train_dataset = load_training_set(data_args, processor, args.seed, objective.uses_text)
    eval_sets = load_sets(data_args.eval_sets if args.do_eval else [], data_args, processor)
    head = None
    if args.do_eval:
        head = make_head(data_args.head, load_sets(data_args.support_sets, data_args, processor), eval_sets)
        eval_sets += load_captioned_sets(data_args, processor)
    check_names(eval_sets)
    if data_args.check_data:
        for data in (train_dataset, *eval_sets):
            data.check()
    trainer = PMGAFTTrainer(
        model=model,
        args=args,
        train_dataset=train_dataset,
        eval_dataset={data.name: data for data in eval_sets},
        processing_class=processor,
        teacher=teacher,
        teacher_processor=None if teacher is None else AutoProcessor.from_pretrained(teacher, trust_remote_code=False),
        prompt_templates=data_args.prompt_template,
        guidance_names=read_lines(data_args.guidance_names),
        peft_config=lora_config(model_args),
        head=head,
    )
    if model_args.push_merged:
        trainer.check_merges()
    return trainer, model_args, data_args


def load_processor(model_args: ModelArguments):
    from transformers import AutoProcessor

    name = required("--model_name_or_path", model_args.model_name_or_path)
    processor = AutoProcessor.from_pretrained(name, trust_remote_code=False)
    images = image_processor_of(processor)
    if model_args.image_mean is not None:
        images.image_mean = model_args.image_mean
    if model_args.image_std is not None:
        images.image_std = model_args.image_std
    return processor


def load_training_set(data_args: DataArguments, processor, seed: int, needs_labels: bool = True):
    from hf_pmgaft.data import few_shot, load_images, parse_set, training_examples

    name, config, split = parse_set(required("--dataset_name", data_args.dataset_name), "train")
    examples = training_examples(
        load_images(name, config, split, data_args.streaming),
        processor,
        read_lines(data_args.class_names),
        data_args.image_column,
        data_args.label_column,
        data_args.caption_column or None,
        needs_labels,
    )
    if data_args.shots is not None:
        examples = few_shot(examples, data_args.shots, seed)
    if data_args.cache_images and data_args.streaming:
        raise ValueError(
            f"You passed cache_images={data_args.cache_images} with streaming, but rows of a stream have no numbers "
            "to find them again by. Leave one of the two out."
        )
    return examples.cached(data_args.cache_images * 2**20) if data_args.cache_images else examples


def load_sets(names: list[str], data_args: DataArguments, processor) -> list[ZeroShotDataset]:
    from hf_pmgaft.data import ZeroShotDataset, load_images, parse_set

    sets = []
    for text in names:
        path, config, split = parse_set(text)
        images = load_images(path, config, split)
        sets.append(ZeroShotDataset(images, processor, None, data_args.prompt_template, config or Path(path).stem))
    return sets


def load_captioned_sets(data_args: DataArguments, processor) -> list[RetrievalDataset]:
    from hf_pmgaft import RetrievalDataset
    from hf_pmgaft.data import load_images, parse_set

    sets = []
    for text in data_args.retrieval_sets:
        path, config, split = parse_set(text)
        # Its images may be those of an evaluation set with the same name.
        name = f"{config or Path(path).stem} captions"
        images = load_images(path, config, split)
        sets.append(RetrievalDataset(images, processor, data_args.retrieval_captions, name=name))
    return sets


def check_names(sets: list[EvaluationImages]) -> None:
    names = [data.name for data in sets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"You passed several eval_sets of the name {', '.join(twice)}, of which the report would keep one. Rename "
            "their folders or files, or evaluate them apart."
        )


def lora_config(model_args: ModelArguments):
    if not model_args.lora_r:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=model_args.lora_r,
        lora_alpha=model_args.lora_alpha,
        lora_dropout=model_args.lora_dropout,
        target_modules=model_args.lora_target_modules,
    )


def resume_argument(args: PMGAFTConfig) -> str | bool | None:
    """`--resume_from_checkpoint true` asks for the newest complete checkpoint of the output folder.

    Raises:
        ValueError: if there is none, which is better known before the first evaluation than after it.
    """
    resume = args.resume_from_checkpoint
    if str(resume).lower() in ("false", "no"):
        return None
    if str(resume).lower() != "true":
        return resume
    from hf_pmgaft.training.checkpoints import newest_complete

    newest_complete(args.output_dir)
    return True


def forget_verdicts(trainer: PMGAFTTrainer) -> None:
    """Removes the verdicts that both evaluations keep until their reports are written, for a killed run to go on."""
    with trainer.accelerator.main_process_first():
        if trainer.is_world_process_zero():
            for file in Path(trainer.args.output_dir).glob("verdicts_*.jsonl*"):
                file.unlink()


def required(flag: str, value: str | None) -> str:
    if value is None:
        raise ValueError(f"You passed no {flag}. Pass it, or start without arguments for the embedded default.")
    return value


def read_lines(file: str | None) -> list[str] | None:
    return None if file is None else Path(file).read_text(encoding="utf-8").splitlines()


def comparison_table(before: RobustnessReport, after: RobustnessReport, in_domain: str | None) -> str:
    """Set, classes, images, clean and robust accuracy before and after, and the means, as text."""
    attack = ", ".join(spec.name for spec in before.attacks)
    lines = [
        f"{after.measure} in %, clean and robust ({attack}; protocol {after.protocol_hash})",
        f"{'set':<24}{'classes':>8}{'images':>8}{'clean before':>14}{'after':>7}{'robust before':>15}{'after':>7}",
    ]

    def line(name, classes, images, *values):
        numbers = "".join(f"{100 * value:>{width}.1f}" for value, width in zip(values, (14, 7, 15, 7), strict=True))
        return f"{name:<24}{classes:>8}{images:>8}{numbers}"

    def means(leave_out=None):
        keys = ("clean_accuracy", "robust_accuracy")
        return [report.mean(key, leave_out) for key in keys for report in (before, after)]

    for old, new in zip(before.sets, after.sets, strict=True):
        values = (old.clean_accuracy, new.clean_accuracy, old.robust_accuracy, new.robust_accuracy)
        lines.append(
            line(old.name + ("*" if old.name == in_domain else ""), old.num_classes, old.num_samples, *values)
        )
    lines.append("-" * len(lines[1]))
    lines.append(line("mean of all", "", "", *means()))
    if in_domain in {result.name for result in before.sets} and len(before.sets) > 1:
        lines.append(line(f"mean without {in_domain}*", "", "", *means(in_domain)))
        lines.append(f"* its classes were tuned on ({in_domain}); the other sets are zero-shot")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
