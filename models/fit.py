"""Frames to normalised pixels on the model's device.

The stock video processors need torchvision; this does the same steps: resize with antialiasing,
round and clamp to 0..255, rescale, normalise.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkv.models.grid import Grid
from mmkv.models.preprocess import Preprocess


def fit_frames(frames: Tensor, grid: Grid, config: Preprocess) -> Tensor:
    """Resize and normalise frames; one of another shape than the grid's is letterboxed.

    Args:
        frames: uint8 `[n, H, W, 3]` on any device.
        grid: the size to reach, and the shape of frame that fills it.
        config: how to resize and normalise.

    Returns:
        float32 `[n, 3, grid.height, grid.width]` on the same device.
    """
    pixels = frames.permute(0, 3, 1, 2).float()  # [n, 3, H, W]
    height, width = pixels.shape[-2:]
    # the shape of the first frame maps onto the whole grid, as the stock processors do
    scale = min(grid.source_height / height, grid.source_width / width)
    rows = max(1, round(height * scale / grid.source_height * grid.height))
    cols = max(1, round(width * scale / grid.source_width * grid.width))
    if config.longest_edge is not None:
        pixels = _resize(pixels, _fit_within(height, width, config.longest_edge), config.resample)
    pixels = _resize(pixels, (rows, cols), config.resample)
    top, left = (grid.height - rows) // 2, (grid.width - cols) // 2
    if (rows, cols) != (grid.height, grid.width):
        pixels = F.pad(pixels, (left, grid.width - cols - left, top, grid.height - rows - top))
    mean = torch.tensor(config.mean, device=pixels.device).view(1, 3, 1, 1) / config.rescale
    std = torch.tensor(config.std, device=pixels.device).view(1, 3, 1, 1) / config.rescale
    return pixels.sub_(mean).div_(std)


def _resize(pixels: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    if pixels.shape[-2:] == size:
        return pixels
    pixels = F.interpolate(pixels, size=size, mode=mode, antialias=mode != "nearest")
    return pixels.round_().clamp_(0, 255)


def _fit_within(height: int, width: int, edge: int) -> tuple[int, int]:
    """Return the size whose longer side is `edge`; the other is rounded down, then up to even."""
    ratio = width / height  # in this order of operations, as the stock processor rounds
    if width >= height:
        short = int(edge / ratio)
        return max(1, short + short % 2), edge
    short = int(edge * ratio)
    return edge, max(1, short + short % 2)
