"""A Trainer that pushes to the Hub without pickles and tokens, and finds what would fail before training."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from huggingface_hub import auth_check
from transformers import Trainer
from transformers.trainer_utils import HubStrategy
from transformers.utils import PushInProgress

from ..distributed import gather
from ..hub.upload import PICTURES, copy_model_files, push_refusal, upload, upload_in_background
from ..models.processors import save_processor

logger = logging.getLogger(__name__)


class HubTrainer(Trainer):
    """What [`BaseTrainer`] is on the Hub: models go there as safetensors, with their card, reports and pictures."""

    push_in_progress: PushInProgress | None = None
    uploaded_checkpoint: Path | None = None  # which the upload in progress reads

    def save_reports(self) -> None:
        """Writes what was measured so far beside the model, before it is uploaded."""

    def check_merges(self) -> None:
        """Raises `ValueError` if what is trained cannot become a plain model."""

    def save_merged(self, output_dir: str | None = None) -> None:
        """Saves a plain model of what was trained."""
        raise NotImplementedError

    def push_to_hub(
        self,
        commit_message="End of training",
        blocking=True,
        token=None,
        revision=None,
        private=None,
        merged=False,
        **card,
    ):
        """Saves the model and uploads it with its processor, card, reports and pictures; no pickle and no token.

        Args:
            commit_message, blocking, token, revision, private: As in `Trainer.push_to_hub`.
            merged (`bool`): Upload, in place of an adapter, the plain model that it makes of its base.
            card: Further arguments of `create_model_card`.

        Raises:
            OSError: if the upload fails for good; all of it is on disk, and the message says how to push it.
            ValueError: with `merged`, for learned prompts, which a plain model has no place for.
        """
        if merged:
            self.check_merges()
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token, private)

        folder = Path(self.args.output_dir)
        self.save_model(_internal_call=True)
        self.save_reports()
        if merged:
            self.save_merged(str(folder / "merged"))
        if not self.is_world_process_zero():
            return None

        self.create_model_card(**card)
        if merged:
            for path in (*map(folder.joinpath, PICTURES), *folder.glob("robustness*.json")):
                if path.is_file():
                    shutil.copy(path, folder / "merged")
            folder = folder / "merged"
            self.create_model_card(folder=folder)
        self._finish_current_push()
        send = upload if blocking else upload_in_background
        return send(
            folder,
            self.hub_model_id,
            commit_message=commit_message,
            token=token or self.args.hub_token,
            revision=revision or self.args.hub_revision,
        )

    def init_hf_repo(self, token=None, private=None) -> None:
        """Creates the repository, or finds that a push to it would fail, before training.

        Raises:
            ValueError: on all processes, for a token that is not valid or may not write there, a name that the Hub
                does not take, or a Hub that cannot be reached.
        """
        reason = None
        if private is not None:
            self.args.hub_private_repo = private  # of which every version of transformers reads it
        try:
            super().init_hf_repo(token)
            if self.is_world_process_zero():
                auth_check(self.hub_model_id, token=token or self.args.hub_token, write=True)
        except Exception as error:
            name = self.hub_model_id or self.args.hub_model_id or Path(self.args.output_dir).name
            reason = push_refusal(name, error)

        answers = gather([(reason, self.hub_model_id)])
        if any(reason for reason, _ in answers):
            raise ValueError(next(reason for reason, _ in answers if reason))
        self.hub_model_id = next(name for _, name in answers if name)
        self.args.hub_model_id = self.hub_model_id  # with its user, as the card's snippets need it

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Uploads a checkpoint's model while training goes on, and with `hub_strategy` `"checkpoint"` or
        `"all_checkpoints"` its folder too, both without pickles.

        Trainer's own version writes and uploads a pickle of the arguments, token included.
        """
        args = self.args
        if not self.is_world_process_zero() or args.hub_strategy == HubStrategy.END:
            return
        if self.is_uploading() and not args.hub_always_push:
            return

        self._finish_current_push()  # what it reads is about to be written over
        copy_model_files(checkpoint_folder, args.output_dir)
        save_processor(self.processing_class, args.output_dir)

        def start(folder: str, path_in_repo: str | None = None):
            return upload_in_background(
                folder,
                self.hub_model_id,
                token=args.hub_token,
                revision=args.hub_revision,
                commit_message=f"Training in progress, step {self.state.global_step}",
                path_in_repo=path_in_repo,
            )

        jobs = [start(args.output_dir)]
        if args.hub_strategy == HubStrategy.CHECKPOINT:
            jobs.append(start(checkpoint_folder, "last-checkpoint"))
        elif args.hub_strategy == HubStrategy.ALL_CHECKPOINTS:
            jobs.append(start(checkpoint_folder, Path(checkpoint_folder).name))
        self.push_in_progress = PushInProgress(jobs)
        self.uploaded_checkpoint = Path(checkpoint_folder)

    def is_uploading(self) -> bool:
        """Whether an upload of a checkpoint is still going on."""
        return self.push_in_progress is not None and not self.push_in_progress.is_done()

    def _finish_current_push(self) -> None:
        super()._finish_current_push()
        jobs = self.push_in_progress.jobs if self.push_in_progress else []
        for error in filter(None, (job.exception() for job in jobs)):
            logger.warning("An upload during training failed, which the next one makes good. %s", error)
        self.push_in_progress = None
