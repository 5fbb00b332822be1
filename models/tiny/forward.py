"""The forward pass of training: what stands for a frame, answers, and the two losses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F
from transformers import LlavaOnevisionForConditionalGeneration
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from mmkv.models.tiny.batches import IGNORE, TOKENS, Batch, Encoder
from mmkv.models.tiny.build import PREPROCESSOR
from mmkv.models.tiny.world import COLOUR_NAMES, NOTHING, PLACES, SHAPES, Bank

QUADRANT_OF_TOKEN = [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3]
POINTING = (1, 2)  # layers whose first head learns to point in the early stages
FULL_COVER = 0.22  # a token covered this much shows its shape fully


def token_cover(scenes: torch.Tensor, variant: torch.Tensor, bank: Bank) -> torch.Tensor:
    """How clearly each visual token shows its quadrant's shape, float32 `[N, 16]` in [0, 1]."""
    cover = bank.cover[scenes.clamp(min=0) % len(SHAPES), variant] * (scenes >= 0)[..., None]
    shown = ((cover - 0.02) / FULL_COVER).clamp(0, 1)  # [N, 4, 4]
    return shown.view(-1, 2, 2, 2, 2).transpose(2, 3).reshape(-1, TOKENS)


def spoken_tokens(
    scenes: torch.Tensor,
    variant: torch.Tensor,
    bank: Bank,
    table: torch.Tensor,
    encoder: Encoder,
) -> torch.Tensor:
    """Visual tokens written in words: the sum of the embeddings of what a token shows.

    A covered token is colour + shape, an empty one "nothing", both plus the words of the quadrant.
    `scenes`, `variant` `[N, 4]`, `table` the word embeddings `[V, D]`; returns `[N, 16, D]`.
    """
    colours = table[[encoder.ids[w] for w in COLOUR_NAMES]]
    shapes = table[[encoder.ids[w] for w in SHAPES]]
    places = torch.stack([table[encoder(p)].sum(0) for p in PLACES])
    number = scenes.clamp(min=0)
    thing = colours[number // len(SHAPES)] + shapes[number % len(SHAPES)]  # [N, 4, D]
    quadrant = torch.tensor(QUADRANT_OF_TOKEN)
    shown = token_cover(scenes, variant, bank)[..., None]
    nothing = table[encoder.ids[NOTHING]]
    return shown * thing[:, quadrant] + (1 - shown) * nothing + places[quadrant]


def word_table(model: LlavaOnevisionForConditionalGeneration) -> torch.Tensor:
    """The word embeddings `[V, D]`, which are the output weights too."""
    table = model.get_input_embeddings().weight
    assert isinstance(table, torch.Tensor)
    return table


def pixels_of(frames: torch.Tensor) -> torch.Tensor:
    """Normalised pixels of uint8 frames, as the preprocessor configuration says."""
    mean, std = PREPROCESSOR["image_mean"][0], PREPROCESSOR["image_std"][0]
    return (frames.float() / 255 - mean) / std


def see(model: LlavaOnevisionForConditionalGeneration, frames: torch.Tensor) -> torch.Tensor:
    """Visual tokens of uint8 frames `[N, 3, 64, 64]`: `[N, 16, D]`."""
    inner = model.model
    states = inner.vision_tower(pixels_of(frames), output_hidden_states=True).hidden_states[-1]
    return inner.apply_pooling(inner.multi_modal_projector(states))


def hidden_states(
    model: LlavaOnevisionForConditionalGeneration,
    batch: Batch,
    visual: torch.Tensor,
    encoder: Encoder,
) -> torch.Tensor:
    """Language model states of the questions' tokens, `[B, L, D]`; `visual` is `[B, F*16, D]`."""
    table = model.get_input_embeddings()
    rows = len(batch.ids)
    prefix = table(torch.tensor(encoder.prefix)).expand(rows, -1, -1)
    newline = model.model.image_newline.expand(rows, 1, -1)
    embeds = torch.cat([prefix, visual, newline, table(batch.ids)], dim=1)
    n = len(encoder.prefix)
    states = model.model.language_model(
        inputs_embeds=embeds,
        attention_mask=batch.mask(n),
        position_ids=batch.positions(n),
        use_cache=False,
    ).last_hidden_state
    return states[:, batch.first_part(n) :]


def answer_loss(
    model: LlavaOnevisionForConditionalGeneration, batch: Batch, states: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy of the answers, and which questions are answered exactly, bool `[B, Q]`."""
    target = batch.labels[:, 1:]
    chosen = target != IGNORE
    logits = model.lm_head(states[:, :-1][chosen]).float()
    loss = F.cross_entropy(logits, target[chosen])
    wrong = torch.zeros(len(batch.ids), int(batch.block.max()) + 1)
    rows = torch.arange(len(batch.ids))[:, None].expand_as(target)[chosen]
    miss = (logits.detach().argmax(-1) != target[chosen]).float()
    wrong.index_put_((rows, batch.block[:, 1:][chosen]), miss, accumulate=True)
    return loss, wrong == 0


@contextmanager
def listen(
    model: LlavaOnevisionForConditionalGeneration,
) -> Iterator[list[tuple[str, torch.Tensor]]]:
    """Collect the queries and keys of every layer, before RoPE, while a forward runs."""
    heard: list[tuple[str, torch.Tensor]] = []
    hooks = []
    for layer in model.model.language_model.layers:
        for name in ("q_proj", "k_proj"):
            module: nn.Module = getattr(layer.self_attn, name)
            hooks.append(
                module.register_forward_hook(
                    lambda _m, _i, out, name=name: heard.append((name, out))
                )
            )
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def retrieval_loss(
    heard: list[tuple[str, torch.Tensor]], batch: Batch, prefix: int, kind: str = "mean"
) -> torch.Tensor:
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
    for (_, q), (_, k) in zip(heard[0::2], heard[1::2], strict=True):
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
    heard: list[tuple[str, torch.Tensor]],
    batch: Batch,
    bank: Bank,
    prefix: int,
) -> torch.Tensor:
    """Teach one head of `POINTING` layers to look from an object's name to its visual tokens.

    Cross entropy of that head's attention logits over the visual tokens; without it, matching
    colour and shape together is found late. Only the early stages use it.
    """
    n = batch.first_part(prefix)
    row, ask = (batch.pointer >= 0).nonzero(as_tuple=True)
    shown = token_cover(batch.scenes.flatten(0, 1), batch.variant.flatten(0, 1), bank) > 0.3
    shown = shown.view(len(batch.ids), 1, -1, TOKENS)
    corners = batch.pointed[..., QUADRANT_OF_TOKEN]
    target = (shown & corners).flatten(2)[row, ask]  # [P, F * 16]
    good = target.any(-1)
    row, ask, target = row[good], ask[good], target[good]
    positions = batch.positions(prefix)
    cos, sin = model.model.language_model.rotary_emb(heard[0][1].float(), positions)
    losses = []
    for layer in POINTING:
        q = heard[2 * layer][1][..., None, :64].transpose(1, 2).float()
        k = heard[2 * layer + 1][1][..., None, :64].transpose(1, 2).float()
        q, k = apply_rotary_pos_emb(q, k, cos, sin)
        probe = q[row, 0, n + batch.pointer[row, ask]]  # [P, 64]
        logits = torch.einsum("pd,ptd->pt", probe, k[row, 0, prefix : n - 1]) / 8
        hit = logits.log_softmax(-1).masked_fill(~target, float("-inf")).logsumexp(-1)
        losses.append(-hit.mean())
    return torch.stack(losses).mean()
