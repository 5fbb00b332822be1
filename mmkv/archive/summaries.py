"""Summaries of every block and layer, by which a question finds its blocks.

They lie in chunks of consecutive blocks: the newest on the layer's device, up to a number of
bytes in all, older ones in host memory. They are float16, less their channels' centre, which is
the mean key of the stream's first block: a key bias of some hundreds then costs no precision, and
adds the same to a query's products with all of them. (In 8 bits, a scale per vector, some layers
chose other frames.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ROWS = 1024  # blocks per chunk


class SummaryIndex:
    """The summaries of one stream.

    Args:
        layers: number of layers.
        limit: bytes kept on the devices, None for all.
    """

    def __init__(self, layers: int, limit: int | None = None) -> None:
        self.chunks: list[dict[int, Tensor]] = [{} for _ in range(layers)]
        self.centre: list[Tensor] = []  # per layer [H_kv, D]; empty before the first block
        self._limit = limit

    @property
    def nbytes(self) -> int:
        """Bytes of all summaries."""
        return sum(c.nbytes for chunks in self.chunks for c in list(chunks.values()))

    def append(self, at: int, rows: Sequence[Tensor]) -> list[Tensor]:
        """Round and write summaries of blocks from number `at` on; per layer `[n, m, H_kv, D]`.

        Returns:
            what was written: float16, less the centre.
        """
        if not rows or not len(rows[0]):
            return []
        if not self.centre:
            self.centre = first_centre(rows)
        written = [rounded(*pair) for pair in zip(rows, self.centre, strict=True)]
        self.extend(at, written)
        return written

    def extend(self, at: int, rows: Sequence[Tensor]) -> None:
        """Write what is rounded already; float16, less the centre."""
        count = len(rows[0])
        for chunks, layer in zip(self.chunks, rows, strict=True):
            done = 0
            while done < count:
                number, row = divmod(at + done, ROWS)
                if number not in chunks:
                    # [H_kv, m, ROWS, D] in memory: a head's keys side by side, one product of all
                    heads_first = (*layer.shape[2:0:-1], ROWS, layer.shape[3])
                    chunks[number] = layer.new_empty(heads_first).permute(2, 1, 0, 3)
                take = min(count - done, ROWS - row)
                chunks[number][row : row + take] = layer[done : done + take]
                done += take
        self._to_host()

    def forget(self, first: int) -> None:
        """Drop chunks that hold nothing from block `first` on."""
        for chunks in self.chunks:
            for number in [n for n in chunks if (n + 1) * ROWS <= first]:
                del chunks[number]

    def view(self) -> Summaries:
        """The summaries as they are now; rows are never written twice."""
        return Summaries([dict(chunks) for chunks in self.chunks], self.centre)

    def _to_host(self) -> None:
        if self._limit is None:
            return
        while True:
            held = [
                (number, layer)
                for layer, chunks in enumerate(self.chunks)
                for number, chunk in chunks.items()
                if chunk.device.type != "cpu"
            ]
            used = sum(self.chunks[layer][number].nbytes for number, layer in held)
            oldest = min((number for number, _ in held), default=None)
            newest = max((number for number, _ in held), default=None)
            if used <= self._limit or oldest is None or oldest == newest:
                return  # the chunk being filled stays
            for number, layer in held:
                if number == oldest:
                    self.chunks[layer][number] = self.chunks[layer][number].cpu()


def first_centre(rows: Sequence[Tensor]) -> list[Tensor]:
    """The centre `[H_kv, D]` per layer, of a stream that begins with these summaries."""
    return [layer[0, 0].float().nan_to_num(0.0, 0.0, 0.0) for layer in rows]


def rounded(rows: Tensor, centre: Tensor) -> Tensor:
    """What is kept of summaries `[n, m, H_kv, D]`: float16, less the centre `[H_kv, D]`."""
    most = torch.finfo(torch.float16).max
    return (rows.float() - centre).clamp_(-most, most).half()


@dataclass(frozen=True, slots=True)
class Summaries:
    """The summaries at one moment.

    Attributes:
        centre: per layer float32 `[H_kv, D]`.
    """

    _chunks: list[dict[int, Tensor]]
    centre: list[Tensor]

    def parts(self, layer: int, first: int, last: int) -> Iterator[Tensor]:
        """Summaries of blocks first…last-1 in order, less the centre, float16 `[n, m, H_kv, D]`.

        Each piece is where it lies: on the layer's device, or in host memory.
        """
        while first < last:
            number, row = divmod(first, ROWS)
            take = min(last - first, ROWS - row)
            yield self._chunks[layer][number][row : row + take]
            first += take

    def get(self, layer: int, first: int, last: int, device: torch.device) -> Tensor:
        """Summaries of blocks first…last-1, whole, float32 `[n, m, H_kv, D]`, on a device."""
        parts = [part.to(device) for part in self.parts(layer, first, last)]
        if parts:
            return torch.cat(parts).float() + self.centre[layer].to(device)
        like = next(iter(self._chunks[layer].values()), torch.empty((0, 1, 0, 0)))
        return torch.empty((0, *like.shape[1:]), device=device)
