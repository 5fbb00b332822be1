"""Which tokens of a page are left, as bits: per layer one for every token of every key head.

Heads and layers may keep different tokens. In this version each keeps equally many of a block; the
format does not require it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def bit_bytes(heads: int, tokens: int) -> int:
    """Bytes of one layer's bits."""
    return -(-heads * tokens // 8)


def to_bits(kept: np.ndarray) -> np.ndarray:
    """Bytes of bool `[H_kv, T]`."""
    return np.packbits(kept)


def from_bits(shared: np.ndarray, heads: int, tokens: int) -> np.ndarray:
    """Bool `[H_kv, T]` of bytes that begin with them."""
    size = heads * tokens
    bits = np.unpackbits(shared[: bit_bytes(heads, tokens)], count=size)
    return bits.astype(bool).reshape(heads, tokens)


def places(kept: np.ndarray, whole: Sequence[int], blocks: Sequence[int]) -> np.ndarray:
    """Where the tokens that are left stand among all tokens of some blocks, int64 `[H_kv, n]`.

    Args:
        kept: bool `[H_kv, T]`, of a page.
        whole: tokens of each of its blocks.
        blocks: which of them, counted from its first.

    Raises:
        ValueError: heads keep different numbers of tokens.
    """
    ends = np.cumsum([0, *whole])
    mine = np.concatenate([kept[:, ends[i] : ends[i + 1]] for i in blocks], axis=1)
    counts = mine.sum(axis=1)
    if (counts != counts[0]).any():
        raise ValueError(
            "heads keep different numbers of a block's tokens, which this version cannot read; "
            "open the store with the mmkv that wrote it"
        )
    return np.nonzero(mine)[1].reshape(len(kept), -1)


def nearest(kept: np.ndarray) -> np.ndarray:
    """The kept token nearest to each token of a block, int64 `[H, T]`.

    Args:
        kept: bool `[H, T]`, at least one set in each row.
    """
    size = kept.shape[1]
    at = np.arange(size)
    left = np.maximum.accumulate(np.where(kept, at, -size), axis=1)
    right = np.minimum.accumulate(np.where(kept, at, 2 * size)[:, ::-1], axis=1)[:, ::-1]
    return np.where(at - left <= right - at, left, right)
