"""Qwen3.5, Qwen3.6 and Qwen3.8: three layers of Gated DeltaNet to one of attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mmkv.models.grid import Grid
from mmkv.models.qwen3_vl import Qwen3VL

if TYPE_CHECKING:
    from torch import Tensor


class Qwen35(Qwen3VL):
    """`Qwen3_5ForConditionalGeneration` and its mixture of experts.

    Frames are written as in Qwen3-VL, a time before each pair, without deepstack.
    """

    family = "qwen3_5"
    architectures: ClassVar[tuple[str, ...]] = (
        "Qwen3_5ForConditionalGeneration",
        "Qwen3_5MoeForConditionalGeneration",
    )

    def vision(self, pixels: Tensor, grid: Grid) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute merged features, `grid.tokens` per pair of frames; there is no deepstack."""
        import torch

        patches, thw = self.patches(pixels, grid)
        output = self.model.model.get_video_features(patches, thw)
        features = torch.cat(list(output.pooler_output))
        return features.reshape(-1, grid.tokens, features.shape[-1]), ()
