"""A Trainer that makes several passes over a stream, and goes on in the pass in which a run was cut off."""

from __future__ import annotations

from typing import Any

from torch.utils.data import IterableDataset

from ..data.streams import StreamingImages
from .hub_trainer import HubTrainer
from .streams import Passes, rows_per_batch


class StreamTrainer(HubTrainer):
    """What [`BaseTrainer`] is over a stream: it counts the passes, which Trainer takes for one epoch.

    Attributes:
        passes (`Passes`, *optional*): Counts them, if the training set is a stream.
        begin_stream_at (`tuple[int, int]`): The pass in which training begins, and the steps already made in it.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.begin_stream_at = (0, 0)
        self.passes: Passes | None = None
        if isinstance(self.train_dataset, IterableDataset):
            self.passes = Passes()
            self.add_callback(self.passes)

    @property
    def epoch(self) -> int:
        """The pass over the training set that runs, from 0."""
        return int(self.state.epoch or 0) if self.passes is None else self.passes.number

    def _init_training_state(self, *args, **kwargs):
        begin_at = super()._init_training_state(*args, **kwargs)
        if self.passes is None:
            return begin_at

        # Of a stream, Trainer would go on in the first pass, wherever the run was.
        number, steps = self.begin_stream_at
        if self.args.ignore_data_skip:
            steps = 0
        self.passes.begin_at(number, self.state.global_step - steps)
        batches = steps * self.args.gradient_accumulation_steps
        if isinstance(self.train_dataset, StreamingImages):
            self.train_dataset.read_in_batches(
                rows_per_batch(self.args), self.args.dataloader_drop_last, epoch=number, batches_done=batches
            )
        return number, batches

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """Takes the batches of one step. What is left at the end of a pass over a stream, and fills none, is let go.

        Trainer would add the gradient of such a rest to the next pass's first step, which would be too long.
        """
        try:
            batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        except ValueError as error:
            if self.passes is None or "Batch does not contain any data" not in str(error):
                raise
            batches, num_items = [], None  # an empty pass, which `Passes` names
        if self.passes is not None and len(batches) < num_batches:
            return [], num_items
        return batches, num_items
