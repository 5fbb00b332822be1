"""What is lost when the frames' keys and values are damaged: is detail in few tokens?

Two controls show whether this world can measure eviction and quantization at all. Keeping a
random 20 % of each frame's tokens should lose at least 15 points, 1-bit keys with ternary values
at least 5. Frames are always encoded whole; only what questions see is damaged.
"""

from __future__ import annotations

import torch
from transformers import LlavaOnevisionForConditionalGeneration

from mmkv.models.tiny import forward, streaming
from mmkv.models.tiny.batches import TOKENS, Batch, Encoder
from mmkv.models.tiny.streaming import KV_HEADS

GROUP = 64  # tokens that share one scale per channel


def one_bit(x: torch.Tensor, group: int = GROUP) -> torch.Tensor:
    """Quantize `[B, T, C]` to 1 bit per element: mean plus or minus mean deviation, per channel.

    Args:
        x: keys or values.
        group: tokens that share a mean and a deviation.

    Returns:
        what the bits stand for, of the same shape.
    """
    parts = []
    for piece in x.split(group, dim=1):
        mean = piece.mean(1, keepdim=True)
        rest = piece - mean
        parts.append(mean + torch.where(rest > 0, 1.0, -1.0) * rest.abs().mean(1, keepdim=True))
    return torch.cat(parts, 1)


def ternary(x: torch.Tensor, group: int = GROUP) -> torch.Tensor:
    """Quantize `[B, T, C]` to -s, 0 or s about the channel's mean.

    `s` is the mean deviation; elements within half of it become 0.

    Args:
        x: keys or values.
        group: tokens that share a mean and a deviation.

    Returns:
        what the codes stand for, of the same shape.
    """
    parts = []
    for piece in x.split(group, dim=1):
        mean = piece.mean(1, keepdim=True)
        rest = piece - mean
        size = rest.abs().mean(1, keepdim=True)
        parts.append(mean + rest.sign() * (rest.abs() > size / 2) * size)
    return torch.cat(parts, 1)


def keep_random(
    shape: tuple[int, ...], frames: int, generator: torch.Generator, share: float = 0.2
) -> torch.Tensor:
    """Draw which visual tokens are kept, the same number of each frame.

    Args:
        shape: leading dimensions of the result.
        frames: frames of a clip.
        generator: decides.
        share: of each frame's tokens that is kept; at least one token is.

    Returns:
        bool `[*shape, frames * 16]`.
    """
    count = max(1, round(share * TOKENS))
    order = torch.rand(*shape, frames, TOKENS, generator=generator).argsort(-1)
    return (order < count).flatten(-2)


@torch.no_grad()
def exact_answers(
    model: LlavaOnevisionForConditionalGeneration,
    batch: Batch,
    visual: torch.Tensor,
    encoder: Encoder,
    *,
    keep: str = "all",
    quantize: bool = False,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Check which questions are answered exactly where they see all frames.

    An answer is exact when every one of its tokens is the most likely one after the right tokens
    before it: what greedy decoding would produce.

    Args:
        model: with the weights to judge.
        batch: clips and questions.
        visual: visual tokens `[B, F * 16, D]`.
        encoder: for the prefix.
        keep: "all", "per frame" (20 % of a frame's tokens, the same ones in every layer and head)
            or "per head" (drawn anew for each layer and kv head).
        quantize: whether keys become 1 bit and values ternary.
        generator: decides which tokens are kept.

    Returns:
        bool `[B, Q]`.
    """
    generator = generator or torch.Generator().manual_seed(0)
    prefix = len(encoder.prefix)
    rows, count, frames = batch.required.shape
    past = streaming.watch(model, forward.opening(model, visual, encoder), prefix)
    kept = []
    for layer, (keys, values) in enumerate(zip(past.keys, past.values, strict=True)):
        if quantize:
            keys[:, prefix:] = one_bit(keys[:, prefix:].flatten(2)).view_as(keys[:, prefix:])
            values[:, prefix:] = ternary(values[:, prefix:].flatten(2)).view_as(keys[:, prefix:])
        if keep == "per head" or layer == 0:
            heads = KV_HEADS if keep == "per head" else 1
            kept.append(keep_random((rows, heads), frames, generator))
        else:
            kept.append(kept[0])
    everything = streaming.whole_clips(rows, count, frames)
    states, _ = streaming.answer(
        model, batch, past, encoder, lambda *_: everything, kept if keep != "all" else None
    )
    return forward.answer_loss(model, batch, states)[1]
