"""What is lost when the frames' keys and values are damaged: is detail in few tokens?

Two controls say whether the world can measure eviction and quantization at all. Keeping a random
20 % of each frame's tokens should lose at least 15 points, 1-bit keys with ternary values at
least 5. Frames are always encoded whole; only what questions see is damaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import DynamicCache, LlavaOnevisionForConditionalGeneration, Qwen2Config
from transformers.cache_utils import DynamicLayer
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from mmkv.models.tiny import forward, losses
from mmkv.models.tiny.batches import TOKENS, Batch, Encoder

GROUP = 64  # tokens that share one scale per channel
Kept = Callable[[int, tuple[int, ...]], torch.Tensor]


def one_bit(x: torch.Tensor, group: int = GROUP) -> torch.Tensor:
    """1 bit per element of `[B, T, C]`: mean plus or minus the mean deviation, per channel."""
    parts = []
    for piece in x.split(group, dim=1):
        mean = piece.mean(1, keepdim=True)
        rest = piece - mean
        parts.append(mean + torch.where(rest > 0, 1.0, -1.0) * rest.abs().mean(1, keepdim=True))
    return torch.cat(parts, 1)


def ternary(x: torch.Tensor, group: int = GROUP) -> torch.Tensor:
    """-s, 0 or s per element of `[B, T, C]` about the channel's mean (threshold mean / 2)."""
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
    """Which visual tokens are kept, bool `[*shape, frames * 16]`, equally many of each frame."""
    count = max(1, round(share * TOKENS))
    order = torch.rand(*shape, frames, TOKENS, generator=generator).argsort(-1)
    return (order < count).flatten(-2)


@contextmanager
def masks_per_layer(
    model: LlavaOnevisionForConditionalGeneration, masks: list[torch.Tensor]
) -> Iterator[None]:
    """Give every layer's attention its own mask, `[B, heads, L, T]`."""

    def hook_for(mask: torch.Tensor) -> Callable[..., Any]:
        def hook(_module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            return args, {**kwargs, "attention_mask": mask}

        return hook

    layers = model.model.language_model.layers
    hooks = [
        layer.self_attn.register_forward_pre_hook(hook_for(mask), with_kwargs=True)
        for layer, mask in zip(layers, masks, strict=True)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


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
    """Which questions are answered exactly, bool `[B, Q]`.

    `keep`: `"all"`, `"per frame"` (20 % of a frame's tokens, the same ones in every layer and
    head) or `"per head"` (drawn anew for each layer and kv head). An answer is exact when every
    one of its tokens is the most likely one after the right tokens before it: what greedy decoding
    would produce.
    """
    language = model.model.language_model
    table = forward.word_table(model)
    generator = generator or torch.Generator().manual_seed(0)
    rows, prefix = len(batch.ids), len(encoder.prefix)
    first = batch.first_part(prefix)
    start = table[encoder.prefix].expand(rows, -1, -1)
    newline = model.model.image_newline.expand(rows, 1, -1)
    mask, positions = batch.mask(prefix), batch.positions(prefix)
    config = model.config.text_config
    assert isinstance(config, Qwen2Config)
    cache = DynamicCache(config=config)
    with losses.listen(model) as heard:
        language(
            inputs_embeds=torch.cat([start, visual, newline], 1),
            attention_mask=mask[:, :, :first, :first],
            position_ids=positions[:, :first],
            past_key_values=cache,
            use_cache=True,
        )
    seen = slice(prefix, first - 1)
    if quantize:
        cos, sin = language.rotary_emb(visual, positions[:, :first])
        for layer, keys in zip(cache.layers, heard.keys, strict=True):
            assert isinstance(layer, DynamicLayer)
            assert layer.values is not None
            raw = keys.clone()
            raw[:, seen] = one_bit(raw[:, seen])
            raw = raw.unflatten(-1, (-1, 64)).transpose(1, 2)
            layer.keys = apply_rotary_pos_emb(raw, raw, cos, sin)[1]
            flat = layer.values.transpose(1, 2).flatten(2)
            flat[:, seen] = ternary(flat[:, seen])
            layer.values = flat.unflatten(-1, (-1, 64)).transpose(1, 2)
    asks = mask[:, :, first:]
    kv_heads = int(config.num_key_value_heads or 1)
    repeat = config.num_attention_heads // kv_heads
    frames = batch.scenes.shape[1]
    masks = []
    for i in range(len(cache.layers)):
        if keep == "per head" or i == 0:
            heads, times = (kv_heads, repeat) if keep == "per head" else (1, 1)
            kept = keep_random((rows, heads), frames, generator).repeat_interleave(times, 1)
        own = asks.expand(-1, kept.shape[1], -1, -1).clone()
        if keep != "all":
            own[..., seen] &= kept[:, :, None]
        masks.append(own)
    with masks_per_layer(model, masks):
        states = language(
            inputs_embeds=table[batch.ids],
            attention_mask=asks,
            position_ids=positions[:, first:],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
    return forward.answer_loss(model, batch, states)[1]
