"""The whole packed past on the devices, for answers that attend to all of it.

Pages are copied as they are closed, with codes of fewer than 2 bits widened to 2. Nothing is
decoded or rotated: every answer sees all of it at one fixed distance. InfLLM (arXiv 2402.04617)
does so with what has left the window; here the distance is the window's middle, where most of what
a question sees lies (`benchmarks/far.py`). It grows with the stream, and forgets what the archive
forgets.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor

from mmkv.answer.context import Context
from mmkv.answer.resident_segments import Row, Segment, new_segment
from mmkv.archive import CachedBlock, Snapshot
from mmkv.archive.pages import Page
from mmkv.codecs import Codec
from mmkv.codecs.packed import PackedCodec
from mmkv.codecs.packer import ChannelPacker
from mmkv.kernels.packed_attention import PackedHistory, compact
from mmkv.models.layers import Shape

_AT_ONCE = 64  # pages copied together


@dataclass(frozen=True, slots=True)
class FarLayer:
    """One layer's past as an answer sees it, at one fixed distance.

    Attributes:
        packed: histories, and which tokens of each group are visible, int32 `[P, 2]`.
        key: `[1, H_kv, n, D]`, before RoPE, of blocks that no page holds yet.
        value: `[1, H_kv, n, D]`, of the same.
    """

    packed: list[tuple[PackedHistory, Tensor]]
    key: Tensor
    value: Tensor


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class FarPast:
    """What one answer sees of the packed past, every token of it `distance` positions away."""

    layers: list[FarLayer]
    distance: int

    @property
    def tensors(self) -> Iterator[Tensor]:
        """What it holds; the packed rows are mostly shared with the resident past."""
        for layer in self.layers:
            yield from (layer.key, layer.value)
            for history, visible in layer.packed:
                yield from (visible, *history.tensors)


class ResidentPast:
    """One stream's packed past on its devices.

    Args:
        codec: of the stream's pages.
        shape: the language model's.
        devices: one per layer.

    Raises:
        ValueError: the codec's codes cannot be attended to as they are.
    """

    def __init__(self, codec: Codec, shape: Shape, devices: Sequence[torch.device]) -> None:
        check_resident(codec)
        assert isinstance(codec, PackedCodec)
        self._codec, self._shape, self._devices = codec, shape, list(devices)
        self._packers = [_channel_packers(codec, layer) for layer in range(len(devices))]
        self._segments: list[Segment] = []
        self._stop = 0  # number of the first block that is not here
        self._lock = threading.Lock()
        self._shown: WeakSet[FarPast] = WeakSet()
        self._showing = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes on the devices, including room for growth and what answers under way hold.

        An answer may still read rows that have been moved or forgotten since it began.
        """
        segments = list(self._segments)
        held = [t for s in segments for sides in s.layers for side in sides for t in side.tensors]
        with self._showing:
            shown = list(self._shown)
        stores = (t.untyped_storage() for t in chain(held, *(far.tensors for far in shown)))
        return sum({store.data_ptr(): store.nbytes() for store in stores}.values())

    def see(self, context: Context, window_distance: int | None) -> FarPast:
        """Return what an answer in this context sees of the past.

        It lies half-way between the end of the recent blocks and the reach of the window, or of
        the past itself where that is nearer.

        Args:
            context: what the question may see.
            window_distance: positions that the window spans; None while nothing has left it.
        """
        with self._lock:
            self._forget(context.past)
            self._fetch(context.past)
            layers = self._view(context.past, context.candidates)
        blocks = [*context.candidates, *context.recent]
        recent = sum(int(block.layout.advance[0]) for block in context.recent)
        reach = recent + (int(context.anchor[0] - blocks[0].origin[0]) if blocks else 0)
        if window_distance is not None:
            reach = max(recent, min(reach, window_distance))
        far = FarPast(layers, (recent + reach) // 2)
        with self._showing:
            self._shown.add(far)
        return far

    def _fetch(self, past: Snapshot) -> None:
        new = [page for page in past.pages if page.first >= self._stop and sum(page.lengths) > 0]
        at = 0
        while at < len(new):
            alike = at + 1
            while alike < min(len(new), at + _AT_ONCE) and new[alike].lengths == new[at].lengths:
                alike += 1
            self._add(past, new[at:alike])
            self._stop = new[alike - 1].stop
            at = alike

    def _add(self, past: Snapshot, pages: list[Page]) -> None:
        """Copy pages with the same lengths."""
        groups = self._packers[0][0].groups(sum(pages[0].lengths))
        stops = np.cumsum(groups).tolist()
        rows = [Row(p, s - g, s) for p in pages for g, s in zip(groups, stops, strict=True)]
        segment = self._segment(max(groups))
        for layer, device in enumerate(self._devices):
            parts = [past.page_part(layer, page) for page in pages]
            pairs = [self._codec.halves(part, layer) for part in parts]
            for i, packer in enumerate(self._packers[layer]):
                own = [pair[i] for pair in pairs]
                params, codes = packer.resident(
                    own, self._shape, device, segment.tokens, values=i == 1
                )
                shared = compact(params, packer.form)
                segment.layers[layer][i].append(len(segment.rows), codes, shared)
        segment.rows += rows

    def _segment(self, longest: int) -> Segment:
        """Return the newest segment if such groups fit it, or a new one."""
        if not self._segments or longest > self._segments[-1].tokens:
            tokens = -(-longest // 64) * 64
            self._segments.append(new_segment(tokens, self._packers, self._shape, self._devices))
        return self._segments[-1]

    def _forget(self, past: Snapshot) -> None:
        first = past.blocks[0].index if past.blocks else 0
        for segment in list(self._segments):
            gone = 0
            while gone < len(segment.rows) and segment.rows[gone].page.stop <= first:
                gone += 1
            if gone == len(segment.rows) and segment is not self._segments[-1]:
                self._segments.remove(segment)
            elif 2 * gone > len(segment.rows):
                segment.drop(gone)

    def _view(self, past: Snapshot, candidates: Sequence[CachedBlock]) -> list[FarLayer]:
        first = candidates[0].index if candidates else 0
        stop = candidates[-1].index + 1 if candidates else 0
        ranges = [
            torch.tensor([row.visible(first, stop) for row in segment.rows], dtype=torch.int32)
            for segment in self._segments
        ]
        where = {device: [r.view(-1, 2).to(device) for r in ranges] for device in {*self._devices}}
        rest = [block for block in candidates if block.index >= self._stop]
        layers = []
        for layer, device in enumerate(self._devices):
            kv = past.load(layer, rest, device)
            histories = [segment.history(layer) for segment in self._segments]
            packed = list(zip(histories, where[device], strict=True))
            layers.append(FarLayer(packed, kv[None, 0], kv[None, 1]))
        return layers


def check_resident(codec: Codec) -> None:
    """Refuse codecs whose codes cannot be attended to as they are.

    Raises:
        ValueError: this is one of them.
    """
    if not isinstance(codec, PackedCodec) or not isinstance(codec.packers(0)[1], ChannelPacker):
        raise ValueError(
            "retrieve_frames='all' keeps the packed past on the device, which needs "
            f"codec='fitted' or 'vidkv', not {codec.name!r}; or set retrieve_frames to a number"
        )


def _channel_packers(codec: PackedCodec, layer: int) -> tuple[ChannelPacker, ChannelPacker]:
    key, value = codec.packers(layer)
    assert isinstance(value, ChannelPacker)
    return key, value
