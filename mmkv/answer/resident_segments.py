"""Packed groups of tokens on the devices; rows are appended at the end and dropped in front."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmkv.archive.pages import Page
from mmkv.codecs.packer import ChannelPacker
from mmkv.kernels.pack import Form
from mmkv.kernels.packed_attention import Compact, PackedHistory, resident_keys, resident_values
from mmkv.models.layers import Shape


@dataclass(frozen=True, slots=True)
class Row:
    """Which tokens of which page a group holds: `first` to `stop` - 1."""

    page: Page
    first: int
    stop: int

    def visible(self, first: int, stop: int) -> tuple[int, int]:
        """Return which of the group's tokens, from and to, belong to blocks first…stop-1."""
        page = self.page
        if first <= page.first and page.stop <= stop:
            return 0, self.stop - self.first
        starts = np.cumsum([0, *page.lengths])
        low = int(starts[min(max(first - page.first, 0), len(page.lengths))])
        high = int(starts[min(max(stop - page.first, 0), len(page.lengths))])
        begin = min(max(low, self.first), self.stop) - self.first
        return begin, max(begin, min(max(high, self.first), self.stop) - self.first)


@dataclass(slots=True)
class Side:
    """Keys or values of one layer in one segment; rows past the count are free.

    Attributes:
        form: how it is coded.
        codes: as in `PackedHistory`.
        words, top, order, exact: as in `Compact`.
    """

    form: Form
    codes: Tensor
    words: Tensor
    top: Tensor
    order: Tensor | None = None
    exact: Tensor | None = None

    @classmethod
    def empty(
        cls, form: Form, layout: Callable[[Tensor, Form], Tensor], shape: Shape, tokens: int,
        device: torch.device,
    ) -> Side:  # fmt: skip
        """Make one without rows; `layout` turns codes by slot into resident codes."""
        heads, head_dim = shape.kv_heads, shape.head_dim
        codes = torch.zeros((0, heads, tokens, head_dim), dtype=torch.uint8, device=device)
        words = codes.new_zeros((0, heads, head_dim), dtype=torch.int16)
        return cls(
            form, layout(codes, form), words, words.new_zeros((0, heads), dtype=torch.float32)
        )

    @property
    def tensors(self) -> list[Tensor]:
        """Those that are not None, room for growth included."""
        return [self.codes, *Compact(self.words, self.top, self.order, self.exact).tensors]

    def rows(self, count: int) -> tuple[Tensor, Compact]:
        """Return codes and parameters of the first `count` rows."""
        shared = Compact(self.words, self.top, self.order, self.exact)
        return self.codes[:count], shared[:count]

    def append(self, at: int, codes: Tensor, shared: Compact) -> None:
        """Write rows from `at` on; answers under way keep the tensors they have."""
        stop, held = at + len(codes), len(self.codes)
        room = held if stop <= held else max(stop, 2 * held)
        new = {"codes": codes, "words": shared.words, "top": shared.top, "order": shared.order,
               "exact": shared.exact}  # fmt: skip
        for name, rows in new.items():
            tensor: Tensor | None = getattr(self, name)
            if tensor is None and rows is not None:
                tensor = rows.new_zeros((0, *rows.shape[1:]))
            if tensor is None:
                continue
            if room > len(tensor):
                more = tensor.new_zeros((room - len(tensor), *tensor.shape[1:]))
                tensor = torch.cat([tensor, more])
                setattr(self, name, tensor)
            if rows is not None:
                tensor[at:stop] = rows

    def drop(self, rows: int, count: int) -> None:
        """Drop the first `rows` of `count` rows."""
        for name in ("codes", "words", "top", "order", "exact"):
            tensor: Tensor | None = getattr(self, name)
            if tensor is not None:
                setattr(self, name, tensor[rows:count].clone())


@dataclass(slots=True)
class Segment:
    """Groups of at most `tokens` tokens, a row each; keys and values by layer."""

    tokens: int
    rows: list[Row]
    layers: list[tuple[Side, Side]]

    def history(self, layer: int) -> PackedHistory:
        """Return one layer's rows as attention takes them."""
        key, value = self.layers[layer]
        keys, key_params = key.rows(len(self.rows))
        values, value_params = value.rows(len(self.rows))
        return PackedHistory(keys, values, key_params, value_params, key.form, value.form)

    def drop(self, rows: int) -> None:
        """Drop the first `rows` rows."""
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
    """Make a segment without rows; packers and devices are by layer."""
    layers = []
    for pair, device in zip(packers, devices, strict=True):
        key, value = (
            Side.empty(packer.form, layout, shape, tokens, device)
            for packer, layout in zip(pair, LAYOUTS, strict=True)
        )
        layers.append((key, value))
    return Segment(tokens, [], layers)
