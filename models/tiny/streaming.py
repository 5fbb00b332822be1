"""The forward pass of training as the engine runs it: watch through a window, then ask.

Frames attend to the last `WINDOW` frames and to the sinks, at a fixed distance once these are out
of the window. Every question then sees, in each layer, frames chosen for it there and the most
recent ones, numbered as one clip; their keys come from the stream, before RoPE.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlavaOnevisionForConditionalGeneration
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, rotate_half

from mmkv.models.tiny.batches import TOKENS, Batch, Encoder

WINDOW = 16  # frames
HEAD = 64  # size of a head
KV_HEADS = 2

Table = tuple[Tensor, Tensor]
Choose = Callable[[int, Tensor, Tensor], Tensor]


@dataclass
class Past:
    """What a stream's layers hold.

    Attributes:
        summary: what stands for a frame in retrieval, its "mean" key or, by the best match, every
            token's ("max").
        keys: per layer, before RoPE, `[B, P + F*16, 2, 64]`.
        values: per layer, of the same shape.
        outputs: per layer, states after it, `[B, P + F*16, D]`.
    """

    summary: str = "mean"
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)

    def summaries(self, layer: int, prefix: int) -> Tensor:
        """Return the keys that stand for each frame, float32 `[B, F, m, 2, 64]`.

        Args:
            layer: which layer's.
            prefix: tokens before the frames.
        """
        keys = self.keys[layer][:, prefix:].float().unflatten(1, (-1, TOKENS))
        return keys.mean(2, keepdim=True) if self.summary == "mean" else keys


@dataclass
class Asked:
    """What questions do in a layer; `BQ` questions padded to `L` tokens.

    Attributes:
        queries: rotated, `[BQ, L, 4, 64]`.
        own: rotated keys, `[BQ, L, 2, 64]`.
        probe: mean query of the words before RoPE, summed per kv head, float32 `[B, Q, 2, 64]`.
        seen: rotated keys of the prefix and the shown frames, `[BQ, P + K*16, 2, 64]`.
        shown: int64 `[B, Q, K]`, frames numbered through all clips.
        output: states of the batch's tokens after the layer, `[B, L, D]`.
    """

    queries: Tensor
    own: Tensor
    probe: Tensor
    seen: Tensor
    shown: Tensor
    output: Tensor


def angles(model: LlavaOnevisionForConditionalGeneration, positions: Tensor) -> Table:
    """Return cosines and sines `[..., 1, 64]` of positions `[...]`."""
    rotary = model.model.language_model.rotary_emb
    shape = positions.shape
    cos, sin = rotary(torch.zeros(1), positions.reshape(1, -1))
    return cos.view(*shape, 1, HEAD), sin.view(*shape, 1, HEAD)


def turn(states: Tensor, table: Table) -> Tensor:
    """Rotate states `[..., heads, 64]` by the angles of a table."""
    cos, sin = (t.to(states.dtype) for t in table)
    return states * cos + rotate_half(states) * sin


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, *far: Tensor) -> Tensor:
    """Compute attention, written out.

    Args:
        query: `[B, n, 4, 64]`.
        key: `[B, m, 2, 64]`.
        value: of the same shape.
        bias: broadcasts to `[B, 2, 2, n, m]`.
        far: a second query and key with their bias, whose values are the first ones of `value`;
            both share one softmax.

    Returns:
        `[B, n, 256]`.
    """

    def scores(query: Tensor, key: Tensor, bias: Tensor) -> Tensor:
        grouped = query.unflatten(2, (KV_HEADS, -1)).permute(0, 2, 3, 1, 4)  # [B, 2, 2, n, 64]
        keys = key.permute(0, 2, 3, 1)[:, :, None]  # [B, 2, 1, 64, m]
        return grouped @ keys * HEAD**-0.5 + bias.to(query.dtype)

    logits = scores(query, key, bias)
    if far:
        logits = torch.cat([logits, scores(*far)], -1)
        value = torch.cat([value, value[:, : far[1].shape[1]]], 1)
    weights = logits.softmax(-1)
    out = weights @ value.transpose(1, 2)[:, :, None]  # [B, 2, 2, n, 64]
    return out.permute(0, 3, 1, 2, 4).flatten(2)


def project(layer: Qwen2DecoderLayer, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute queries, keys and values before RoPE, `[B, n, heads, 64]`, of states `[B, n, D]`."""
    normed, own = layer.input_layernorm(hidden), layer.self_attn
    parts = (own.q_proj(normed), own.k_proj(normed), own.v_proj(normed))
    q, k, v = (p.unflatten(-1, (-1, HEAD)) for p in parts)
    return q, k, v


def finish(layer: Qwen2DecoderLayer, hidden: Tensor, attended: Tensor) -> Tensor:
    """Run the rest of a decoder layer after its attention.

    Args:
        layer: the layer.
        hidden: states before it, `[B, n, D]`.
        attended: what its attention gave, `[B, n, 256]`.
    """
    hidden = hidden + layer.self_attn.o_proj(attended)
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def hide(seen: Tensor) -> Tensor:
    """Make a bias of 0 where seen and -inf elsewhere."""
    return torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))


def watch(
    model: LlavaOnevisionForConditionalGeneration,
    embeds: Tensor,
    prefix: int,
    summary: str = "mean",
) -> Past:
    """Run the language model over prefix and frames, seen through the window.

    Args:
        model: the model.
        embeds: `[B, n, D]`, of prefix and frames.
        prefix: tokens before the frames.
        summary: see `Past`.
    """
    n, local = embeds.shape[1], WINDOW * TOKENS
    at = torch.arange(n)
    distance = at[:, None] - at
    near = hide((distance >= 0) & (distance < local))
    gone = hide(distance[:, :prefix] >= local)
    table, fixed = angles(model, at), angles(model, torch.tensor([local - 1]))
    past, hidden = Past(summary), embeds
    for layer in model.model.language_model.layers:
        q, k, v = project(layer, hidden)
        far = (turn(q, fixed), k[:, :prefix], gone) if n > local else ()
        with torch.autocast("cpu", enabled=False):
            attended = attend(turn(q, table), turn(k, table), v, near, *far)
        hidden = finish(layer, hidden, attended)
        past.keys.append(k)
        past.values.append(v)
        past.outputs.append(hidden)
    return past


@dataclass
class Layout:
    """Where the questions' tokens are: rows `[B, Q + L]` (newlines first), questions `[BQ, M]`.

    Attributes:
        spot: int64 `[BQ, M]`, index into the flattened rows.
        there: bool `[BQ, M]`, False is padding.
        back: int64 `[B, Q + L]`, index into the flattened questions.
    """

    spot: Tensor
    there: Tensor
    back: Tensor

    @classmethod
    def of(cls, batch: Batch) -> Layout:
        """Lay out a batch's questions."""
        rows, count = batch.needed.shape[:2]
        block = torch.cat([torch.arange(count).expand(rows, -1), batch.block], 1)
        place = torch.cat([torch.zeros(rows, count, dtype=torch.long), batch.place + 1], 1)
        number = torch.arange(rows)[:, None] * count + block  # [B, Q + L]
        size = int(place[block >= 0].max()) + 1
        used = (block >= 0).flatten()
        index = (number * size + place).flatten()
        spot = torch.zeros(rows * count * size, dtype=torch.long)
        spot[index[used]] = torch.arange(len(index))[used]
        there = torch.zeros(rows * count * size, dtype=torch.bool)
        there[index[used]] = True
        back = torch.where(used, index, 0).view(rows, -1)
        return cls(spot.view(-1, size), there.view(-1, size), back)

    def padded(self, states: Tensor) -> Tensor:
        """Rearrange states `[B, Q + L, ...]` to `[BQ, M, ...]`."""
        return states.flatten(0, 1)[self.spot]


def answer(
    model: LlavaOnevisionForConditionalGeneration,
    batch: Batch,
    past: Past,
    encoder: Encoder,
    choose: Choose,
    kept: list[Tensor] | None = None,
) -> tuple[Tensor, list[Asked]]:
    """Run the language model over the questions, each seeing the frames chosen for it.

    Args:
        model: the model.
        batch: the questions.
        past: the frames, from `watch`.
        encoder: for the prefix.
        choose: given layer, probe and summaries, returns the frames to show, int64 `[B, Q, K]`,
            numbered through all clips as `clip * F + frame`.
        kept: per layer bool `[B, 1 or 2 (kv heads), K*16]`, tokens of the shown frames that are
            not hidden; None: all.

    Returns:
        states `[B, L, D]` of the questions' tokens, and what happened in each layer.
    """
    prefix = len(encoder.prefix)
    rows, count = batch.needed.shape[:2]
    layout = Layout.of(batch)
    newline = model.model.image_newline.expand(rows, count, -1)
    hidden = torch.cat([newline, model.get_input_embeddings()(batch.ids)], 1)
    own = F.one_hot(batch.block.clamp(min=0), count) * batch.probe[..., None]  # [B, L, Q]
    own = own.float() / own.sum(1, keepdim=True).clamp(min=1)
    size = layout.spot.shape[1]
    causal = torch.ones(size, size, dtype=torch.bool).tril() & layout.there[:, None]
    causal |= torch.eye(size, dtype=torch.bool)  # padding sees itself
    passed = []
    for i, layer in enumerate(model.model.language_model.layers):
        q, k, v = project(layer, hidden)
        with torch.autocast("cpu", enabled=False):
            probe = torch.einsum("blq,blhd->bqhd", own, q[:, count:].float())
            probe = probe.unflatten(2, (KV_HEADS, -1)).sum(3)
            shown = choose(i, probe, past.summaries(i, prefix))  # [B, Q, K]
        keys, values = (recall(x[i], shown, prefix) for x in (past.keys, past.values))
        table = angles(model, torch.arange(keys.shape[1] + size))
        before, text = ([t[part] for t in table] for part in (
            slice(0, keys.shape[1]), slice(keys.shape[1], None)))  # fmt: skip
        seen = turn(keys, (before[0], before[1]))
        query = turn(layout.padded(q), (text[0], text[1]))
        mine = turn(layout.padded(k), (text[0], text[1]))
        visible = causal.new_ones(len(keys), 1, size, keys.shape[1])
        if kept is not None:
            visible = visible.repeat(1, kept[i].shape[1], 1, 1)
            visible[..., prefix:] &= kept[i].repeat_interleave(count, 0)[:, :, None]
        bias = hide(torch.cat([visible, causal[:, None].expand(*visible.shape[:3], -1)], -1))
        with torch.autocast("cpu", enabled=False):
            attended = attend(
                query, torch.cat([seen, mine], 1),
                torch.cat([values, layout.padded(v)], 1), bias[:, :, None],
            )  # fmt: skip
        hidden = finish(layer, hidden, attended.flatten(0, 1)[layout.back])
        passed.append(Asked(query, mine, probe, seen, shown, hidden[:, count:]))
    return model.model.language_model.norm(hidden)[:, count:], passed


def whole_clips(rows: int, count: int, frames: int) -> Tensor:
    """Show each question every frame of its own clip.

    Args:
        rows: clips, `B`.
        count: questions about each, `Q`.
        frames: frames of each, `F`.

    Returns:
        frames numbered through all clips, int64 `[B, Q, F]`.
    """
    return torch.arange(rows * frames).view(rows, 1, frames).expand(rows, count, frames)


def within(shown: Tensor, frames: int) -> Tensor:
    """Renumber frames `[B, Q, K]` from all clips to the question's own; -1 for those of others."""
    own = shown - frames * torch.arange(len(shown))[:, None, None]
    return torch.where((own >= 0) & (own < frames), own, -1)


def were_shown(shown: Tensor, frames: int) -> Tensor:
    """Say which frames of its own clip a question was shown, bool `[B, Q, F]`."""
    own = within(shown, frames)
    seen = torch.zeros(*own.shape[:2], frames + 1, dtype=torch.bool)
    return seen.scatter(-1, own % (frames + 1), True)[..., :frames]


def recall(states: Tensor, shown: Tensor, prefix: int) -> Tensor:
    """Gather the prefix and the shown frames of each question.

    Args:
        states: keys or values of streams, `[B, n, 2, 64]`.
        shown: int64 `[B, Q, K]`, frames numbered through all clips.
        prefix: tokens before the frames.

    Returns:
        `[BQ, P + K*16, 2, 64]`.
    """
    rows, count, many = shown.shape
    frames = states[:, prefix:].unflatten(1, (-1, TOKENS))  # [B, F, 16, 2, 64]
    chosen = frames.flatten(0, 1).flatten(1).index_select(0, shown.flatten())
    chosen = chosen.view(rows * count, many * TOKENS, *states.shape[2:])
    opening = states[:, :prefix].repeat_interleave(count, 0)
    return torch.cat([opening, chosen], 1)
