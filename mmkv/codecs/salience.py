"""How much visual tokens resemble a text, for codecs that spend more bits on those that do.

VidKV's semantic token protection (arXiv 2503.16257) uses the question. A live stream has none when
it encodes, so the text is that of the chat template, with `focus` in place of the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkv.models.base import VideoModel
from mmkv.models.block import Block
from mmkv.models.prompt import Template

if TYPE_CHECKING:
    from mmkv.codecs.base import Codec


class TextSimilarity:
    """Similarity with one text.

    Args:
        ids: the text's tokens.
    """

    def __init__(self, adapter: VideoModel, ids: Sequence[int]) -> None:
        self._adapter = adapter
        self._ids = ids
        self._mean: Tensor | None = None

    def __call__(self, embeds: Tensor) -> Tensor:
        """Cosine similarity of input embeddings `[n, D]` with the text's, float32 `[n]`.

        It is averaged over the tokens of the text.
        """
        if self._mean is None:
            text = self._adapter.embed_text(self._ids).float()
            self._mean = F.normalize(text, dim=1).mean(dim=0)
        return F.normalize(embeds.float(), dim=1) @ self._mean.to(embeds.device)

    def judge(self, blocks: Sequence[Block]) -> None:
        """Set the blocks' salience; text always matters most."""
        lengths = [len(block) for block in blocks]
        alike = self(torch.cat([block.embeds for block in blocks])).cpu()
        for block, own in zip(blocks, alike.split(lengths), strict=True):
            block.salience = own.masked_fill(~block.visual, torch.inf)


def salience_of(
    codec: Codec, adapter: VideoModel, template: Template, focus: str | None
) -> TextSimilarity | None:
    """What judges a stream's tokens; None where the codec treats them all alike.

    Raises:
        ValueError: `focus` is too long for a prompt.
    """
    if not codec.judges:
        return None
    prompt = template.prompt("") if focus is None else template.fitting(focus, name="focus")
    return TextSimilarity(adapter, [*template.prefix, *prompt.ids])
