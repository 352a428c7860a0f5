"""Makes a CLIP robust to adversarial images, and says what was gained and lost.

With no arguments it tunes the small CLIP of the package by PMG-AFT, in a few minutes on two CPU cores:

    pmgaft train

The same command does a paper's whole job by a recipe, on one GPU or many: it tunes a model of the Hub on a set of the
Hub, and measures sixteen sets before and after:

    pmgaft train --recipe pmg_aft --bf16
    pmgaft train --recipe tecoa --num_processes 8
    pmgaft train --config mine.yaml --accelerate_config ddp.yaml

A recipe or a YAML file gives defaults (--recipe, --config), flags override them. --num_processes N and
--accelerate_config FILE start the run by Accelerate's launcher, with so many processes or as the file of `accelerate
config` says. The run writes into --output_dir: the checkpoint with its processor and tokenizer,
robustness_before.json and robustness.json, README.md (the model card) and pictures.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from ..arguments import DEFAULT_RECIPE, parse_args
from ..config import PMGAFTConfig
from ..distributed import leave
from ..evaluation.tables import render
from ..signals import raise_stop
from .before_and_after import comparison_table
from .errors import FAILURES, one_line_errors, one_line_stops
from .parser import Parser
from .suite_options import end_with_missing
from .train_arguments import TYPES, DataArguments, ModelArguments, help_groups
from .train_setup import make_trainer, run_folder

if TYPE_CHECKING:  # what brings in `datasets`, pandas and Trainer comes where it is used, so that --help is quick
    from ..training.sample_pictures import SamplePictures
    from ..training.trainer import PMGAFTTrainer

CHECKOUT = Path(__file__).parents[2]
# What names a run of one's own. Without any of it, the embedded default runs.
NAMES_A_RUN = ("--config", "--recipe", "--model_name_or_path", "--dataset_name")


def parse(
    argv: Sequence[str] | None = None, script: str | None = None
) -> tuple[ModelArguments, DataArguments, PMGAFTConfig]:
    """The options of a command line, by default that of the process; those of the launcher are left out.

    Raises:
        ValueError: for an unknown option or a value that cannot work.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if script is None:
        _, argv = split_launcher_options(argv)
    if not any(flag.split("=")[0] in NAMES_A_RUN for flag in argv):
        argv = ["--recipe", DEFAULT_RECIPE, *argv]
    if script is None:
        return parse_args(TYPES, argv, __doc__, "pmgaft train", help_groups())
    return parse_args(TYPES, argv, script, None, help_groups())


def main(argv: Sequence[str] | None = None, script: str | None = None) -> None:
    """Runs the training that a command line asks for, by Accelerate's launcher if it asks for that."""
    argv = list(sys.argv[1:] if argv is None else argv)
    with one_line_errors():
        if script is None:  # a script has its own launcher: `accelerate launch SCRIPT`
            launcher_options, argv = split_launcher_options(argv)
            if launcher_options and not {"-h", "--help"} & set(argv):
                launch(launcher_options, argv)
                return
        model_args, data_args, args = parse(argv, script)
        folder = run_folder(model_args, data_args, args)

    # Until here a `TypeError` is of what was passed, and in the run a bug.
    with one_line_errors(FAILURES), one_line_stops(folder.how_to_go_on), folder.locked():
        if folder.is_finished() and not args.overwrite:
            if args.process_index == 0:
                print(f"This run is finished: all of it is in {folder.path}. --overwrite true begins anew.")
            return
        with one_line_errors():
            trainer = make_trainer(model_args, data_args, args)
        run(trainer, model_args, data_args)


def set_up(argv: Sequence[str], script: str | None = None) -> tuple[PMGAFTTrainer, ModelArguments, DataArguments]:
    """Everything that can fail before the first step because of what was passed."""
    model_args, data_args, args = parse(argv, script)
    return make_trainer(model_args, data_args, args), model_args, data_args


# ---- One run ----


def run(trainer: PMGAFTTrainer, model_args: ModelArguments, data_args: DataArguments) -> None:
    """Evaluates, trains, evaluates again, and writes checkpoint, reports, pictures and card."""
    from ..plots import robustness_bars
    from ..suites.known import hub_name
    from ..training.run_folder import FINISHED

    args, output_dir = trainer.args, Path(trainer.args.output_dir)
    evaluates = bool(trainer.eval_dataset)
    trainer.folder.begin(args.resume_from_checkpoint, args.overwrite)

    # Before
    before = after = None
    if evaluates:
        before = trainer.evaluate_robustness(verdict_file=output_dir / "verdicts_before.jsonl")
    pictures = sample_pictures(trainer, data_args.in_domain_set)
    if pictures:
        pictures.attack("before")

    # Training. The push comes last, with card and pictures.
    try:
        trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    except KeyboardInterrupt:
        if not trainer.interrupted:
            raise
    if trainer.interrupted:
        name, step = trainer.stopped_by.name, trainer.state.global_step
        if trainer.is_world_process_zero():
            print(f"Stopped by {name} after step {step}. {trainer.folder.how_to_go_on()}", file=sys.stderr)
        sys.exit(128 + trainer.stopped_by)
    trainer.save_model(_internal_call=True)
    if model_args.merge_adapter:
        trainer.save_standalone()

    # After. The figures go to the trackers with the pictures.
    if evaluates:
        after = trainer.evaluate_robustness(verdict_file=output_dir / "verdicts_after.jsonl")
        trainer.log(after.metrics())
        if trainer.final_attacks:
            trainer.evaluate_finally(verdict_file=output_dir / "verdicts_final.jsonl")
    if pictures:
        pictures.attack("after")
        pictures.show()

    # Reports, and then the card, which shows them
    trainer.save_reports()
    if evaluates and trainer.is_world_process_zero():
        robustness_bars({"before": before, "after": after}, output_dir / "robustness.png")
        print(comparison_table(before, after, data_args.in_domain_set))
        if trainer.final_report is not None:
            print(f"\nAfter training alone, protocol {trainer.final_report.protocol_hash}:")
            print(render(trainer.final_report.rows(), "text"))
    dataset = hub_name(data_args.dataset_name)
    trainer.create_model_card(finetuned_from=model_args.model_name_or_path, dataset=dataset)
    if trainer.is_world_process_zero():
        what = "checkpoint, its report, card and pictures" if evaluates else "checkpoint and its card"
        print(f"The {what} are in {output_dir}.")

    if args.push_to_hub:
        try:
            trainer.push_to_hub(merged=model_args.push_merged)
        except OSError as error:  # the message says where all of it is and how to push it later
            sys.exit(f"error: {error}")
    trainer.folder.forget_verdicts()
    trainer.folder.note(FINISHED, trainer.state.global_step)
    end_with_missing(trainer.provenance)


def sample_pictures(trainer: PMGAFTTrainer, in_domain: str | None) -> SamplePictures | None:
    """A gallery of a zero-shot set, if there is one; of classes that were not tuned on, if there are any."""
    from ..data.evaluation_sets import ZeroShotDataset
    from ..training.sample_pictures import SamplePictures

    names = [name for name, data in (trainer.eval_dataset or {}).items() if isinstance(data, ZeroShotDataset)]
    names.sort(key=lambda name: name == in_domain)
    return SamplePictures(trainer, trainer.eval_dataset[names[0]]) if names else None


# ---- Several processes ----


def split_launcher_options(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options of `accelerate launch` that a command line asks for, and what is left of it.

    Raises:
        ValueError: for a number of processes that is none.
    """
    parser = Parser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--num_processes", type=int)
    parser.add_argument("--accelerate_config")
    try:
        launcher, rest = parser.parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        raise ValueError(f"{error}. See --help for all options.") from error

    options = []
    if launcher.accelerate_config is not None:
        options += ["--config_file", find_accelerate_config(launcher.accelerate_config)]
    elif launcher.num_processes is not None:
        options += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        if launcher.num_processes > 1:
            options.append("--multi_gpu")  # which on the CPU starts several processes, too
    if launcher.num_processes is not None:
        options += ["--num_processes", str(launcher.num_processes)]
    return options, rest


def find_accelerate_config(name: str) -> str:
    """A file of `accelerate config`, or in a checkout one of `examples/accelerate_configs` by its name.

    Raises:
        ValueError: if there is none.
    """
    for file in (Path(name), CHECKOUT / "examples" / "accelerate_configs" / f"{name}.yaml"):
        if file.is_file():
            return str(file)
    raise ValueError(
        f"You passed --accelerate_config {name}, which is no file and no configuration of this package's checkout. "
        "Pass a file that `accelerate config --config_file FILE` wrote."
    )


def launch(launcher_options: Sequence[str], argv: Sequence[str]) -> None:
    """Starts this command in the processes of `accelerate launch`."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    args = launch_command_parser().parse_args([*launcher_options, "-m", "hf_pmgaft.cli.train", *argv])
    # Of several processes torch's launcher does this itself.
    before = {number: signal.signal(number, _pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        launch_command(args)
    except subprocess.CalledProcessError as error:  # which has said why
        sys.exit(_as_of_shell(error.returncode))
    except SignalException as error:
        sys.exit(128 + error.sigval)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        if failure.exitcode == 1:
            sys.exit(f"error: {failure.message}")
        sys.exit(_as_of_shell(failure.exitcode))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _pass_on(number: int, _: Any) -> None:
    """Gives a signal to the only process of a launch, which says what becomes of it, and is waited for."""
    children = psutil.Process().children()
    for child in children:
        child.send_signal(number)
    if not children:
        raise_stop(signal.Signals(number))


def _as_of_shell(code: int) -> int:
    """An exit code as a shell gives it: of a process that a signal ended, 128 and the signal's number."""
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    main()
    leave()
