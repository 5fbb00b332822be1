"""InternVL3: one fixed square tile per frame, numbered in text, one token after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from mmkv.models.base import VideoModel
from mmkv.models.block import Layout
from mmkv.models.grid import Grid
from mmkv.models.square import in_a_row, side_of, square_grid

if TYPE_CHECKING:
    from torch import Tensor


class InternVL(VideoModel):
    """`InternVLForConditionalGeneration`, InternVL3 as `-hf` (arXiv 2504.10479)."""

    family = "internvl"
    architectures: ClassVar[tuple[str, ...]] = ("InternVLForConditionalGeneration",)
    time = "none"
    # with the line's end that templates put after it: each frame brings its own
    video_tokens = ("<video>\n", "<video>")

    @property
    def vision_tower(self) -> Any:
        """The vision tower, without the projector."""
        return self.model.model.vision_tower

    def grid(self, height: int, width: int) -> Grid:
        """Return the checkpoint's square grid, whatever the frame's shape.

        Raises:
            ValueError: `max_pixels` is below the size that the checkpoint has fixed.
        """
        vision = self.config.vision_config
        size = side_of(vision.image_size)
        side = int(size // side_of(vision.patch_size) * self.config.downsample_ratio)
        return square_grid("InternVL", size, side, (height, width), self.max_pixels)

    def vision(self, pixels: Tensor, grid: Grid) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute shuffled and projected features, `grid.tokens` per frame."""
        return self.model.model.get_image_features(pixels).pooler_output, ()

    def layout(self, grid: Grid, seconds: Sequence[float], index: int = 0) -> Layout:
        """Put the frame's number and a start mark before its tokens, an end mark after."""
        before = self._ids(f"Frame{index + 1}: <img>")
        after = self._ids("</img>\n")
        total = len(before) + grid.tokens + len(after)
        return Layout(before, after, in_a_row(total), (total,))

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)
