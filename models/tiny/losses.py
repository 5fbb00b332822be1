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

from mmkv.models.tiny.batches import TOKENS, Batch
from mmkv.models.tiny.forward import QUADRANT_OF_TOKEN, token_cover
from mmkv.models.tiny.world import COLOUR_NAMES, SHAPES, Bank

POINTING = (1, 2)  # layers whose first head learns to look from a name to what it names
SUMMING = 3  # layer whose first head learns to look from a name to the end of the right frame
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
    """Contrastive loss between a question's mean query and the frames' keys, over all layers.

    `kind="mean"` scores a frame by its mean key, `"max"` by its best token.
    """
    frames = batch.scenes.shape[1]
    n = batch.first_part(prefix)
    count = batch.needed.shape[1]
    own = F.one_hot(batch.block.clamp(min=0), count) * batch.probe[..., None]  # [B, L, Q]
    own = own.float() / own.sum(1, keepdim=True).clamp(min=1)
    used = batch.needed.any(-1)
    losses = []
    for q, k in zip(heard.queries, heard.keys, strict=True):
        probe = torch.einsum("blq,bld->bqd", own, q[:, n:].float())
        keys = k[:, prefix : n - 1].float().unflatten(1, (frames, TOKENS))
        if kind == "mean":
            keys = keys.mean(2, keepdim=True)
        kv_heads = keys.shape[-1] // 64
        probe = probe.unflatten(-1, (kv_heads, -1, 64)).sum(-2)  # query heads of one kv head
        score = torch.einsum("bqhd,bfthd->bqft", probe, keys.unflatten(-1, (kv_heads, 64)))
        score = score.amax(-1) / 16
        log = score.log_softmax(-1)
        hit = log.masked_fill(~batch.needed, float("-inf"))[used].logsumexp(-1)
        losses.append(-hit.mean())
    return torch.stack(losses).mean()


def pointer_loss(
    model: LlavaOnevisionForConditionalGeneration,
    heard: Heard,
    batch: Batch,
    bank: Bank,
    prefix: int,
) -> torch.Tensor:
    """Teach one head of a few layers where to look from the name of an object.

    Cross entropy of that head's attention logits over the visual tokens: in `POINTING` layers the
    tokens that show the object, in layer `SUMMING` the end of the frame that knows the answer.
    """
    n = batch.first_part(prefix)
    rows, asks = (batch.pointer >= 0).nonzero(as_tuple=True)
    shown = token_cover(batch.scenes.flatten(0, 1), batch.variant.flatten(0, 1), bank) > 0.3
    shown = shown.view(len(batch.ids), 1, -1, TOKENS)
    things = (shown & batch.pointed[..., QUADRANT_OF_TOKEN]).flatten(2)
    end = torch.zeros(TOKENS, dtype=torch.bool)
    end[list(ENDS)] = True
    ends = (batch.told[..., None] & end).flatten(2)
    rotary = model.model.language_model.rotary_emb
    cos, sin = rotary(heard.keys[0].float(), batch.positions(prefix))
    losses = []
    for layer in (*POINTING, SUMMING):
        target = (ends if layer == SUMMING else things)[rows, asks]  # [P, F * 16]
        good = target.any(-1)
        row, ask, target = rows[good], asks[good], target[good]
        q = heard.queries[layer][..., None, :64].transpose(1, 2).float()
        k = heard.keys[layer][..., None, :64].transpose(1, 2).float()
        q, k = apply_rotary_pos_emb(q, k, cos, sin)
        probe = q[row, 0, n + batch.pointer[row, ask]]  # [P, 64]
        logits = torch.einsum("pd,ptd->pt", probe, k[row, 0, prefix : n - 1]) / 8
        hit = logits.float().log_softmax(-1).masked_fill(~target, float("-inf")).logsumexp(-1)
        losses.append(-hit.mean())
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
