"""Tile sizes of the Triton kernels, fixed per GPU generation: nothing is tuned while it runs.

Chosen from what compiles within the shared memory of each generation (99 KB on 8.6, 8.9 and 12.x,
163 KB on 8.0, 227 KB on 9.0) without spilling registers; not yet tuned on hardware.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch


@dataclass(frozen=True, slots=True)
class Tiles:
    """The tile of a program.

    Attributes:
        rows: queries, or tokens.
        cols: keys at a time.
        warps, stages: Triton's.
    """

    rows: int
    cols: int
    warps: int
    stages: int


def capability(device: torch.device) -> int:
    """Compute capability as 10 × major + minor; the CPU (Triton's interpreter) counts as 90."""
    if device.type != "cuda":
        return 90
    return _capability(device.index if device.index is not None else torch.cuda.current_device())


@cache
def _capability(index: int) -> int:
    major, minor = torch.cuda.get_device_capability(index)
    return 10 * major + minor


def large_shared(arch: int) -> bool:
    """Whether a program has more than 99 KB of shared memory."""
    return arch in (80, 90, 100, 103)


def processors(device: torch.device) -> int:
    """Streaming multiprocessors: how many programs run side by side."""
    if device.type != "cuda":
        return 4
    return torch.cuda.get_device_properties(device).multi_processor_count


def window_tiles(arch: int, queries: int, heads: int, head_dim: int, element: int) -> Tiles:
    """For `window_attention` over queries of this head size and bytes per element."""
    if head_dim > 256:
        return Tiles(16, 16, 8, 2) if element == 4 else Tiles(32, 32, 8, 2)
    if element == 4:
        return Tiles(32, 32 if head_dim <= 128 else 16, 8, 2)
    if head_dim > 128:
        return Tiles(64, 32, 8, 2)
    if arch >= 90 and large_shared(arch):
        if queries * heads >= 128 * 132:
            return Tiles(128, 64, 8, 2)
        return Tiles(64, 128, 4, 2)
    if large_shared(arch):
        return Tiles(128, 64, 8, 2)
    return Tiles(64, 64, 4, 2)


def buffer_tiles(arch: int, rows: int, head_dim: int, element: int) -> Tiles:
    """For `buffer_attention` over so many rows of queries of one key head."""
    if element == 4:
        return Tiles(16, 32 if head_dim <= 256 else 16, 8, 2)
    power = 1 << max(4, (min(rows, 64) - 1).bit_length())
    warps = 8 if power == 64 else 4
    if head_dim > 128:
        return Tiles(min(power, 32), 32, warps if head_dim <= 256 else 8, 2)
    return Tiles(power, 64, warps, 3 if large_shared(arch) else 2)


def mass_tiles(rows: int, head_dim: int, element: int) -> Tiles:
    """For `attention_mass` over so many rows of queries of one key head."""
    if head_dim > 256:
        return Tiles(16, 16 if element == 4 else 32, 4, 2)
    if element == 4:
        return Tiles(16, 32, 4, 2)
    return Tiles(16 if rows <= 16 else 64, 64, 4, 2)


def merge_tile(head_dim: int, element: int) -> int:
    """For `merge`: tokens of either kind at a time."""
    return 16 if element == 4 or head_dim > 128 else 32


def most_turned(arch: int) -> int:
    """The most channels over which a transform fits into shared memory along with its operand."""
    return 128 if large_shared(arch) else 64


def fit_tiles(arch: int, channels: int, *, ordered: bool, turned: bool) -> Tiles:
    """For fitting so many channels of a group.

    ordered: they are gathered from among others; turned: after a transform over them.
    """
    if turned:
        return Tiles(64 if arch == 90 and channels <= 64 else 32, 0, 8, 1)
    return Tiles(64, 0, 2 if arch == 90 and not ordered else 4, 1)


def bits_tiles(channels: int, *, turned: bool) -> Tiles:
    """For quantizing so many channels of each token."""
    return Tiles(min(128, 4096 // channels) if turned else 128, 0, 4, 1)


def packed_tiles(arch: int, queries: int, row_words: int) -> Tiles:
    """For `packed_attention`: rows are 16-bit words of a channel's values in one program."""
    power = 1 << max(4, (row_words - 1).bit_length())
    return Tiles(min(64, power), 0, 4, 2)


def splits(device: torch.device, heads: int, tiles: int) -> int:
    """Into how many parts a head's tokens are cut: two programs per processor in all."""
    return max(1, min(tiles, -(-2 * processors(device) // heads)))
