"""SmolVLM2: fixed square frames, each with its time in text, one token after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from mmkv.models.base import VideoModel
from mmkv.models.block import Layout
from mmkv.models.grid import Grid
from mmkv.models.prompt import Template
from mmkv.models.square import in_a_row, side_of, square_grid

if TYPE_CHECKING:
    from torch import Tensor

# the stock processor uses its own template for videos, whatever the checkpoint's
_CHAT = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<video>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<end_of_utterance>{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
_OPENING = "You are provided the following series of frames from a video.\n"
_CLOSING = "\n\n"


class SmolVLM(VideoModel):
    """`SmolVLMForConditionalGeneration` with the checkpoints of SmolVLM2 (arXiv 2504.05299).

    The stock prompt opens with how many frames a clip has and how long it is, which a stream does
    not know: "the following series of twelve frames from a 0:00:12 [H:MM:SS] video" is "the
    following series of frames from a video" here. All other text is the stock processor's.
    """

    family = "smolvlm"
    architectures: ClassVar[tuple[str, ...]] = ("SmolVLMForConditionalGeneration",)
    time = "text"
    video_tokens = ("<video>",)

    @property
    def language_model(self) -> Any:
        """The decoder without its head."""
        return self.model.model.text_model

    @property
    def vision_tower(self) -> Any:
        """The vision tower, without the connector."""
        return self.model.model.vision_model

    def template(self, system: str | None = None) -> Template:
        """Return the template of videos, which puts a sentence before the first frame."""
        return Template(
            self.tokenizer,
            self.video_tokens,
            system,
            chat_template=_CHAT,
            around=(_OPENING, _CLOSING),
        )

    def grid(self, height: int, width: int) -> Grid:
        """Return the checkpoint's square grid, whatever the frame's shape.

        Raises:
            ValueError: `max_pixels` is below the size that the checkpoint has fixed.
        """
        vision = self.config.vision_config
        size = side_of(vision.image_size)
        side = size // side_of(vision.patch_size) // self.config.scale_factor
        return square_grid("SmolVLM", size, side, (height, width), self.max_pixels)

    def vision(self, pixels: Tensor, grid: Grid) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute shuffled and projected features, `grid.tokens` per frame."""
        # not by get_image_features, which takes frames of zeros for padding and leaves them out
        hidden = self.vision_tower(pixel_values=pixels).last_hidden_state
        return self.model.model.connector(hidden), ()

    def layout(self, grid: Grid, seconds: Sequence[float], index: int = 0) -> Layout:
        """Put the frame's minute and second and a start mark before its tokens, a mark after."""
        # container times are rounded: 0.9999 s is one second
        minute, second = divmod(math.floor(seconds[0] + 1e-3), 60)
        before = self._ids(
            f"\nFrame from {minute:02d}:{second:02d}:<fake_token_around_image><global-img>"
        )
        after = self._ids("<fake_token_around_image>")
        total = len(before) + grid.tokens + len(after)
        return Layout(before, after, in_a_row(total), (total,))

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)
