"""From parsed options to a trainer that can start: all that can fail before the first step."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..attacks import WITHOUT_BALL
from ..attacks.options import parse_options
from ..attacks.spec import AttackSpec
from ..config import PMGAFTConfig, check_output_dir
from ..models.processors import image_processor_of
from ..models.record import model_record
from ..models.resolution import at_resolution
from ..objectives import make_objective
from ..prompts import DEFAULT_PROMPT_TEMPLATES, names_from
from ..tuning.saved import load_pair
from .errors import flags_named
from .set_options import FLAGS, options_of
from .suite_options import load_suite_sets
from .train_arguments import DataArguments, ModelArguments

if TYPE_CHECKING:  # what brings in `datasets`, pandas and Trainer comes where it is used, so that --help is quick
    from peft import LoraConfig

    from ..data.evaluation_sets import RetrievalDataset, ZeroShotDataset
    from ..training.run_folder import RunFolder
    from ..training.trainer import PMGAFTTrainer

# What a command line calls the arguments of the training set.
TRAINING_FLAGS = {
    name: f"--{name}"
    for name in ("class_names", "image_column", "label_column", "caption_column", "accept_any_class_names")
}


def make_trainer(model_args: ModelArguments, data_args: DataArguments, args: PMGAFTConfig) -> PMGAFTTrainer:
    """Loads models and sets, checks what was passed, and returns the trainer.

    Raises:
        OSError, TypeError, ValueError: say what cannot work.
    """
    from ..evaluation.heads import make_head
    from ..suites.sets import check_set_names
    from ..training.trainer import PMGAFTTrainer

    if not args.do_train:
        raise ValueError(
            "You passed --do_train false to the command that trains. Leave it out, or measure a model by "
            "`pmgaft evaluate`."
        )

    # The folder, before anything is loaded
    folder = run_folder(model_args, data_args, args)
    args.resume_from_checkpoint = resume_argument(args)
    read = [model_args.model_name_or_path, model_args.teacher_name_or_path]
    folder.check(args.resume_from_checkpoint, args.overwrite, read)
    if args.push_to_hub:
        check_push(args)

    # Models
    model, processor = load_model_to_train(model_args)
    provenance = {"base_model": model_record(model, model_args.model_name_or_path)}
    if model_args.image_size is not None:
        model, processor = at_resolution(model, processor, model_args.image_size)
    processor_before, processor = processor, with_statistics(processor, model_args)
    teacher, teacher_processor = model_args.teacher_name_or_path, None
    if teacher is not None:
        teacher, teacher_processor = load_pair(teacher, model_args.teacher_processor, model_args.teacher_base)

    # Data
    final_attacks = [final_attack(text, args) for text in data_args.final_attacks]
    objective = make_objective(args.objective, args.objective_kwargs)
    train_dataset = load_training_set(data_args, processor, args.seed, objective.uses_text)
    eval_sets, head = [], None
    if args.do_eval:
        eval_sets, of_suite = load_eval_sets(data_args, processor)
        provenance.update(of_suite)
        support = load_sets(data_args.support_sets, data_args, processor, part="train_split")
        head = make_head(data_args.head, support, eval_sets, args.dataloader_num_workers)
        eval_sets += load_captioned_sets(data_args, processor)
    check_set_names(eval_sets)
    if data_args.check_data:
        for data in (train_dataset, *eval_sets):
            data.check()

    guidance_names = names_in(data_args.guidance_names)
    trainer = PMGAFTTrainer(
        model=model,
        args=args,
        train_dataset=train_dataset,
        eval_dataset={data.name: data for data in eval_sets},
        processing_class=processor,
        teacher=teacher,
        teacher_processor=teacher_processor,
        prompt_templates=train_templates(data_args),
        guidance_names=guidance_names,
        accept_any_class_names=data_args.accept_any_class_names,
        peft_config=lora_config(model_args),
        head=head,
    )
    trainer.folder = folder
    trainer.check_training(args.resume_from_checkpoint)
    if train_dataset.source:
        provenance["training_set"] = train_dataset.source
    trainer.provenance = provenance
    trainer.final_attacks = final_attacks
    trainer.processor_before = processor_before
    if model_args.push_merged:
        trainer.check_merges()
    return trainer


def check_push(args: PMGAFTConfig) -> None:
    """Raises `ValueError`, on all processes, if the Hub would not take what is to be pushed."""
    from ..distributed import gather
    from ..hub.upload import push_error, push_refusal

    name = args.hub_model_id or Path(args.output_dir).name
    reasons = []
    if args.process_index == 0:
        error = push_error(name, args.hub_token)
        reasons = [] if error is None else [push_refusal(name, error)]
    for reason in gather(reasons):
        raise ValueError(reason)


def run_folder(model_args: ModelArguments, data_args: DataArguments, args: PMGAFTConfig) -> RunFolder:
    """The folder of the run that a command line asks for, which may be written to."""
    from ..training.run_folder import RunFolder, settings_of

    check_output_dir(args.output_dir)
    return RunFolder(args.output_dir, settings_of(args, {**vars(model_args), **vars(data_args)}))


def load_model_to_train(model_args: ModelArguments) -> tuple[Any, Any]:
    """The model to train and its processor."""
    name = required("--model_name_or_path", model_args.model_name_or_path)
    return load_pair(name, model_args.processor, model_args.base, revision=model_args.revision)


def with_statistics(processor: Any, model_args: ModelArguments) -> Any:
    """A copy of a processor with the pixel statistics that were asked for; the processor itself if none were."""
    if model_args.image_mean is None and model_args.image_std is None:
        return processor
    processor = copy.deepcopy(processor)
    images = image_processor_of(processor)
    if model_args.image_mean is not None:
        images.image_mean = model_args.image_mean
    if model_args.image_std is not None:
        images.image_std = model_args.image_std
    return processor


def load_training_set(data_args: DataArguments, processor: Any, seed: int, needs_labels: bool = True) -> Any:
    """The examples to train on: all or a few of each class, of all or some classes, decoded anew or kept."""
    from ..data.few_shots import few_shot
    from ..data.subsets import keep_rows
    from ..suites.training import load_training_set as load

    name = required("--dataset_name", data_args.dataset_name)
    with flags_named(name, TRAINING_FLAGS):
        examples = load(
            name,
            processor,
            class_names=names_in(data_args.class_names),
            image_column=data_args.image_column,
            label_column=data_args.label_column,
            caption_column=data_args.caption_column or None,
            needs_labels=needs_labels,
            streaming=data_args.streaming,
            resize=data_args.resize,
            accept_any_class_names=data_args.accept_any_class_names,
        )
    if data_args.streaming and data_args.shuffle_buffer:
        examples = examples.shuffled(seed, data_args.shuffle_buffer)
    if data_args.only_rows is not None:
        examples = keep_rows(examples, *parse_rows(data_args.only_rows))
    if data_args.only_classes is not None:
        examples = with_classes(examples, data_args.only_classes)
    if data_args.shots is not None:
        examples = few_shot(examples, data_args.shots, seed)
    if not data_args.cache_images:
        return examples

    if data_args.streaming:
        raise ValueError(
            f"You passed cache_images={data_args.cache_images} with streaming, but rows of a stream have no numbers "
            "to find them again by. Leave one of the two out."
        )
    return examples.cached(data_args.cache_images * 2**20)


def parse_rows(text: str) -> tuple[str, list[str]]:
    """The column and the values that `COLUMN=VALUE[,VALUE]` names.

    Example:
        >>> parse_rows("style=noto,emojione")
        ('style', ['noto', 'emojione'])
    """
    column, mark, values = text.partition("=")
    if not (column and mark and values):
        raise ValueError(
            f"You passed --only_rows {text}, which is not COLUMN=VALUE[,VALUE]. Pass such as style=noto,emojione."
        )
    return column, values.split(",")


def with_classes(examples: Any, text: str) -> Any:
    """The examples of the classes that `--only_classes` names: a half of them, or those in a file."""
    from ..data.subsets import keep_classes, split_classes

    if text not in ("base", "new"):
        return keep_classes(examples, names_from(text))
    base, new = split_classes(examples.class_names or ())
    return keep_classes(examples, base if text == "base" else new)


def train_templates(data_args: DataArguments) -> str | list[str]:
    """The templates to train with: those that were passed, or those of a set that a suite knows."""
    from ..suites.training import training_templates

    template = data_args.prompt_template
    return template if template not in DEFAULT_PROMPT_TEMPLATES else training_templates(data_args.dataset_name)


def load_eval_sets(data_args: DataArguments, processor: Any) -> tuple[list[ZeroShotDataset], dict[str, Any]]:
    """The labelled sets of a command line, single ones or a suite's, and what reports record of the suite.

    Raises:
        ValueError: for single sets and a suite together, and options of a suite without one.
    """
    options = {"--suite_sets": data_args.suite_sets, "--data_root": data_args.data_root, "--limit": data_args.limit}
    if data_args.suite:
        options = {"--eval_sets": data_args.eval_sets, "--head": data_args.head}
    idle = [flag for flag, value in options.items() if value]
    if idle:
        how = "with" if data_args.suite else "without"
        raise ValueError(
            f"You passed {', '.join(idle)} {how} --suite, where it has no effect. Leave it out; "
            "--help says what single sets and what suites take."
        )
    if not data_args.suite:
        return load_sets(data_args.eval_sets, data_args, processor), {}

    sets, record = load_suite_sets(data_args, processor)
    data_args.in_domain_set = data_args.in_domain_set or in_domain_set(data_args.dataset_name, sets)
    return sets, record


def in_domain_set(dataset_name: str, sets: list[ZeroShotDataset]) -> str | None:
    """The evaluated set whose training split is tuned on, by its name or its place on the Hub."""
    from ..data.sources import parse_set, split_revision
    from ..suites.known import find_known_set, known_set_at

    known = find_known_set(dataset_name) or known_set_at(parse_set(split_revision(dataset_name)[0])[0])
    names = [data.name for data in sets]
    return known.name if known is not None and known.name in names else None


def final_attack(text: str, args: PMGAFTConfig) -> AttackSpec:
    """An attack of --final_attacks, at the radius and norm of evaluation unless it names its own."""
    options = parse_options(text)
    has_ball = options["attack"] not in WITHOUT_BALL
    ball = {"eps": args.eval_eps or args.eps, "norm": args.norm} if has_ball else {}
    return AttackSpec.of({**ball, **options})


def load_sets(
    names: list[str], data_args: DataArguments, processor: Any, part: str = "split"
) -> list[ZeroShotDataset]:
    """Labelled sets, each `NAME[:config][@split]`, or a `part` of a known one: what is evaluated or to train on."""
    from ..suites.sets import load_set

    # A set that a suite knows has templates of its own.
    template = data_args.prompt_template
    templates = None if template in DEFAULT_PROMPT_TEMPLATES else template
    sets = []
    for text in names:
        with flags_named(text, FLAGS):
            options = options_of(text, data_args, evaluated(data_args), data_args.head)
            sets.append(load_set(text, processor, prompt_templates=templates, part=part, **options))
    return sets


def load_captioned_sets(data_args: DataArguments, processor: Any) -> list[RetrievalDataset]:
    """The image-caption sets of the command line."""
    from ..suites.sets import load_captioned_set, set_name

    # Its images may be those of an evaluation set with the same name.
    sets = []
    for text in data_args.retrieval_sets:
        with flags_named(text, {"image_column": "--eval_image_column", "caption_column": "--retrieval_captions"}):
            sets.append(
                load_captioned_set(
                    text,
                    processor,
                    data_args.retrieval_captions,
                    name=f"{set_name(text)} captions",
                    image_column=options_of(text, data_args, evaluated(data_args))["image_column"],
                )
            )
    return sets


def evaluated(data_args: DataArguments) -> list[str]:
    """All sets beside that of training, as the command line names them."""
    return [*data_args.eval_sets, *data_args.support_sets, *data_args.retrieval_sets]


def lora_config(model_args: ModelArguments) -> LoraConfig | None:
    """LoRA as the command line asks for it, if it does."""
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
        ValueError: if there is none, or the one that is named is not complete, which is better known before the first
            evaluation than after it.
    """
    from ..training.checkpoints import check_complete, newest_complete, parse_resume

    resume = parse_resume(args.resume_from_checkpoint)
    if resume is True:
        newest_complete(args.output_dir)
    elif resume is not None:
        check_complete(resume)
    return resume


def required(flag: str, value: str | None) -> str:
    """The value of an option that a run cannot do without."""
    if value is None:
        raise ValueError(
            f"You passed no {flag}, so there is nothing to train. Pass it, or start without arguments for the "
            "embedded default."
        )
    return value


def names_in(text: str | None) -> list[str] | str | None:
    """The names in a text file, or the name of a list of the package, if there is one."""
    return None if text is None else names_from(text)
