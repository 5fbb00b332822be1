"""Losses beside the answers': they show the small model where to look and what to carry along.

All of them read a `Heard`: what passes inside the language model during an ordinary forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F
from transformers import LlavaOnevisionForConditionalGeneration
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from mmkv.models.tiny.batches import IGNORE, TOKENS, Batch
from mmkv.models.tiny.forward import QUADRANT_OF_TOKEN, token_cover
from mmkv.models.tiny.world import COLOUR_NAMES, SHAPES, Bank

THING, FRAME, TOLD = 1, 2, 3  # layers that look from a name to its object, frame, answer
HEADS = (0, 2)  # the heads that learn it, one of each kv head
ANSWERING = ((3, 0), (4, 0), (4, 2))  # (layer, head) that look from the answer to the name
OWN, PREVIOUS = 1, 2  # layers after which a visual token knows its frame, and the one before
ENDS = (14, 15)  # tokens that have seen their whole frame
LAST_CELL = (5, 7, 13, 14)  # per quadrant, the token from which on it is known


@dataclass
class Heard:
    """Per layer: queries and keys before RoPE `[B, T, heads * 64]`, outputs `[B, T, D]`."""

    queries: list[torch.Tensor] = field(default_factory=list)
    keys: list[torch.Tensor] = field(default_factory=list)
    outputs: list[torch.Tensor] = field(default_factory=list)


@contextmanager
def listen(model: LlavaOnevisionForConditionalGeneration) -> Iterator[Heard]:
    """Fill a `Heard` while a forward runs."""
    heard = Heard()
    hooks = []
    for layer in model.model.language_model.layers:
        for module, store in (
            (layer.self_attn.q_proj, heard.queries),
            (layer.self_attn.k_proj, heard.keys),
            (layer, heard.outputs),
        ):
            hooks.append(
                module.register_forward_hook(lambda _m, _i, out, store=store: store.append(out))
            )
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def retrieval_loss(heard: Heard, batch: Batch, prefix: int, kind: str = "mean") -> torch.Tensor:
    """Contrastive loss between a question's mean query and the frames' keys, over the layers.

    The first layer is left out: there, queries are single words and cannot tell a red circle from
    a red star beside a blue circle. Frames of the batch's other clips count too, where they do not
    hold the asked object.
    `kind="mean"` scores a frame by its mean key, `"max"` by its best token.
    """
    frames = batch.scenes.shape[1]
    n = batch.first_part(prefix)
    count = batch.needed.shape[1]
    own = F.one_hot(batch.block.clamp(min=0), count) * batch.probe[..., None]  # [B, L, Q]
    own = own.float() / own.sum(1, keepdim=True).clamp(min=1)
    used = batch.needed.any(-1)
    rows = torch.arange(len(batch.ids))
    own_clip = (rows[:, None] == rows)[:, None, :, None]  # [B, 1, B, 1]
    holds = (batch.scenes == batch.asked[..., None, None, None]).any(-1)  # [B, Q, B, F]
    allowed = own_clip | (~holds & (batch.asked >= 0)[..., None, None])
    needed = own_clip & batch.needed[:, :, None]
    losses = []
    for q, k in zip(heard.queries[1:], heard.keys[1:], strict=True):
        probe = torch.einsum("blq,bld->bqd", own, q[:, n:].float())
        keys = k[:, prefix : n - 1].float().unflatten(1, (frames, TOKENS))
        if kind == "mean":
            keys = keys.mean(2, keepdim=True)
        kv_heads = keys.shape[-1] // 64
        probe = probe.unflatten(-1, (kv_heads, -1, 64)).sum(-2)  # query heads of one kv head
        score = torch.einsum("bqhd,cfthd->bqcft", probe, keys.unflatten(-1, (kv_heads, 64)))
        score = score.float().amax(-1) / 16
        log = score.masked_fill(~allowed, float("-inf"))[used].flatten(1).log_softmax(-1)
        hit = log.masked_fill(~needed[used].flatten(1), float("-inf")).logsumexp(-1)
        losses.append(-hit.mean())
    return torch.stack(losses).mean()


def attention_loss(
    query: torch.Tensor, keys: torch.Tensor, allowed: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    """Cross entropy of attention on a set: `[P, 64]`, `[P, K, 64]`, bool `[P, K]` twice."""
    logits = torch.einsum("pd,pkd->pk", query, keys).float() / 8
    log = logits.masked_fill(~allowed, float("-inf")).log_softmax(-1)
    return -log.masked_fill(~target, float("-inf")).logsumexp(-1).mean()


def pointer_loss(
    model: LlavaOnevisionForConditionalGeneration,
    heard: Heard,
    batch: Batch,
    bank: Bank,
    prefix: int,
) -> torch.Tensor:
    """Teach some heads where to look: from an object's name to its tokens, then to the last tokens
    of its frame, then of the frame that knows the answer, and from the answer to the name."""
    n = batch.first_part(prefix)
    rows, asks = (batch.pointer >= 0).nonzero(as_tuple=True)
    frames = batch.pointed.any(-1)
    shown = token_cover(batch.scenes.flatten(0, 1), batch.variant.flatten(0, 1), bank) > 0.3
    shown = shown.view(len(batch.ids), 1, -1, TOKENS)
    things = (shown & batch.pointed[..., QUADRANT_OF_TOKEN]).flatten(2)
    end = torch.zeros(TOKENS, dtype=torch.bool)
    end[list(ENDS)] = True
    aims = {
        THING: things,
        FRAME: (frames[..., None] & end).flatten(2),
        TOLD: (batch.told[..., None] & end).flatten(2),
    }
    rotary = model.model.language_model.rotary_emb
    cos, sin = rotary(heard.keys[0].float(), batch.positions(prefix))

    def turned(layer: int, head: int) -> tuple[torch.Tensor, torch.Tensor]:
        q = heard.queries[layer].unflatten(-1, (-1, 64))[:, :, head, :][:, None].float()
        k = heard.keys[layer].unflatten(-1, (-1, 64))[:, :, head // 2, :][:, None].float()
        q, k = apply_rotary_pos_emb(q, k, cos, sin)
        return q[:, 0], k[:, 0]  # [B, T, 64]

    losses = []
    for layer, aim in aims.items():
        target = aim[rows, asks]  # [P, F * 16]
        good = target.any(-1)
        row, ask, target = rows[good], asks[good], target[good]
        for head in HEADS:
            q, k = turned(layer, head)
            name = q[row, n + batch.pointer[row, ask]]
            seen = k[row, prefix : n - 1]
            losses.append(attention_loss(name, seen, torch.ones_like(target), target))
    spot = batch.pointer.gather(1, batch.block.clamp(min=0))  # [B, L]
    says = F.pad(batch.labels[:, 1:] != IGNORE, (0, 1)) & (batch.block >= 0) & (spot >= 0)
    row, at = says.nonzero(as_tuple=True)
    place = torch.arange(batch.ids.shape[1])
    allowed = (batch.block[row] == batch.block[row, at][:, None]) & (place <= at[:, None])
    target = place == spot[row, at][:, None]
    for layer, head in ANSWERING:
        q, k = turned(layer, head)
        losses.append(attention_loss(q[row, n + at], k[row, n:], allowed, target))
    return torch.stack(losses).mean()


class Company(nn.Module):
    """Throw-away readers: what a visual token knows of its own frame and of the one before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.kinds = len(COLOUR_NAMES) + 1, len(SHAPES) + 1
        self.own = nn.Linear(width, 4 * sum(self.kinds))
        self.previous = nn.Linear(width, 4 * sum(self.kinds))

    def forward(self, heard: Heard, batch: Batch, prefix: int) -> torch.Tensor:
        """Cross entropy of colour and shape in every quadrant seen so far."""
        n = batch.first_part(prefix)
        rows, frames = batch.scenes.shape[:2]
        number = batch.scenes[:, :, None].expand(-1, -1, TOKENS, -1)  # [B, F, 16, 4]
        seen = torch.arange(TOKENS)[:, None] >= torch.tensor(LAST_CELL)
        seen = seen.expand(rows, frames, TOKENS, 4)
        losses = []
        for layer, reader in ((OWN, self.own), (PREVIOUS, self.previous)):
            states = heard.outputs[layer][:, prefix : n - 1].unflatten(1, (frames, TOKENS))
            if layer == PREVIOUS:
                states, target = states[:, 1:], number[:, :-1]
                known = (batch.scenes[:, 1:] != batch.scenes[:, :-1]).any(-1)
                known = known[..., None, None].expand_as(target)
            else:
                target, known = number, seen
            if not bool(known.any()):
                continue
            logits = reader(states).unflatten(-1, (4, -1))[known].float()
            target = target[known]
            colour = torch.where(target < 0, self.kinds[0] - 1, target // len(SHAPES))
            shape = torch.where(target < 0, self.kinds[1] - 1, target % len(SHAPES))
            losses.append(F.cross_entropy(logits[:, : self.kinds[0]], colour))
            losses.append(F.cross_entropy(logits[:, self.kinds[0] :], shape))
        return torch.stack(losses).mean()
