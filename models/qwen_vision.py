"""What the Qwen-VL families share: sizes chosen per clip, patches, paired frames, 3-D positions."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from mmkv.models.base import VideoModel
from mmkv.models.grid import Grid

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_TOKENS = 192


def choose_size(
    height: int, width: int, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """Choose the size nearest to a frame's shape whose sides are multiples of `factor`.

    Args:
        height: of the frame, in pixels.
        width: of the frame, in pixels.
        factor: pixels per token and side.
        min_pixels: least area of the size.
        max_pixels: largest area of the size.

    Returns:
        height and width in pixels.

    Raises:
        ValueError: the frame is more than 200 times longer than it is wide.
    """
    if max(height, width) > 200 * min(height, width):
        raise ValueError(
            f"a frame of {width}x{height} pixels is more than 200 times longer than wide; "
            "crop it before encoding"
        )
    rows, cols = max(1, round(height / factor)), max(1, round(width / factor))
    if rows * cols * factor**2 > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows = max(1, math.floor(height / shrink / factor))
        cols = max(1, math.floor(width / shrink / factor))
    elif rows * cols * factor**2 < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows, cols = math.ceil(height * grow / factor), math.ceil(width * grow / factor)
    return rows * factor, cols * factor


class QwenVision(VideoModel):
    """Two frames per temporal patch; positions have a time, a row and a column."""

    temporal_patch = 2
    axes = 3
    video_tokens = ("<|video_pad|>",)

    @property
    def _factor(self) -> int:
        vision = self.config.vision_config
        return int(vision.patch_size * vision.spatial_merge_size)

    def grid(self, height: int, width: int) -> Grid:
        """Choose a grid in the frame's shape, of 192 tokens at most unless `max_pixels` is given.

        Raises:
            ValueError: `max_pixels` is less than one token, or the frame is too long and narrow.
        """
        factor = self._factor
        limit = self.max_pixels
        if limit is None:
            limit = DEFAULT_TOKENS * factor**2
        elif limit < factor**2:
            raise ValueError(
                f"max_pixels={limit} is less than one token of this model, which covers "
                f"{factor}x{factor} pixels; pass {factor**2} or more"
            )
        low = min(self.preprocess.min_pixels or 0, limit)
        rows, cols = choose_size(height, width, factor, low, limit)
        return Grid(rows, cols, rows // factor, cols // factor, height, width)

    def patches(self, pixels: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        """Cut frames into rows of pixels in the order that the tower expects.

        Args:
            pixels: `[n, 3, h, w]`, n even.
            grid: the stream's grid.

        Returns:
            `[n/2 * patches, 3 * 2 * p * p]`, and the clip's grid int64 `[1, 3]`.
        """
        import torch

        vision = self.config.vision_config
        p, m, t = vision.patch_size, vision.spatial_merge_size, self.temporal_patch
        steps, rows, cols = pixels.shape[0] // t, grid.height // p, grid.width // p
        folded = pixels.view(steps, t, 3, rows // m, m, p, cols // m, m, p)
        folded = folded.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
        thw = torch.tensor([[steps, rows, cols]], device=pixels.device)
        return folded.reshape(steps * rows * cols, 3 * t * p * p), thw


@lru_cache(maxsize=64)
def frame_offsets(rows: int, cols: int) -> np.ndarray:
    """Return positions int64 `[3, rows * cols]` of a frame's tokens: time 0, row, column."""
    down, across = np.indices((rows, cols)).reshape(2, -1)
    offsets = np.stack([np.zeros_like(down), down, across]).astype(np.int64)
    offsets.setflags(write=False)  # every block of every stream shares it
    return offsets
