"""Keys or values of one layer as bytes: the parts that packed codecs are built from.

Bytes of a page: per group of tokens a row of parameters (per head the largest scale, float32; a bit
per channel where some are wide; a word per channel), then the list of exact centres. Bytes of a
block: its codes, preceded by its place among the page's tokens, uint16, where groups are shorter
than the page. The rest of the layout is in `kernels/pack/form.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mmkv.codecs.base import Part
from mmkv.kernels.pack import Fit, Form, Params, pack
from mmkv.kernels.unpack_rotate import unpack_rotate
from mmkv.kernels.widen import widen
from mmkv.models.layers import Shape

_LISTED = 2  # words whose high part is below this ask for an exact centre
# elements packed at a time: few enough to stay in a processor's caches, and on a GPU in its L2
_AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 24}
_PLACE = np.dtype("<u2")
_WORD = np.dtype("<u2")
_EXACT = np.dtype("<f4")


# what a layer's blocks share, and each block's bytes
Packed = tuple[np.ndarray, list[np.ndarray]]


class Packer(ABC):
    """Packs the keys or the values of a page, and unpacks blocks of many pages."""

    @abstractmethod
    def pack(
        self, states: Tensor, lengths: Sequence[int], salience: Sequence[Tensor] | None
    ) -> list[Packed]:
        """Pack each layer of a page of at least one token.

        Args:
            states: `[L, H_kv, T, D]`.
            lengths, salience: see `Codec.encode_layers`.
        """

    @abstractmethod
    def unpack(
        self, parts: Sequence[Part], shape: Shape, rotation: tuple[Tensor, Tensor] | None,
        out: Tensor,
    ) -> None:  # fmt: skip
        """Fill `out` `[H_kv, n, D]` with these blocks, at least one token in all."""


class ChannelPacker(Packer):
    """Scales per channel, over the page's tokens or over groups of `group_size` of them.

    A group is at least `group_size` tokens; what is left at the end of a page joins the last one.
    """

    def __init__(self, form: Form, group_size: int | None) -> None:
        self.form = form
        self.group_size = group_size

    def pack(
        self, states: Tensor, lengths: Sequence[int], salience: Sequence[Tensor] | None
    ) -> list[Packed]:
        tokens = states.shape[2]
        if self.group_size and tokens > np.iinfo(_PLACE).max:
            raise ValueError(
                f"a page of {tokens} tokens is too long for group_size, which takes up to "
                f"{np.iinfo(_PLACE).max}; use a smaller page_tokens, or no group_size"
            )
        groups = self.groups(tokens)
        packed: list[Packed] = []
        for some in at_once(states):
            fit, codes = pack(some, lengths, groups, self.form)
            shared = self._shared(fit, len(some))
            packed += zip(shared, self._blocks(codes.cpu().numpy(), lengths, some), strict=True)
        return packed

    def block_bytes(self, length: int, shape: Shape) -> int:
        """Bytes of a block of this many tokens."""
        if not length:
            return 0
        planes = sum(self.form.plane_bytes(shape.kv_heads, length, shape.head_dim))
        return planes + (_PLACE.itemsize if self.group_size else 0)

    def unpack(
        self, parts: Sequence[Part], shape: Shape, rotation: tuple[Tensor, Tensor] | None,
        out: Tensor,
    ) -> None:  # fmt: skip
        params, firsts = self._params([p.shared for p in parts], shape)
        blocks = [b for part in parts for b in part.blocks]
        lengths = [n for part in parts for n in part.lengths]
        sizes = np.array([len(b) for b in blocks])
        at = np.cumsum(sizes) - sizes + (_PLACE.itemsize if self.group_size else 0)
        codes = torch.empty(int(sizes.sum()), dtype=torch.uint8, pin_memory=out.is_cuda)
        np.concatenate(blocks, out=codes.numpy())
        rows = torch.from_numpy(self._rows(parts, firsts))
        unpack_rotate(codes, torch.from_numpy(at), lengths, rows, params, self.form, rotation, out)

    def resident(
        self,
        parts: Sequence[Part],
        shape: Shape,
        device: torch.device,
        tokens: int,
        *,
        values: bool,
    ) -> tuple[Params, Tensor]:
        """Pages with the same lengths as groups of codes, for attention over them as they are.

        Args:
            tokens: per group, a multiple of 16; it is filled up with zeros.
            values: lay the codes out as values are, not as keys.

        Returns:
            the groups' parameters and codes, page by page; see `widen`.
        """
        params, _ = self._params([p.shared for p in parts], shape)
        lengths = parts[0].lengths
        data = torch.from_numpy(np.concatenate([b for p in parts for b in p.blocks])).to(device)
        sizes = np.array([self.block_bytes(n, shape) for n in lengths])
        pages = torch.arange(len(parts), device=device) * int(sizes.sum())
        skip = _PLACE.itemsize if self.group_size else 0
        starts = (np.cumsum(sizes) - sizes + skip).tolist()
        size = (shape.kv_heads, tokens, shape.head_dim)
        groups = self.groups(sum(lengths))
        codes = widen(data, pages, starts, lengths, groups, self.form, size, values=values)
        return params.to(device), codes

    def groups(self, tokens: int) -> list[int]:
        """Tokens of each group of a page."""
        count = max(1, tokens // self.group_size) if self.group_size else 1
        size = self.group_size or tokens
        return [size] * (count - 1) + [tokens - size * (count - 1)]

    def _rows(self, parts: Sequence[Part], firsts: np.ndarray) -> np.ndarray:
        """The group of each token, int64; `firsts`: each page's first group, and their number."""
        if not self.group_size:
            return np.repeat(firsts[:-1], [sum(part.lengths) for part in parts])
        lengths = np.array([n for part in parts for n in part.lengths])
        pages = np.repeat(np.arange(len(parts)), [len(part.lengths) for part in parts])
        blocks = [b for part in parts for b in part.blocks]
        places = [int(b[: _PLACE.itemsize].copy().view(_PLACE)[0]) if len(b) else 0 for b in blocks]
        inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        group = (np.repeat(places, lengths) + inside) // self.group_size
        pages = np.repeat(pages, lengths)
        return np.minimum(firsts[pages] + group, firsts[pages + 1] - 1)

    def _shared(self, fit: Fit, layers: int) -> list[np.ndarray]:
        """For each layer, the rows of its groups, then its exact centres."""
        words = fit.words.cpu().numpy()
        wanted = (words >> 6) < _LISTED
        exact = fit.exact.cpu().numpy().astype(_EXACT)
        count = len(words) // layers
        parts = [_bytes(fit.top.cpu().numpy().astype(_EXACT), len(words))]
        if self.form.wide:
            parts.append(np.packbits(fit.wide.cpu().numpy().reshape(len(words), -1), axis=1))
        parts.append(_bytes(words.astype(_WORD), len(words)))
        rows = np.concatenate(parts, axis=1)
        shared = []
        for first in range(0, len(words), count):
            own = slice(first, first + count)
            listed = _bytes(exact[own][wanted[own]], 1)[0]
            shared.append(np.concatenate([rows[own].ravel(), listed]))
        return shared

    def _blocks(
        self, codes: np.ndarray, lengths: Sequence[int], states: Tensor
    ) -> list[list[np.ndarray]]:
        """For each layer, the blocks' bytes, cut from codes `[L, B]`."""
        heads, head_dim = states.shape[1], states.shape[3]
        sizes = [sum(self.form.plane_bytes(heads, n, head_dim)) for n in lengths]
        blocks = np.split(codes, np.cumsum(sizes)[:-1], axis=1)
        if self.group_size:
            starts = np.cumsum([0, *lengths])[:-1].astype(_PLACE)
            places = starts.view(np.uint8).reshape(len(lengths), -1)
            blocks = [
                np.concatenate([np.broadcast_to(place, (len(codes), len(place))), block], axis=1)
                if length
                else block
                for place, block, length in zip(places, blocks, lengths, strict=True)
            ]
        return [[block[layer] for block in blocks] for layer in range(len(codes))]

    def _params(self, shared: Sequence[np.ndarray], shape: Shape) -> tuple[Params, np.ndarray]:
        """All pages' groups: their parameters in host memory, each page's first, their number."""
        heads, head_dim = shape.kv_heads, shape.head_dim
        sizes = self.form.row_bytes(heads, head_dim)
        firsts, rows, exact = [0], [], []
        for page in shared:
            groups = self._groups_in(page, sizes)
            end = groups * sum(sizes)
            firsts.append(firsts[-1] + groups)
            rows.append(page[:end].reshape(groups, -1))
            exact.append(page[end:])
        top, wide, words = np.split(np.concatenate(rows), np.cumsum(sizes)[:2], axis=1)
        size = (firsts[-1], heads, head_dim)
        chosen = np.zeros(size, dtype=bool)
        if self.form.wide:
            chosen = np.unpackbits(wide, axis=1).astype(bool).reshape(size)
        numbers = np.ascontiguousarray(words).view(_WORD).astype(np.int32).reshape(size)
        params = Params(
            torch.from_numpy(numbers),
            torch.from_numpy(np.ascontiguousarray(top).view(_EXACT)),
            torch.from_numpy(chosen),
            torch.from_numpy(np.concatenate(exact).view(_EXACT)),
        )
        return params, np.array(firsts)

    def _groups_in(self, page: np.ndarray, sizes: tuple[int, int, int]) -> int:
        """How many groups a page's bytes hold; exact centres follow them."""
        row, groups, listed = sum(sizes), 0, 0
        if not self.group_size:
            return 1
        while (groups + 1) * row + listed * _EXACT.itemsize <= len(page):
            words = page[groups * row + sizes[0] + sizes[1] : (groups + 1) * row].copy()
            listed += int(((words.view(_WORD) >> 6) < _LISTED).sum())
            groups += 1
        assert groups * row + listed * _EXACT.itemsize == len(page), "damaged page"
        return groups


def at_once(states: Tensor) -> tuple[Tensor, ...]:
    """Layers `[L, ...]`, as many at a time as are packed together."""
    most = _AT_ONCE.get(states.device.type, _AT_ONCE["cpu"])
    return states.split(max(1, most // states[0].numel()))


def _bytes(numbers: np.ndarray, rows: int) -> np.ndarray:
    return np.ascontiguousarray(numbers).reshape(rows, -1).view(np.uint8)
