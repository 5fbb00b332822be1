"""Packed groups of tokens on the devices, in rows that grow and are let go of from the front."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mmkv.archive.pages import Page
from mmkv.codecs.packer import ChannelPacker
from mmkv.kernels.pack import Form, Params
from mmkv.kernels.packed_attention import PackedHistory, resident_keys, resident_values
from mmkv.models.base import Shape


@dataclass(frozen=True, slots=True)
class Row:
    """Which tokens of which page a group holds."""

    page: Page
    first: int
    stop: int

    def visible(self, first: int, stop: int) -> tuple[int, int]:
        """The group's tokens, from and to, that belong to blocks first…stop-1."""
        page = self.page
        starts = np.cumsum([0, *page.lengths])
        low = int(starts[min(max(first - page.first, 0), len(page.lengths))])
        high = int(starts[min(max(stop - page.first, 0), len(page.lengths))])
        begin = min(max(low, self.first), self.stop) - self.first
        return begin, max(begin, min(max(high, self.first), self.stop) - self.first)


@dataclass(slots=True)
class Side:
    """Keys or values of one layer in one segment; rows past the count are free.

    form: how it is coded. listed: exact centres of all rows. ends: of each row, in `listed`.
    """

    form: Form
    codes: Tensor
    words: Tensor
    top: Tensor
    wide: Tensor
    listed: Tensor
    ends: list[int] = field(default_factory=list)

    @classmethod
    def empty(
        cls, form: Form, layout: Callable[[Tensor, Form], Tensor], shape: Shape, tokens: int,
        device: torch.device,
    ) -> Side:  # fmt: skip
        """No rows yet; `layout` makes resident codes of codes by slot."""
        heads, head_dim = shape.kv_heads, shape.head_dim
        codes = torch.zeros((0, heads, tokens, head_dim), dtype=torch.uint8, device=device)
        return cls(
            form,
            layout(codes, form),
            codes.new_zeros((0, heads, head_dim), dtype=torch.int32),
            codes.new_zeros((0, heads), dtype=torch.float32),
            codes.new_zeros((0, heads, head_dim), dtype=torch.bool),
            codes.new_zeros(0, dtype=torch.float32),
        )

    @property
    def nbytes(self) -> int:
        """Bytes, room for growth included."""
        held = (self.codes, self.words, self.top, self.wide, self.listed)
        return sum(tensor.nbytes for tensor in held)

    def params(self, count: int) -> Params:
        """Parameters of the first rows."""
        return Params(self.words[:count], self.top[:count], self.wide[:count], self.listed)

    def append(self, at: int, codes: Tensor, params: Params) -> None:
        """Write rows from `at` on; answers under way keep the tensors that they were given."""
        stop = at + len(codes)
        del self.ends[at:]  # of an attempt that failed on its way
        self.listed = self.listed[: self.ends[-1] if self.ends else 0]
        for name, rows in (("codes", codes), ("words", params.words), ("top", params.top),
                           ("wide", params.wide)):  # fmt: skip
            held: Tensor = getattr(self, name)
            if stop > len(held):
                room = max(stop, 2 * len(held)) - len(held)
                held = torch.cat([held, held.new_zeros((room, *held.shape[1:]))])
                setattr(self, name, held)
            held[at:stop] = rows
        counts = ((params.words >> 6) <= 1).flatten(1).sum(dim=1).cumsum(0) + len(self.listed)
        self.ends += counts.tolist()
        if len(params.listed):
            self.listed = torch.cat([self.listed, params.listed])

    def drop(self, rows: int, count: int) -> None:
        """Let go of the first rows of `count`."""
        gone = self.ends[rows - 1]
        for name in ("codes", "words", "top", "wide"):
            setattr(self, name, getattr(self, name)[rows:count].clone())
        self.listed = self.listed[gone:].clone()
        self.ends = [end - gone for end in self.ends[rows:]]


@dataclass(slots=True)
class Segment:
    """Groups of at most `tokens` tokens; per layer keys and values."""

    tokens: int
    rows: list[Row]
    layers: list[tuple[Side, Side]]

    def history(self, layer: int) -> PackedHistory:
        """What attention takes of one layer."""
        (key, value), count = self.layers[layer], len(self.rows)
        return PackedHistory(
            key.codes[:count],
            value.codes[:count],
            key.params(count),
            value.params(count),
            key.form,
            value.form,
        )

    def drop(self, rows: int) -> None:
        """Let go of the first rows."""
        for sides in self.layers:
            for side in sides:
                side.drop(rows, len(self.rows))
        del self.rows[:rows]


LAYOUTS = (resident_keys, resident_values)


def new_segment(
    tokens: int,
    packers: list[tuple[ChannelPacker, ChannelPacker]],
    shape: Shape,
    devices: list[torch.device],
) -> Segment:
    """A segment without rows; packers and devices by layer."""
    layers = []
    for pair, device in zip(packers, devices, strict=True):
        key, value = (
            Side.empty(packer.form, layout, shape, tokens, device)
            for packer, layout in zip(pair, LAYOUTS, strict=True)
        )
        layers.append((key, value))
    return Segment(tokens, [], layers)
