"""Training on a stream: every process reads its own share, and a checkpoint says where each stood."""

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from loopscale.data import StreamedWindows
from loopscale.errors import InputError
from loopscale.storage import read_json
from loopscale.train.checkpoints import STREAM_FILE


class StreamedTraining:
    """Mixin of transformers' Trainer whose training windows may be a stream."""

    args: Any
    train_dataset: Any
    data_collator: Any
    stood: tuple[dict[str, Any], ...] = ()  # where the streams of all processes were at the last checkpoint

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the batches; of a stream each process has its own, which accelerate would deal out a second time."""
        if not isinstance(self.train_dataset, StreamedWindows):
            return super().get_train_dataloader()  # type: ignore[misc]
        own = torch.Generator()  # a draw from the run's own at every start would be one too many after a resumption
        size = self.args.train_batch_size
        return DataLoader(self.train_dataset, size, collate_fn=self.data_collator, generator=own)

    def take_up_stream(self, checkpoint: Path) -> None:
        """Go on with the window after the last one of a checkpoint. Raises `InputError` for another way to share."""
        stood = read_json(checkpoint / STREAM_FILE, list[dict[str, Any]])
        if len(stood) != self.args.world_size:
            raise InputError(
                f"{checkpoint} was written by {len(stood)} processes that shared a stream, and these are "
                f"{self.args.world_size}: go on with {len(stood)}."
            )
        self.args.ignore_data_skip = True  # the stream stands there already
        self.train_dataset.load_state_dict(stood[self.args.process_index])

    def states_of_stream(self) -> tuple[dict[str, Any], ...]:
        """Return where every process stands in its share, none where no stream is read; all have to ask."""
        if not isinstance(self.train_dataset, StreamedWindows):
            return ()
        states = [self.train_dataset.state_dict()] * self.args.world_size
        if self.args.world_size > 1:
            torch.distributed.all_gather_object(states, self.train_dataset.state_dict())
        return tuple(states)
