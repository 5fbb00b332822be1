"""LLaVA-OneVision: a fixed square grid, one token after the other, one newline after the clip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from mmkv.models.base import VideoModel
from mmkv.models.block import Layout
from mmkv.models.grid import Grid
from mmkv.models.preprocess import Preprocess
from mmkv.models.square import in_a_row, square_grid

if TYPE_CHECKING:
    from torch import Tensor


class LlavaOnevision(VideoModel):
    """`LlavaOnevisionForConditionalGeneration` (arXiv 2408.03326).

    Args:
        model, tokenizer, preprocess, max_pixels: see `VideoModel`.

    Raises:
        ValueError: the device map leaves the newline's embedding on disk.
    """

    family = "llava_onevision"
    architectures: ClassVar[tuple[str, ...]] = ("LlavaOnevisionForConditionalGeneration",)
    time = "none"
    video_tokens = ("<video>",)

    def __init__(
        self, model: Any, tokenizer: Any, preprocess: Preprocess, max_pixels: int | None
    ) -> None:
        offloaded = getattr(model, "hf_device_map", None)  # else a model without any weights
        if offloaded and model.model.image_newline.is_meta:  # a lone parameter gets no hook
            raise ValueError(
                "the device map leaves model.image_newline on disk, from where it cannot be read; "
                "map 'model.image_newline' to a device (it is one vector)"
            )
        super().__init__(model, tokenizer, preprocess, max_pixels)

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
        size = vision.image_size
        side = math.ceil(size // vision.patch_size / 2)
        return square_grid("LLaVA-OneVision", size, side, (height, width), self.max_pixels)

    def vision(self, pixels: Tensor, grid: Grid) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute pooled features, `grid.tokens` per frame; there is no deepstack."""
        output = self.model.model.get_video_features(pixels[None])
        count = pixels.shape[0] * grid.tokens
        features = output.pooler_output[0, :count]  # newer versions add a newline at every call
        return features.reshape(pixels.shape[0], grid.tokens, -1), ()

    def layout(self, grid: Grid, seconds: Sequence[float], index: int = 0) -> Layout:
        """Number the visual tokens in a row; there is no text, and times do not matter."""
        return Layout((), (), in_a_row(grid.tokens), (grid.tokens,))

    def prompt_lead(self) -> Tensor:
        """Return the newline `[1, D]` that ends the clip."""
        newline = self.model.model.image_newline
        return newline[None].to(device=self.device, dtype=self.dtype)
