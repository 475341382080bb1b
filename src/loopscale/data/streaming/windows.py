"""Windows of a stream: rows of sequence_length + 1 tokens, packed as documents come, endlessly.

The state is where the source stands and the tokens that fill no window yet: a run goes on with the very next window,
without reading again what it was trained on.
"""

from collections.abc import Iterator, Mapping
from typing import Any, final

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerFast

from loopscale.data.encoding import encode, end_of_text
from loopscale.data.streaming.text_stream import TextStream, documents, share_of
from loopscale.data.tokens import pieces_of
from loopscale.errors import InputError


@final
class StreamedWindows(IterableDataset[Tensor]):
    """Endless rows (sequence_length + 1) of one process's share of a source; after its end it begins anew.

    Args:
        source: the documents.
        tokenizer: makes their ids.
        sequence_length: tokens the model reads in a row.
        stride: tokens from one row's start to the next.
        rank: of this process.
        processes: how many share the source.
    """

    def __init__(
        self,
        source: TextStream,
        tokenizer: PreTrainedTokenizerFast,
        sequence_length: int,
        stride: int,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.source, self.tokenizer = source, tokenizer
        self.sequence_length, self.stride = sequence_length, stride
        self._share = rank, processes
        self._stream = share_of(source.train, rank, processes)
        self._rest: list[int] = []  # tokens that fill no row yet
        self.epoch = 0

    def __iter__(self) -> Iterator[Int64[Tensor, " length"]]:
        while True:
            rows = 0
            for row in self._one_pass():
                rows += 1
                yield row
            self.epoch += 1
            self._stream = share_of(self.source.train, *self._share)
            if not rows:
                raise InputError(
                    f"corpus '{self.source.id.name}' fills no window of {self.sequence_length} tokens in one of the "
                    "processes that share it: give more text, or a shorter window."
                )

    def _one_pass(self) -> Iterator[Int64[Tensor, " length"]]:
        yield from self._rows()
        for text in documents(self._stream, self.source.column, self.source.files):
            if self.source.trained_on(text):
                self._rest += self._ids(text)
                yield from self._rows()

    def _rows(self) -> Iterator[Int64[Tensor, " length"]]:
        while len(self._rest) > self.sequence_length:
            row = torch.tensor(self._rest[: self.sequence_length + 1])
            del self._rest[: self.stride]  # before the row is out: the state is that after it
            yield row

    def _ids(self, text: str) -> list[int]:
        end = end_of_text(self.tokenizer)
        parts = pieces_of([text], end is not None)
        texts, ends = zip(*parts, strict=True)
        encoded = encode(self.tokenizer, texts)
        return [i for ids, last in zip(encoded, ends, strict=True) for i in ([*ids, int(end or 0)] if last else ids)]

    def state_dict(self) -> dict[str, Any]:
        """Return where this process's share stands, after the last row that was taken."""
        return {"source": self._stream.state_dict(), "rest": list(self._rest), "epoch": self.epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._stream.load_state_dict(state["source"])
        self._rest, self.epoch = list(state["rest"]), state["epoch"]
