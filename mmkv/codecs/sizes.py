"""How many bytes packed keys and values take, by arithmetic: nothing is packed, and without torch.

What is packed agrees with it (`test_codecs_sizes.py`), but for exact centres: a channel whose mean
is further from zero than 64 steps of its scale takes four bytes more on every page.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmkv.kernels.sizes import Levels

PREFIX = 4  # bytes in front of a page: how long the part is that its keys share
_LEVELS = {1.58: 3, 2: 4, 4: 16}
_LARGE, _SMALL, _MANY = 512, 64, 128


def levels_of(bits: float, head_dim: int) -> Levels:
    """Return how so many bits are coded; 1.5 is half of the channels at 2 bits, the others at 1."""
    return Levels(2, head_dim // 2) if bits == 1.5 else Levels(_LEVELS[bits])


def page_tokens(block: int) -> int:
    """Return after how many tokens a page is closed, by a block's, if nothing else is set."""
    return _LARGE if block >= _MANY else _SMALL


def page_bytes(
    bits: tuple[float, float], kv_heads: int, head_dim: int, lengths: Sequence[int]
) -> int:
    """Return the bytes of one layer of a page in the default codec, without exact centres.

    Args:
        bits: of keys and of values.
        kv_heads: key-value heads.
        head_dim: elements of one head, a multiple of 16.
        lengths: tokens of each block of the page.
    """
    total = PREFIX
    for levels in (levels_of(one, head_dim) for one in bits):
        total += sum(levels.row_bytes(kv_heads, head_dim))
        total += sum(sum(levels.plane_bytes(kv_heads, n, head_dim)) for n in lengths)
    return total


def page_bits(
    bits: tuple[float, float], kv_heads: int, head_dim: int, lengths: Sequence[int]
) -> float:
    """Return bits per element of such a page, what is shared included."""
    elements = 2 * kv_heads * head_dim * sum(lengths)
    return 8 * page_bytes(bits, kv_heads, head_dim, lengths) / elements
