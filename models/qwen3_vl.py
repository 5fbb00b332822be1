"""Qwen3-VL: every temporal patch is a segment that begins with its own time as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mmkv.models.block import Layout
from mmkv.models.grid import Grid
from mmkv.models.qwen_vision import QwenVision, frame_offsets

if TYPE_CHECKING:
    from torch import Tensor


class Qwen3VL(QwenVision):
    """`Qwen3VLForConditionalGeneration`: interleaved M-RoPE, deepstack (arXiv 2511.21631).

    Cosmos3 is the same model; what its checkpoints hold besides, to generate images and sound,
    transformers does not load.
    """

    family = "qwen3_vl"
    architectures: ClassVar[tuple[str, ...]] = (
        "Qwen3VLForConditionalGeneration",
        "Qwen3VLMoeForConditionalGeneration",
        "Cosmos3OmniForConditionalGeneration",
    )
    time = "text"
    advances: ClassVar[tuple[bool, ...]] = (True, True, True)
    # the whole placeholder is replaced: each segment brings its own start and end
    video_tokens = ("<|vision_start|><|video_pad|><|vision_end|>",)

    def vision(self, pixels: Tensor, grid: Grid) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute merged features, `grid.tokens` per pair of frames, and those of deepstack."""
        import torch

        patches, thw = self.patches(pixels, grid)
        output = self.model.model.get_video_features(patches, thw)
        features = torch.cat(list(output.pooler_output))
        deepstack = []
        for level in output.deepstack_features:
            flat = level if isinstance(level, torch.Tensor) else torch.cat(list(level))
            deepstack.append(flat.reshape(-1, grid.tokens, flat.shape[-1]))
        return features.reshape(-1, grid.tokens, features.shape[-1]), tuple(deepstack)

    def layout(self, grid: Grid, seconds: Sequence[float], index: int = 0) -> Layout:
        """Put the pair's middle time and a start mark before its tokens, and an end mark after."""
        middle = (seconds[0] + seconds[-1]) / 2
        clock = self.tokenizer(f"<{middle:.1f} seconds>", add_special_tokens=False).input_ids
        before = (*clock, self.config.vision_start_token_id)
        after = (self.config.vision_end_token_id,)
        span = max(grid.rows, grid.cols)
        n = len(before)
        offsets = np.concatenate(
            [
                np.broadcast_to(np.arange(n), (3, n)),
                frame_offsets(grid.rows, grid.cols) + n,
                np.full((3, 1), n + span),
            ],
            axis=1,
        )
        return Layout(before, after, offsets, (n + span + 1,) * 3)

    def frequency_axis(self, frequencies: int) -> Tensor:
        """Return axes interleaved: time, row, column, time, and so on."""
        import torch

        sections = self.language_model.rotary_emb.mrope_section
        axis = torch.zeros(frequencies, dtype=torch.long)
        for which in (1, 2):
            axis[which : sections[which] * 3 : 3] = which
        return axis
