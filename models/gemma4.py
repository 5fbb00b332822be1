"""Gemma 4: layers with a window of their own between global ones, and a time before each frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from mmkv.models.base import VideoModel
from mmkv.models.block import Layout
from mmkv.models.grid import Grid
from mmkv.models.preprocess import Preprocess
from mmkv.models.square import in_a_row

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mmkv.models.capped import Capped

DEFAULT_TOKENS = 70  # of a video frame, in the stock processor


class Gemma4(VideoModel):
    """`Gemma4ForConditionalGeneration`, of any size.

    Args:
        model, tokenizer, preprocess, max_pixels: see `VideoModel`.

    Raises:
        ValueError: the model has no vision tower, or its text is not causal.
    """

    family = "gemma4"
    architectures: ClassVar[tuple[str, ...]] = ("Gemma4ForConditionalGeneration",)
    time = "text"
    video_tokens = ("<|video|>",)

    def __init__(
        self, model: Any, tokenizer: Any, preprocess: Preprocess, max_pixels: int | None
    ) -> None:
        super().__init__(model, tokenizer, preprocess, max_pixels)
        if self.config.vision_config is None:
            raise ValueError("this Gemma 4 checkpoint has no vision tower; use one that has")
        if self.text_config.use_bidirectional_attention == "all":
            raise ValueError(
                "this Gemma 4 checkpoint has use_bidirectional_attention='all', so its tokens "
                "depend on later ones and cannot be streamed; use a generative checkpoint"
            )
        self._capped: Capped | None = None

    @property
    def vision_tower(self) -> Any:
        """The vision tower, without the projector."""
        return self.model.model.vision_tower

    @property
    def lm_head(self) -> Any:
        """The module that turns hidden states into logits, the cap on them included."""
        head, cap = super().lm_head, self.text_config.final_logit_softcapping
        if cap is None:
            return head
        from mmkv.models.capped import Capped

        if self._capped is None or self._capped.head is not head:
            self._capped = Capped(head, cap)
        return self._capped

    @property
    def filler(self) -> int:
        """The padding token, as which the stock model looks up visual tokens."""
        return int(self.text_config.pad_token_id)

    @property
    def key_weights(self) -> Tensor | None:
        """Weights of the keys' norms, since both norms are of one projection."""
        import torch

        if not self.one_tensor:
            return None
        layers = [self.language_model.layers[index] for index in self.global_layers]
        weights = [layer.self_attn.k_norm.weight for layer in layers]
        if any(weight.is_meta for weight in weights):
            return None
        return torch.stack([weight.detach().float().cpu() for weight in weights])

    @property
    def frames_see_ahead(self) -> bool:
        """Whether a frame's tokens see each other both ways in local layers."""
        return bool(self.text_config.use_bidirectional_attention == "vision")

    @property
    def keys_only(self) -> dict[str, Any]:
        """One token is enough for the layers that have no keys and values of their own.

        transformers before 5.23 takes no notice and runs them for all.
        """
        return {"logits_to_keep": 1}

    def token_inputs(self, ids: Sequence[int] | Tensor) -> dict[str, Any]:
        """Look up the per-layer embeddings `[1, n, layers, D]`, where the model has any."""
        if not self.text_config.hidden_size_per_layer_input:
            return {}
        import torch

        if not isinstance(ids, torch.Tensor):
            ids = torch.tensor(list(ids), dtype=torch.long, device=self.device)
        return {"per_layer_inputs": self.language_model.get_per_layer_inputs(ids[None], None)}

    def grid(self, height: int, width: int) -> Grid:
        """Choose the largest grid of the frame's shape within 70 tokens, or within `max_pixels`.

        Raises:
            ValueError: `max_pixels` is less than one token.
        """
        vision = self.config.vision_config
        side = vision.patch_size * vision.pooling_kernel_size
        tokens = self.preprocess.max_soft_tokens or DEFAULT_TOKENS
        if self.max_pixels is not None:
            tokens = self.max_pixels // side**2
            if not tokens:
                raise ValueError(
                    f"max_pixels={self.max_pixels} is less than one token of this model, which "
                    f"covers {side}x{side} pixels; pass {side**2} or more"
                )
        scale = math.sqrt(tokens * side**2 / (height * width))
        rows, cols = math.floor(scale * height / side), math.floor(scale * width / side)
        if not rows:  # longer than the whole budget in one row
            rows, cols = 1, min(width // height, tokens)
        elif not cols:
            rows, cols = min(height // width, tokens), 1
        return Grid(rows * side, cols * side, rows, cols, height, width)

    def vision(self, pixels: Tensor, grid: Grid) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute pooled features, `grid.tokens` per frame; there is no deepstack."""
        import torch

        patch = self.config.vision_config.patch_size
        n, rows, cols = len(pixels), grid.height // patch, grid.width // patch
        patches = pixels.view(n, 3, rows, patch, cols, patch).permute(0, 2, 4, 3, 5, 1)
        down, across = torch.meshgrid(
            torch.arange(rows, device=pixels.device),
            torch.arange(cols, device=pixels.device),
            indexing="ij",
        )
        places = torch.stack([across, down], dim=-1).view(1, rows * cols, 2)
        # not by get_video_features, whose inputs have other shapes from version to version
        hidden = self.vision_tower(
            pixel_values=patches.reshape(n, rows * cols, -1),
            pixel_position_ids=places.expand(n, -1, -1),
        ).last_hidden_state
        features = self.model.model.embed_vision(inputs_embeds=hidden)
        return features.view(n, grid.tokens, -1), ()

    def layout(self, grid: Grid, seconds: Sequence[float], index: int = 0) -> Layout:
        """Put the time and a start mark before a frame's tokens, and an end mark after.

        A space separates it from the frame before.
        """
        minute, second = divmod(int(seconds[0]), 60)
        clock = f"{' ' if index else ''}{minute:02d}:{second:02d} "
        ids = self.tokenizer(clock, add_special_tokens=False).input_ids
        before, after = (*ids, self.config.boi_token_id), (self.config.eoi_token_id,)
        length = len(before) + grid.tokens + len(after)
        return Layout(before, after, in_a_row(length), (length,))

    @property
    def _vision_dtype(self) -> torch.dtype:
        import torch

        return torch.float32  # the tower shifts pixels before it rounds them
