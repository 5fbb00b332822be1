"""Qwen2.5-VL: row and column positions repeat, time advances by the clock (M-RoPE in sections)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mmkv.models.block import Layout
from mmkv.models.grid import Grid
from mmkv.models.qwen_vision import QwenVision, frame_offsets

if TYPE_CHECKING:
    from torch import Tensor


class Qwen25VL(QwenVision):
    """`Qwen2_5_VLForConditionalGeneration` (arXiv 2502.13923)."""

    family = "qwen2_5_vl"
    architectures: ClassVar[tuple[str, ...]] = ("Qwen2_5_VLForConditionalGeneration",)
    time = "position"
    advances: ClassVar[tuple[bool, ...]] = (True, False, False)

    def vision(self, pixels: Tensor, grid: Grid) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute merged features, `grid.tokens` per pair of frames; there is no deepstack."""
        import torch

        patches, thw = self.patches(pixels, grid)
        output = self.model.model.get_video_features(patches, thw)
        features = torch.cat(list(output.pooler_output))
        return features.reshape(-1, grid.tokens, features.shape[-1]), ()

    def layout(self, grid: Grid, seconds: Sequence[float], index: int = 0) -> Layout:
        """Place a pair's tokens; the step to the next pair is in units of `tokens_per_second`."""
        # as long as the next frame is unknown, a pair lasts twice the gap between its two frames
        gap = 2 * (seconds[-1] - seconds[0])
        step = max(1, round(gap * self._rate)) if gap > 0 else 1
        return Layout((), (), frame_offsets(grid.rows, grid.cols), (step, 0, 0))

    def origin(
        self, previous: np.ndarray, advance: Sequence[int], first: np.ndarray, elapsed: float
    ) -> np.ndarray:
        """Place a block by the clock, not after the one before it."""
        origin = first.copy()
        # container times are rounded: 0.9999 s is one second
        origin[0] += math.floor(elapsed * self._rate + 1e-3)
        return origin

    def frequency_axis(self, frequencies: int) -> Tensor:
        """Return axes in contiguous sections: time, row, column."""
        import torch

        sections = self.text_config.rope_parameters.get("mrope_section", [16, 24, 24])
        axes = [torch.full((n,), i % 3) for i, n in enumerate(sections)]
        return torch.cat(axes)[:frequencies]

    @property
    def _rate(self) -> float:
        return float(self.config.vision_config.tokens_per_second)
