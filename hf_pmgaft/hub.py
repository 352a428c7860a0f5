"""Uploads to the Hub: the model and its files, never a pickle of the arguments nor a token."""

from __future__ import annotations

import shutil
from pathlib import Path

from huggingface_hub import upload_folder
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy
from transformers.utils import PushInProgress

EXTRA_STATE = "extra_state.safetensors"  # of a checkpoint, to go on from
# What a model needs beside its weights, the processor's files apart.
CONFIGS = ("config.json", "adapter_config.json", "tuning.json")
NEVER = ["_*", f"{PREFIX_CHECKPOINT_DIR}-*", "*.bin", "*.pt", "*.pth"]


def push_checkpoint(trainer: Trainer, checkpoint_folder: str) -> None:
    """Uploads a checkpoint's model while training goes on.

    Trainer's own version writes and uploads a pickle of the arguments, token included.
    """
    args = trainer.args
    if args.hub_strategy == HubStrategy.END:
        return
    busy = trainer.push_in_progress is not None and not trainer.push_in_progress.is_done()
    if busy and not args.hub_always_push:
        return
    for path in Path(checkpoint_folder).iterdir():
        if path.name in CONFIGS or path.name.endswith(".safetensors") and path.name != EXTRA_STATE:
            shutil.copy(path, args.output_dir)
    trainer.processing_class.save_pretrained(args.output_dir)
    options = {"repo_id": trainer.hub_model_id, "token": args.hub_token, "revision": args.hub_revision}
    options |= {"commit_message": f"Training in progress, step {trainer.state.global_step}", "run_as_future": True}
    jobs = [upload_folder(folder_path=args.output_dir, ignore_patterns=NEVER, **options)]
    if args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
        latest = args.hub_strategy == HubStrategy.CHECKPOINT
        path_in_repo = "last-checkpoint" if latest else Path(checkpoint_folder).name
        jobs.append(upload_folder(folder_path=checkpoint_folder, path_in_repo=path_in_repo, **options))
    trainer.push_in_progress = PushInProgress(jobs)
